"""The rules of a policy, compiled: names resolved, words spread over slots, one matcher.

Nothing here depends on the kernel; `inopt.policy.plan` makes routes of it for one tier.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from difflib import get_close_matches
from enum import IntEnum
from functools import cached_property
from typing import Final

import msgspec

from inopt.ops import Op
from inopt.policy.callers import CallerTest, caller_test_of
from inopt.policy.facts import Condition, UnknownNameError, conditions_of, types_of
from inopt.policy.load import Loaded
from inopt.policy.model import Match, Rule, listed
from inopt.policy.paths.match import Matcher
from inopt.policy.paths.pattern import PatternError, check_pattern
from inopt.policy.text.problems import Place, PolicyError, Problem
from inopt.policy.words import NEVER_DENIED, NEVER_HANDLED, WORDS, Part

OTHERWISE: Final = -1
"""The index that stands for `otherwise` where a rule's index is expected."""

# What a read-only filesystem answers EROFS to.
CHANGING: Final = frozenset[int](
    WORDS["write"] | WORDS["namespace"] | WORDS["setattr"]
    | {Op.SETXATTR, Op.REMOVEXATTR}
)  # fmt: skip


class Kind(IntEnum):
    """What users say: the kernel or the daemon does it, a handler does, nobody does."""

    BYPASS = 0
    HANDLE = 1
    DENY = 2


class Decision(msgspec.Struct, frozen=True):
    """What happens with an operation; ``errno`` is the number that a denied one answers."""

    kind: Kind
    errno: int = 0


BYPASS: Final = Decision(Kind.BYPASS)
HANDLE: Final = Decision(Kind.HANDLE)


class CompiledRule:
    """One rule: which inodes it is about, and what it decides by slot."""

    __slots__ = (
        "caller", "conditions", "decisions", "index", "layer", "name", "patterns", "types",
        "visible",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        name: str,
        patterns: tuple[str, ...],
        types: frozenset[int],
        conditions: tuple[Condition, ...],
        caller: CallerTest | None,
        decisions: Mapping[int, Decision],
        visible: bool | None,
        layer: int | None = None,
    ) -> None:
        self.index = index
        self.name = name
        self.patterns = patterns
        self.types = types
        self.conditions = conditions
        self.caller = caller
        self.decisions = decisions
        self.visible = visible
        self.layer = layer


class Rules:
    """All rules of a policy, in order. ``matcher`` knows those that have a path, by position."""

    def __init__(self, loaded: Loaded, rules: list[CompiledRule]) -> None:
        self.loaded = loaded
        self.rules = rules
        self.by_path = [rule for rule in rules if rule.patterns]
        self.everywhere = [rule for rule in rules if not rule.patterns]
        self.choose_layers = any(rule.layer is not None for rule in rules)
        hiding = [place for place, rule in enumerate(self.by_path) if rule.visible is False]
        self.matcher = Matcher([rule.patterns for rule in self.by_path], hiding)
        self.otherwise = {
            "bypass": BYPASS,
            "handle": HANDLE,
            "deny": Decision(Kind.DENY, errno.EACCES),
        }[loaded.policy.otherwise]

    @cached_property
    def touched(self) -> frozenset[int]:
        """The slots that somebody decides otherwise than by bypassing."""
        by_rules = frozenset(
            slot
            for rule in self.rules
            for slot, decision in rule.decisions.items()
            if decision.kind is not Kind.BYPASS
        )
        return by_rules | frozenset(
            slot for slot in WORDS["all"] if self.default(slot).kind is not Kind.BYPASS
        )

    def depends(self, slot: int) -> bool:
        """Whether what happens with *slot* depends on the caller, or on what can change."""
        return any(
            slot in rule.decisions and (rule.conditions or rule.caller is not None)
            for rule in self.rules
        )

    def default(self, slot: int) -> Decision:
        """What happens with *slot* when no rule decides."""
        if slot in NEVER_DENIED and self.otherwise.kind is Kind.DENY:
            return BYPASS
        if slot in NEVER_HANDLED and self.otherwise.kind is Kind.HANDLE:
            return BYPASS
        return self.otherwise


def compile_rules(loaded: Loaded) -> Rules:
    """Compile a policy's rules. Raises `PolicyError` with everything that is wrong."""
    problems: list[Problem] = []
    rules = [
        _compile(loaded, index, rule, problems) for index, rule in enumerate(loaded.policy.rules)
    ]
    if problems:
        raise PolicyError(problems)
    return Rules(loaded, rules)


def _compile(loaded: Loaded, index: int, rule: Rule, problems: list[Problem]) -> CompiledRule:
    conditions: tuple[Condition, ...] = ()
    caller = None
    _check_patterns(loaded, index, rule.match, problems)
    try:
        conditions = conditions_of(rule.match)
        if rule.match.caller is not None:
            caller = caller_test_of(rule.match.caller)
    except UnknownNameError as error:
        near = get_close_matches(error.name, error.known, 1)
        hint = f"did you mean '{near[0]}'?" if near else "give a number, or add it first"
        problems.append(Problem(_place_of(loaded, index, error.name), f"{error}: {hint}"))
    except PatternError as error:
        place = loaded.place("rules", index, "match", "caller")
        problems.append(Problem(place, f"{error.reason}: {error.fix}"))
    if rule.layer is not None and rule.match != Match(path=rule.match.path):
        place = loaded.place("rules", index, "layer", key=True)
        reason = "layer: decided before more than the path is known: leave only 'path' in 'match'"
        problems.append(Problem(place, reason))
    return CompiledRule(
        index,
        rule.name,
        tuple(str(pattern) for pattern in listed(rule.match.path)),
        types_of(rule.match),
        conditions,
        caller,
        _decisions(rule),
        rule.visible,
        rule.layer,
    )


def _decisions(rule: Rule) -> dict[int, Decision]:
    """By slot. Within a rule the strictest word wins: deny, then handle, then bypass."""
    decisions: dict[int, Decision] = {}
    for word in listed(rule.bypass):
        decisions |= dict.fromkeys(WORDS[str(word)], BYPASS)
    for word in listed(rule.handle):
        decisions |= dict.fromkeys(WORDS[str(word)] - set(NEVER_HANDLED), HANDLE)
    # The narrower word wins over the wider one, whatever their order: it says more.
    denied = sorted(_denied(rule), key=lambda item: -len(WORDS[item[0]]))
    for word, name in denied:
        for slot in WORDS[word] - set(NEVER_DENIED):
            decisions[slot] = Decision(Kind.DENY, _errno(name, rule.match, slot))
    return decisions


def _denied(rule: Rule) -> list[tuple[str, str | None]]:
    if isinstance(rule.deny, dict):
        return list(rule.deny.items())
    return [(str(word), None) for word in listed(rule.deny)]


def _errno(name: str | None, match: Match, slot: int) -> int:
    if name is not None:
        return int(getattr(errno, name))
    if slot == Part.MMAP:
        return errno.ENODEV  # the kernel's answer, whatever we say
    return errno.EROFS if match == Match() and slot in CHANGING else errno.EACCES


def _check_patterns(loaded: Loaded, index: int, match: Match, problems: list[Problem]) -> None:
    for position, pattern in enumerate(listed(match.path)):
        try:
            check_pattern(str(pattern))
        except PatternError as error:
            place = loaded.place("rules", index, "match", "path", position)
            problems.append(Problem(place, f"path '{pattern}': {error.reason}: {error.fix}"))


def _place_of(loaded: Loaded, index: int, name: str) -> Place:
    """Where in a rule's owner or caller a name stands."""
    match = loaded.policy.rules[index].match
    for part, fields in (("owner", match.owner), ("caller", match.caller)):
        if fields is None:
            continue
        for field in fields.__struct_fields__:
            for position, who in enumerate(listed(getattr(fields, field))):
                if who == name:
                    return loaded.place("rules", index, "match", part, field, position)
    return loaded.place("rules", index)
