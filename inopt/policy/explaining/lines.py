"""The lines of a report on one path: who serves an operation, and in which case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from inopt.policy.explaining.branches import MOST, Branch, Test
from inopt.policy.explaining.phrases import Phrase, topics, when
from inopt.policy.text.problems import Place
from inopt.policy.words import slot_name

DEPENDS: Final = "depends"
"""The route of an operation with several alternatives."""

_RANKS: Final = ("kernel", "daemon", "handler")


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """What happens ``when`` (``if …``, ``unless …``, empty for any case) no earlier one fits."""

    when: str
    route: str
    rule: str
    place: Place | None
    why: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves one operation.

    ``about``: ``inode``, or ``name`` for what looks at the name alone. ``route``: ``kernel``,
    ``daemon``, ``handler``, ``deny`` and an errno's name, or ``depends``. ``rule``, ``place``:
    what decided, and the word in the policy (None for a default that nobody wrote). ``why`` says
    what else one should know. ``alternatives`` are in order, the first that fits counts.
    """

    operation: str
    about: str
    route: str
    rule: str
    place: Place | None
    why: str
    alternatives: tuple[Alternative, ...] = ()


class Verdict(NamedTuple):
    """Who serves an operation in one case; the fields are those of `Line`."""

    route: str
    rule: str
    place: Place | None
    why: str

    @property
    def strictness(self) -> int:
        """Greater for what counts if names of one file say different things."""
        return _RANKS.index(self.route) if self.route in _RANKS else len(_RANKS)


def line(
    slot: int, about: str, branches: Sequence[Branch[Verdict]], phrases: Mapping[Test, Phrase]
) -> Line:
    """The line for *slot*."""
    last = branches[-1].value
    if len(branches) == 1:
        return Line(operation=slot_name(slot), about=about, **last._asdict())
    alternatives = tuple(
        Alternative(when=when(each.tests, phrases), **each.value._asdict()) for each in branches
    )
    routes = list(dict.fromkeys(each.route for each in alternatives))
    what = topics(test for each in branches for test in each.tests)
    cut = "; and so on" if len(branches) >= MOST else ""
    if len(routes) == 1:
        why = f"by what or for which reason depends on {what}{cut}"
    else:
        cases = "; ".join(f"{each.route} {each.when}" for each in alternatives[:-1])
        why = f"depends on {what}: {cases}{cut}; else {last.route}"
    return Line(
        operation=slot_name(slot),
        about=about,
        route=DEPENDS if len(routes) > 1 else last.route,
        rule=", ".join(dict.fromkeys(each.rule for each in alternatives)),
        place=alternatives[0].place,
        why=why,
        alternatives=alternatives,
    )
