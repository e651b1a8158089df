"""One scenario, twice: on a bare directory and through a mount; every result is compared.

A scenario is a function of a `Stage`. It lets clients do things; what each call answered is
recorded. Afterwards three trees must be alike: the bare one, the backing one, and the mount.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.clients import Client, Clients, clients
from support.exceptions import KNOWN
from support.mounting import Mount, in_place, mounted
from support.snapshot import differences, one_to_one, snapshot

Scenario = Callable[["Stage"], None]
_MOST_SHOWN: Final = 12


@dataclass(frozen=True)
class Record:
    """One call and its answer; *known* names the exception it may be."""

    who: str
    name: str
    arguments: tuple[Any, ...]
    result: Any
    known: str | None

    def told(self) -> str:
        """The call, as in a program."""
        arguments = ", ".join(_short(argument) for argument in self.arguments)
        return f"{self.who}.{self.name}({arguments})"


class Stage:
    """Where one run of a scenario takes place: all clients are in *path* and start afresh."""

    def __init__(self, path: Path, people: Clients) -> None:
        self.path = path
        self.records: list[Record] = []
        self._people = people
        self._here: set[str] = set()
        self._known: str | None = None
        self._records = True

    def client(self, name: str) -> Client:
        """That client, within the directory."""
        client = self._people.get(name)
        if name not in self._here:
            self._here.add(name)
            client.watch = None
            client.reset()
            client.enter(os.fsencode(self.path))
            client.watch = self._record
        return client

    def clients(self, *names: str) -> list[Client]:
        """Several of them."""
        return [self.client(name) for name in names]

    def _record(self, who: str, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if self._records:
            self.records.append(Record(who, name, arguments, result, self._known))

    def note(self, what: str, result: Any) -> None:
        """Record something else to compare."""
        self._record("test", what, (), result)

    @contextmanager
    def known(self, name: str) -> Iterator[None]:
        """The calls within may differ as `KNOWN` says."""
        assert name in KNOWN
        self._known, earlier = name, self._known
        try:
            yield
        finally:
            self._known = earlier

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The calls within are not compared: their results depend on chance."""
        self._records = False
        try:
            yield
        finally:
            self._records = True

    def leave(self) -> None:
        """Let no client hold anything."""
        for name in self._here:
            client = self._people.get(name)
            client.watch = None
            if client.runs:
                client.reset()


class Battery:
    """A mount of one tier, with a bare directory beside it on the same filesystem.

    *excused_as* is the tier whose known exceptions hold, where *tier* names something else.
    """

    def __init__(
        self, place: Path, mount: Mount, tier: str, people: Clients, excused_as: str = ""
    ) -> None:
        self.tier = tier
        self._excused_as = excused_as or tier
        self.mount = mount
        self.people = people
        self.bare = place / "bare"
        self.bare.mkdir()
        self._numbers = itertools.count()
        self._complaints = len(mount.complaints())  # those about the mount as such

    def run(self, scenario: Scenario, *, quiet: bool = True) -> None:
        """Run it on both sides and compare; *quiet*: the daemon has nothing to complain of."""
        problems = self.problems(scenario, quiet=quiet)
        shown = "\n  ".join(problems[:_MOST_SHOWN])
        assert not problems, f"{len(problems)} differences at tier {self.tier}:\n  {shown}"

    def problems(self, scenario: Scenario, *, quiet: bool = True) -> list[str]:
        """What differs when it is run on both sides."""
        name = f"{next(self._numbers)}-{scenario.__name__.strip('_')}"
        bare = self._perform(scenario, self.bare / name, self.bare / name)
        through = self._perform(scenario, self.mount.source / name, self.mount.path / name)
        problems = self._compare(bare, through)
        problems += self._compare_trees(name)
        complaints = self.mount.complaints()
        if quiet:
            problems += complaints[self._complaints :]
        self._complaints = len(complaints)
        return problems

    def _perform(self, scenario: Scenario, made: Path, path: Path) -> list[Record]:
        made.mkdir()
        made.chmod(0o777)
        stage = Stage(path, self.people)
        try:
            scenario(stage)
        finally:
            stage.leave()
        return stage.records

    def _compare(self, bare: list[Record], through: list[Record]) -> list[str]:
        problems: list[str] = []
        for expected, got in itertools.zip_longest(bare, through):
            if expected is None or got is None:
                problems.append(f"only one run has {(expected or got).told()}")
                break
            if expected.told() != got.told():
                problems.append(f"the runs part: {expected.told()} and {got.told()}")
                break
            if expected.result == got.result or self._excused(expected, got):
                continue
            problems.append(
                f"{got.told()}: bare {_short(expected.result)}, mount {_short(got.result)}"
            )
        return problems

    def _excused(self, expected: Record, got: Record) -> bool:
        if got.known is None:
            return False
        known = KNOWN[got.known]
        here = {self.tier, self._excused_as}
        may = not known.tiers.isdisjoint(here) and known.mount(got.result)
        return may and known.beside(expected.result, got.result)

    def _compare_trees(self, name: str) -> list[str]:
        bare = snapshot(self.bare / name)
        through = snapshot(self.mount.path / name)
        backing = snapshot(self.mount.source / name)
        return [
            *differences(bare, backing, ("bare", "backing"), same_tree=False),
            *differences(backing, through, ("backing", "mount"), same_tree=True),
            *one_to_one(through, backing),
        ]


def _short(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 64:
        return f"<{len(value)} bytes {value[:20]!r}…>"
    if isinstance(value, list) and len(value) > 12:
        return f"<{len(value)} of them: {str(value[:4])[:-1]}, …]>"
    if isinstance(value, dict) and "mode" in value:
        return str({**value, "mode": oct(value["mode"])})
    return repr(value)


@contextmanager
def battery(tier: str, *options: str) -> Iterator[Battery]:
    """Mount at *tier*, and unmount; the tier is what the mount says it has.

    ``INOPT_TEST_ABI`` names the kernel's dialect where it must be named.
    """
    with in_place(f"battery-{tier}") as place, clients() as people:
        source, path = place / "back", place / "mnt"
        arguments = ["--tier", tier]
        if abi := os.environ.get("INOPT_TEST_ABI"):
            arguments += ["--abi", abi]
        for option in options:
            arguments += ["-o", option]
        with mounted(source, path, *arguments) as mount:
            assert mount.stats()["tier"] == tier
            yield Battery(place, mount, tier, people)
            people.close()
