"""What may happen, in order: the first branch whose tests all hold is what does.

Tests are those of which nobody has said whether they hold: facts of a file that is not there, a
caller who has not been named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from inopt.policy.callers import CallerTest
from inopt.policy.facts import Condition

Test: TypeAlias = Condition | CallerTest
Value = TypeVar("Value")
_One = TypeVar("_One")
_Other = TypeVar("_Other")

MOST: Final = 64
"""How many branches are kept: more than anybody would read."""


class Branch(NamedTuple, Generic[Value]):
    """What happens if all tests hold, and no earlier branch's do."""

    tests: tuple[Test, ...]
    value: Value


def tidy(branches: Iterable[Branch[Value]]) -> list[Branch[Value]]:
    """Without what never happens, up to the first branch without tests, which there must be."""
    kept: list[Branch[Value]] = []
    reached: list[frozenset[Test]] = []
    for branch in branches:
        tests = frozenset(branch.tests)
        if tests and len(kept) >= MOST - 1:
            continue
        if any(earlier <= tests for earlier in reached):
            continue
        kept.append(branch)
        reached.append(tests)
        if not tests:
            break
    for place in range(len(kept) - 2, -1, -1):
        here, after = kept[place : place + 2]
        if here.value == after.value and reached[place + 1] <= reached[place]:
            del kept[place], reached[place]
    return kept


def combine(
    one: Sequence[Branch[_One]],
    other: Sequence[Branch[_Other]],
    pick: Callable[[_One, _Other], Value],
) -> list[Branch[Value]]:
    """Both at once: *pick* says what happens when each of the two does."""
    return tidy(
        Branch(tuple(dict.fromkeys(mine.tests + theirs.tests)), pick(mine.value, theirs.value))
        for mine in one
        for theirs in other
    )


def always(value: Value) -> list[Branch[Value]]:
    """What happens in any case."""
    return [Branch((), value)]
