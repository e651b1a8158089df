"""What the checks of the linter look at: the rules as compiled and as written, side by side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from inopt.policy.facts import SizeCondition
from inopt.policy.linting.coverage import VISIBLE, Coverage, types_with
from inopt.policy.linting.findings import Finding, level_of
from inopt.policy.model import listed
from inopt.policy.rules import CompiledRule, Decision, Kind, Rules
from inopt.policy.text.problems import Place
from inopt.policy.words import GROUP_WORDS, NEVER_DENIED, WORDS

_KINDS: Final = {"deny": Kind.DENY, "handle": Kind.HANDLE, "bypass": Kind.BYPASS}

_RESTRICTING: Final = frozenset({Kind.DENY, Kind.HANDLE})


class Word(NamedTuple):
    """A word of a rule, and the field it stands in."""

    field: str
    text: str

    @property
    def kind(self) -> Kind:
        """What it says about its slots."""
        return _KINDS[self.field]

    @property
    def slots(self) -> frozenset[int]:
        """All that it covers."""
        return WORDS[self.text]

    @property
    def is_group(self) -> bool:
        """Whether it names a group, and not the operation itself."""
        return self.text in GROUP_WORDS


class LintedRule:
    """A rule, with its words.

    ``slots``: what it decides that means anything for its files. ``live``: of that, what no
    earlier rule has decided. ``taken``: the rest, with the index of an earlier rule that has it.
    """

    def __init__(self, rules: Rules, compiled: CompiledRule, coverage: Coverage) -> None:
        self.compiled: Final = compiled
        self.index: Final = compiled.index
        self.source: Final = rules.loaded.policy.rules[compiled.index]
        self.title: Final = title_of(rules, compiled)
        self.taken: Final = coverage.earlier(compiled)
        self.slots: Final = [
            slot
            for slot, decision in compiled.decisions.items()
            if _matters(compiled, slot, decision)
        ]
        if compiled.visible is not None:
            self.slots.append(VISIBLE)
        self.live: Final[dict[int, Decision]] = {
            slot: compiled.decisions[slot]
            for slot in self.slots
            if slot not in self.taken and slot != VISIBLE
        }
        self.words: Final = [
            Word(field, str(text))
            for field in _KINDS
            for text in _texts(getattr(self.source, field))
        ]

    @property
    def is_unconditional(self) -> bool:
        """Whether it always holds for the files it is about."""
        return not self.compiled.conditions and self.compiled.caller is None

    @property
    def asks_for_size(self) -> bool:
        """Whether it depends on a file's size."""
        return any(isinstance(each, SizeCondition) for each in self.compiled.conditions)

    def effect(self, word: Word) -> frozenset[int]:
        """The slots that are decided here, as *word* says."""
        return frozenset(
            slot for slot in word.slots if slot in self.live and self.live[slot].kind is word.kind
        )

    def kind(self, slot: int) -> Kind | None:
        """What this rule says about *slot*, None for nothing that counts."""
        decision = self.live.get(slot)
        return decision.kind if decision else None

    @property
    def restricts(self) -> bool:
        """Whether it denies, handles or hides anything."""
        hides = self.compiled.visible is False and VISIBLE not in self.taken
        return hides or any(each.kind is not Kind.BYPASS for each in self.live.values())


class LintContext:
    """One policy under the linter, and what has been found."""

    def __init__(
        self,
        rules: Rules,
        handled_by: frozenset[int] | None,
        methods: Mapping[str, frozenset[int]],
    ) -> None:
        self.rules: Final = rules
        self.methods: Final = methods
        self.policy: Final = rules.loaded.policy
        self.handled_by: Final = handled_by
        self.coverage: Final = Coverage(rules.rules)
        self.linted: Final[list[LintedRule]] = []
        self.findings: Final[list[Finding]] = []
        for compiled in rules.rules:
            self.linted.append(LintedRule(rules, compiled, self.coverage))
            self.coverage.add(compiled)
        # By slot, in order: the rules that may change what happens where an earlier one ends.
        self._relevant: dict[int, list[int]] = {}
        for rule in self.linted:
            for slot, decision in rule.live.items():
                if decision.kind is not Kind.BYPASS or rule.is_unconditional:
                    self._relevant.setdefault(slot, []).append(rule.index)

    def add(self, code: str, place: Place, rule: str, message: str, fix: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(code, level_of(code), place, rule, message, fix))

    def add_at(self, code: str, rule: LintedRule, word: Word, message: str, fix: str) -> None:
        """Note a finding about a word."""
        place = self.rules.loaded.place("rules", rule.index, word.field, word.text, key=True)
        self.add(code, place, rule.title, message, fix)

    def place(self, rule: LintedRule, *steps: str | int, key: bool = False) -> Place:
        """Where a part of a rule stands."""
        return self.rules.loaded.place("rules", rule.index, *steps, key=key)

    def title(self, index: int) -> str:
        """How a rule is called."""
        title = self.linted[index].title
        return title if title.startswith("rule ") else f"rule '{title}'"

    def words(self, *fields: str) -> Iterator[tuple[LintedRule, Word]]:
        """All words of all rules, or only those in *fields*."""
        for rule in self.linted:
            for word in rule.words:
                if not fields or word.field in fields:
                    yield rule, word

    def goes_on_otherwise(self, rule: LintedRule, slot: int) -> bool:
        """Whether, where *rule* does not hold, *slot* may be denied or handled."""
        return self.goes_on_as(rule, slot, _RESTRICTING)

    def goes_on_as(self, rule: LintedRule, slot: int, kinds: frozenset[Kind]) -> bool:
        """Whether, where *rule* does not hold, *slot* may be decided as one of *kinds*."""
        compiled = rule.compiled
        types = types_with(slot, compiled.types)
        relevant = self._relevant.get(slot, [])
        for index in relevant[bisect_right(relevant, rule.index) :]:
            later = self.linted[index]
            if not types & later.compiled.types or self.coverage.apart(compiled, later.compiled):
                continue
            if later.kind(slot) in kinds:
                return True
            if (
                later.is_unconditional
                and later.compiled.types >= types
                and self.coverage.covers(later.compiled, compiled)
            ):
                return False
        return self.rules.default(slot).kind in kinds


def title_of(rules: Rules, rule: CompiledRule) -> str:
    """The name of a rule, or its number in the file where it stands."""
    index = rule.index
    for document in rules.loaded.documents:
        count = len(document.content.get("rules", ()))
        if index < count:
            break
        index -= count
    return rule.name or f"rule {index + 1}"


def _matters(rule: CompiledRule, slot: int, decision: Decision) -> bool:
    if decision.kind is Kind.BYPASS and slot in NEVER_DENIED:
        return False
    return bool(types_with(slot, rule.types))


def _texts(given: object) -> list[object]:
    return list(given) if isinstance(given, dict) else listed(given)
