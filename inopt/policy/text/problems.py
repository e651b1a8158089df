"""What is wrong with a policy, and where: found together, told together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from inopt.exceptions import UsageError

_MOST_TOLD: Final = 50
_MOST_KEPT: Final = 1000
_LONGEST_SHOWN: Final = 60


class Place(msgspec.Struct, frozen=True, order=True):
    """Somewhere in a file; *line* and *column* (in characters) count from 1."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


class Problem(msgspec.Struct, frozen=True, order=True):
    """One mistake: where it is, and in one line what it is and how to mend it."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class PolicyError(UsageError):
    """A policy has mistakes. Its text is one line for each."""

    def __init__(self, problems: Iterable[Problem], more: int = 0) -> None:
        self.problems: Final = tuple(problems)
        """The mistakes that are told, by place."""
        self.more: Final = more
        """How many there are beside them, at least."""
        lines = [str(problem) for problem in self.problems]
        if more:
            lines.append(f"{self.problems[-1].place.path}: and {more} more")
        super().__init__("\n".join(lines))


class Problems:
    """Problems as they are found: at each place, the first one counts."""

    def __init__(self) -> None:
        self._found: dict[Place, Problem] = {}
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def is_full(self) -> bool:
        """Whether so many are known that others need not be looked at closely."""
        return len(self._found) >= _MOST_KEPT

    def add(self, place: Place, message: str) -> None:
        """Note that something is wrong at *place*."""
        if place in self._found:
            return
        if self.is_full:
            self._more += 1
        else:
            self._found[place] = Problem(place, message)

    def update(self, other: Problems) -> None:
        """Note all that *other* has."""
        for problem in other._found.values():
            self.add(problem.place, problem.message)
        self._more += other._more

    def count_another(self) -> None:
        """Note that there is a mistake more, which will not be told."""
        self._more += 1

    def error(self) -> PolicyError:
        """All of them: file by file in the order met, in each by place."""
        files = {path: number for number, path in enumerate(place.path for place in self._found)}
        found = sorted(self._found.values(), key=lambda each: (files[each.place.path], each))
        return PolicyError(found[:_MOST_TOLD], max(len(found) - _MOST_TOLD, 0) + self._more)


def shown(text: str) -> str:
    """A found text in quotes, printable and not too long."""
    if len(text) <= _LONGEST_SHOWN:
        return repr(text)
    return f"{text[:_LONGEST_SHOWN]!r}… ({len(text)} characters)"
