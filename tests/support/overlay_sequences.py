"""Random sequences on a `Stage`: every answer of both overlays is compared, then the trees.

As a program it runs one sequence, and finds what of it is enough for a difference:

    PYTHONPATH=tests python -m support.overlay_sequences --tier none --seed 17 [--steps N]
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.clients import Client, Clients, clients
from support.layer_names import Step, settle
from support.layer_operations import generate
from support.mounting import in_place
from support.overlay_excuses import excused, left_out, may_be_as_before, reads_only
from support.overlay_stage import Stage, staged

KINDS: Final = 12


class DifferenceError(AssertionError):
    """Where the two overlays part."""


class Person:
    """The same user in both mounts."""

    def __init__(self, name: str, people: Clients, paths: tuple[Path, Path], tier: str) -> None:
        self._name = name
        self._tier = tier
        self._held: dict[str, bytes] = {}
        self._kernels = os.fsencode(paths[0])
        self._clients: list[Client] = [people.get(name), people.get(name + "2")]
        for client, path in zip(self._clients, paths, strict=True):
            client.watch = None
            client.reset()
            client.enter(os.fsencode(path))

    def both(self, operation: str, *arguments: Any) -> Any:
        """The answer of both. Raises `DifferenceError`."""
        kernel, ours = (client.call(operation, *arguments) for client in self._clients)
        if operation == "fstat" and kernel != ours and self._nameless(arguments[0]):
            # Without an index, overlayfs shows the link count of the lower inode then.
            for status in (kernel, ours):
                if isinstance(status, dict):
                    status.pop("nlink")
        if operation == "open":
            self._note_opened(arguments[0], arguments[2])
        if kernel != ours and not self._excused(operation, arguments, kernel, ours):
            raise DifferenceError(f"kernel {kernel!r}, ours {ours!r}")
        return kernel

    def leaves_out(self, operation: str, arguments: tuple[Any, ...]) -> bool:
        """Whether it is none that can be compared."""
        if operation == "copy_range" and self._tier != "none" and arguments[0] in self._held:
            # Within one file, the reader being from before its copy-up: they are two inodes here.
            return self._clients[0].call("opened_alike", *arguments[:2]) is True
        return left_out(self._name, operation, arguments, self._nameless)

    def _nameless(self, slot: str) -> bool:
        return self._clients[0].call("nameless", slot) is True

    def _note_opened(self, slot: str, flags: int) -> None:
        """What a file opened for reading holds at that moment."""
        self._held.pop(slot, None)
        if reads_only(flags):
            status = self._clients[1].call("fstat", slot)
            if isinstance(status, dict) and stat.S_ISREG(status["mode"]):
                data = self._clients[1].call("pread", slot, 1 << 20, 0)
                if isinstance(data, bytes):
                    self._held[slot] = data

    def _excused(self, operation: str, arguments: tuple[Any, ...], kernel: Any, ours: Any) -> bool:
        if excused(operation, kernel, ours, self._tier):
            return True
        if operation == "rename" and kernel is None and ours == "EACCES" and self._tier != "none":
            # Two names of one copy: as long as the lower file is open for reading, it is another
            # inode by the earlier name, and the kernel asks for permission before it compares.
            return self._is_one_file(*arguments[:2])
        held = self._held.get(arguments[0]) if arguments else None
        if held is None:
            return False
        if operation == "end_of" and self._tier != "none":
            # Whoever reads on what was there gets less or more of it, and is elsewhere afterwards.
            return bool(kernel[0] == ours[0])
        now = self._clients[1].call("pread", arguments[0], 1 << 20, 0)
        return may_be_as_before(operation, arguments, ours, held, now, self._tier)

    def _is_one_file(self, *names: bytes) -> bool:
        one, other = (os.lstat(os.path.join(self._kernels, name)) for name in names)
        return os.path.samestat(one, other)

    def leave(self) -> None:
        """Hold nothing."""
        for client in self._clients:
            if client.runs:
                client.reset()


def perform(stage: Stage, people: Clients, kind: int, groups: list[list[Step]]) -> list[str]:
    """Do *groups* in a subtree that nobody has used. Returns what was done, and what differs."""
    top = stage.take(kind)
    persons = {name: Person(name, people, stage.seen(top), stage.tier) for name in ("root", "user")}
    told: list[str] = []
    problem = ""
    try:
        for who, operation, arguments in (
            step for group in groups for step in settle(group, stage.seen(top)[0])
        ):
            said = f"{who}.{operation}({', '.join(map(_short, arguments))})"
            if persons[who].leaves_out(operation, arguments):
                continue
            try:
                told.append(f"{said} → {_short(persons[who].both(operation, *arguments))}")
            except DifferenceError as difference:
                problem = f"{said}: {difference}"
                break
    finally:
        for person in persons.values():
            person.leave()
    problems = [problem] if problem else stage.differences(top)
    return [*told, *(f"DIFFERENT: {line}" for line in problems)] if problems else []


def _short(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 40:
        return f"<{len(value)} bytes {value[:12]!r}…>"
    if isinstance(value, dict) and "mode" in value:
        return str({**value, "mode": oct(value["mode"])})
    return repr(value)


def shrink(
    groups: list[list[Step]], differs: Callable[[list[list[Step]]], bool]
) -> list[list[Step]]:
    """As few groups as still differ, by leaving out ever smaller parts."""
    size = max(len(groups) // 2, 1)
    while True:
        start = 0
        while start < len(groups):
            fewer = groups[:start] + groups[start + size :]
            if fewer and differs(fewer):
                groups = fewer
            else:
                start += size
        if size == 1:
            return groups
        size //= 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one random sequence, and shrink it.")
    parser.add_argument("--tier", default="none", help="none, rw, inode; kernel: on both sides")
    parser.add_argument("--lowers", type=int, default=2)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kind", type=int, help="of the subtree: by the seed, if left out")
    options = parser.parse_args()
    groups = generate(options.seed, options.steps)
    kind = options.seed % KINDS if options.kind is None else options.kind
    with (
        in_place("sequence") as place,
        staged(place, options.tier, options.lowers, [kind], 150) as stage,
        clients() as people,
    ):
        print(*perform(stage, people, kind, groups), sep="\n")
        print("shrinking …")
        least = shrink(groups, lambda some: bool(perform(stage, people, kind, some)))
        print(*perform(stage, people, kind, least), sep="\n")


if __name__ == "__main__":
    main()
