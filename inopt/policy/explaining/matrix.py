"""All rules of a policy by all operations, as a table that fits a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from inopt.policy.explaining.phrases import decision_text, match_text
from inopt.policy.explaining.sources import place_of_rule, rule_name
from inopt.policy.model import Rule, listed
from inopt.policy.rules import CompiledRule, Decision, Rules
from inopt.policy.text.problems import Place
from inopt.policy.words import SLOTS, WORDS, slot_name

OTHERS: Final = "others"
"""The column of the operations that no other column has."""

MIXED: Final = "mixed"
"""What stands in a column of several operations for which a rule says different things."""

MOST_COLUMNS: Final = 20
_USUAL: Final = ("read", "write", "open", "getattr", "setattr", "readdir", "namespace", "xattr")


class Cell(msgspec.Struct, frozen=True):
    """What a rule says of a column: ``bypass``, ``handle``, ``deny`` and an errno, or ``mixed``.

    ``partly``: of some operations of the column it says nothing.
    """

    text: str
    partly: bool = False


class Row(msgspec.Struct, frozen=True):
    """What a rule says.

    ``cells`` are by column, where it says anything; ``operations`` has each operation by itself.
    """

    rule: str
    place: Place | None
    match: str
    hides: bool
    cells: dict[str, Cell]
    operations: dict[str, str]


class Matrix(msgspec.Struct, frozen=True):
    """The rules in order, the last row being what happens otherwise; ``columns`` by name."""

    columns: dict[str, list[str]]
    rows: list[Row]


def matrix(rules: Rules) -> Matrix:
    """The table of a policy."""
    columns = _columns(rules.loaded.policy.rules)
    rows = [
        _row(rules, rule, {slot: rule.decisions[slot] for slot in SLOTS if slot in rule.decisions},
             columns)
        for rule in rules.rules
    ]  # fmt: skip
    rows.append(_row(rules, None, {slot: rules.default(slot) for slot in SLOTS}, columns))
    names = {name: [slot_name(slot) for slot in sorted(slots)] for name, slots in columns.items()}
    return Matrix(names, rows)


def _columns(rules: Iterable[Rule]) -> dict[str, frozenset[int]]:
    mentioned = Counter(word for rule in rules for word in _words(rule))
    extra = [word for word in mentioned if word not in _USUAL and WORDS[word] & set(SLOTS)]
    room = MOST_COLUMNS - len(_USUAL) - 1
    # What is said of least often goes into the column of its group.
    extra = sorted(extra, key=lambda word: (-mentioned[word], word))[:room]
    columns = {word: WORDS[word] & set(SLOTS) for word in _ordered(extra)}
    columns[OTHERS] = frozenset(SLOTS) - frozenset[int]().union(*columns.values())
    return {name: slots for name, slots in columns.items() if slots}


def _ordered(extra: Iterable[str]) -> list[str]:
    """The usual columns, each followed by those that are a part of it."""
    left = sorted(extra, key=lambda word: min(WORDS[word]))
    ordered: list[str] = []
    for usual in _USUAL:
        parts = [word for word in left if WORDS[word] <= WORDS[usual]]
        left = [word for word in left if word not in parts]
        ordered += [usual, *parts]
    return ordered + left


def _words(rule: Rule) -> set[str]:
    deny = list(rule.deny) if isinstance(rule.deny, dict) else listed(rule.deny)
    return {str(word) for word in (*listed(rule.bypass), *listed(rule.handle), *deny)} - {"all"}


def _row(
    rules: Rules,
    rule: CompiledRule | None,
    decisions: Mapping[int, Decision],
    columns: Mapping[str, frozenset[int]],
) -> Row:
    loaded = rules.loaded
    cells = {name: _cell(decisions, slots) for name, slots in columns.items()}
    return Row(
        rule_name(rule),
        place_of_rule(loaded, rule),
        "everything else"
        if rule is None
        else match_text(rule, loaded.policy.rules[rule.index].match),
        rule is not None and rule.visible is False,
        {name: cell for name, cell in cells.items() if cell is not None},
        {slot_name(slot): decision_text(decision) for slot, decision in decisions.items()},
    )


def _cell(decisions: Mapping[int, Decision], slots: frozenset[int]) -> Cell | None:
    said = [decisions[slot] for slot in slots if slot in decisions]
    if not said:
        return None
    texts = {decision_text(decision) for decision in said}
    return Cell(texts.pop() if len(texts) == 1 else MIXED, len(said) < len(slots))
