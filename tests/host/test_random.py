"""Random sequences on a bare directory and through a mount: no answer and no byte may differ."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support.battery import Battery
from support.exceptions import KNOWN
from support.rawcalls import RENAME_EXCHANGE, RENAME_NOREPLACE, UTIME_NOW, UTIME_OMIT
from support.sizing import STRESS
from support.snapshot import differences, one_to_one, snapshot

pytestmark = pytest.mark.host

_SECONDS: Final = 600.0 if STRESS else 13.0
# Shrinking a failure takes minutes: in the usual run the sequence is shown as it was found.
_PHASES: Final = (Phase.generate, Phase.shrink) if STRESS else (Phase.generate,)
_numbers: Final = itertools.count()

_NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"d/a", b"d/b", b"d/e", b"d/e/a", b"l"])
_SLOTS = st.sampled_from(["0", "1", "2"])
_ACCESS = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR])
_EXTRA = st.sampled_from(
    [0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW,
     os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND, os.O_SYNC]
)  # fmt: skip
_MODES = st.sampled_from([0o600, 0o644, 0o666, 0o777, 0o400, 0o200, 0o000, 0o4755, 0o2775, 0o6711])
_OFFSETS = st.sampled_from([0, 1, 7, 4095, 4096, 5000, 70_000])
_SIZES = st.sampled_from([0, 1, 10, 4096, 4097, 9000, 100_000])
_DATA = st.builds(
    lambda letter, size: letter * size,
    st.sampled_from([b"x", b"yz", b"\0", b"01234"]),
    st.sampled_from([0, 1, 3, 1000, 5000]),
)
_TIMES = st.sampled_from([(1, 2), (-5, 999_999_999), (0, UTIME_OMIT), (3_000_000_000, 0)])
_XATTRS = st.sampled_from(["user.a", "user.b", "user.long" * 5, "trusted.t"])


class Mirrored(RuleBasedStateMachine):
    """Each rule is one call, made on both sides."""

    battery: Battery
    people: tuple[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.name = f"random-{next(_numbers)}"
        self.sides = [self.battery.people.get(name) for name in self.people]
        made = (self.battery.bare / self.name, self.battery.mount.source / self.name)
        seen = (self.battery.bare / self.name, self.battery.mount.path / self.name)
        for client, making, path in zip(self.sides, made, seen, strict=True):
            making.mkdir()
            making.chmod(0o777)
            client.watch = None
            client.reset()
            client.enter(os.fsencode(path))

    def both(self, operation: str, *arguments: Any) -> Any:
        bare, through = (client.call(operation, *arguments) for client in self.sides)
        assert bare == through, f"{operation}{arguments}: bare {bare!r}, mount {through!r}"
        return bare

    def allowed(self, mode: int) -> int:
        """Without set-id bits where the exception ``root-writes-set-id`` is (exceptions.py)."""
        known = KNOWN["root-writes-set-id"]
        if self.people[0] == "root" and self.battery.tier in known.tiers:
            return mode & 0o1777
        return mode

    def teardown(self) -> None:
        for client in self.sides:
            client.reset()
        bare = snapshot(self.battery.bare / self.name)
        through = snapshot(self.battery.mount.path / self.name)
        backing = snapshot(self.battery.mount.source / self.name)
        found = [
            *differences(bare, backing, ("bare", "backing"), same_tree=False),
            *differences(backing, through, ("backing", "mount"), same_tree=True),
            *one_to_one(through, backing),
        ]
        assert not found, found

    @rule(slot=_SLOTS, name=_NAMES, access=_ACCESS, extra=_EXTRA, mode=_MODES)
    def open(self, slot: str, name: bytes, access: int, extra: int, mode: int) -> None:
        if access == os.O_RDONLY:
            extra &= ~os.O_TRUNC
        self.both("open", slot, name, access | extra, self.allowed(mode))

    @rule(slot=_SLOTS, where=st.sampled_from([b".", b"d"]), mode=_MODES, name=_NAMES)
    def temporary(self, slot: str, where: bytes, mode: int, name: bytes) -> None:
        self.both("open", slot, where, os.O_TMPFILE | os.O_RDWR, self.allowed(mode))
        self.both("write", slot, b"nameless")
        self.both("link_open", slot, name)

    @rule(slot=_SLOTS)
    def close(self, slot: str) -> None:
        self.both("close", slot)

    @rule(slot=_SLOTS, data=_DATA, offset=_OFFSETS)
    def pwrite(self, slot: str, data: bytes, offset: int) -> None:
        self.both("pwrite", slot, data, offset)
        self.both("fstat", slot)

    @rule(slot=_SLOTS, data=_DATA)
    def write(self, slot: str, data: bytes) -> None:
        self.both("write", slot, data)
        self.both("end_of", slot)

    @rule(slot=_SLOTS, size=_SIZES, offset=_OFFSETS)
    def pread(self, slot: str, size: int, offset: int) -> None:
        self.both("pread", slot, size, offset)
        self.both("read", slot, size)

    @rule(slot=_SLOTS, data=_DATA, offset=_OFFSETS)
    def map_store(self, slot: str, data: bytes, offset: int) -> None:
        self.both("map_store", slot, offset, data)

    @rule(slot=_SLOTS)
    def map_load(self, slot: str) -> None:
        self.both("map_load", slot)

    @rule(slot=_SLOTS, size=_SIZES)
    def ftruncate(self, slot: str, size: int) -> None:
        self.both("ftruncate", slot, size)

    @rule(slot=_SLOTS, mode=st.sampled_from([0, 1, 3, 16, 17]), start=_OFFSETS, size=_SIZES)
    def fallocate(self, slot: str, mode: int, start: int, size: int) -> None:
        self.both("fallocate", slot, mode, start, size)
        self.both("fstat", slot)

    @rule(one=_SLOTS, other=_SLOTS, size=_SIZES, start=_OFFSETS, to=_OFFSETS)
    def copy(self, one: str, other: str, size: int, start: int, to: int) -> None:
        self.both("copy_range", one, other, size, start, to)

    @rule(name=_NAMES, size=_SIZES)
    def truncate(self, name: bytes, size: int) -> None:
        self.both("truncate", name, size)

    @rule(name=_NAMES, mode=_MODES)
    def mkdir(self, name: bytes, mode: int) -> None:
        self.both("mkdir", name, mode | 0o700)

    @rule(name=_NAMES)
    def remove(self, name: bytes) -> None:
        self.both("rmdir", name)
        self.both("unlink", name)

    @rule(old=_NAMES, new=_NAMES, flags=st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self.both("rename", old, new, flags)
        self.both("lstat", new)

    @rule(old=_NAMES, new=_NAMES, follow=st.booleans())
    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        self.both("link", old, new, follow)
        self.both("lstat", old)

    @rule(old=_NAMES, new=st.sampled_from([b"l", b"d/a", b"c"]))
    def symlink(self, old: bytes, new: bytes) -> None:
        self.both("symlink", old, new)
        self.both("readlink", new)

    @rule(name=_NAMES, mode=_MODES)
    def chmod(self, name: bytes, mode: int) -> None:
        self.both("chmod", name, self.allowed(mode))

    @rule(name=_NAMES, access=_TIMES, modification=_TIMES)
    def set_times(
        self, name: bytes, access: tuple[int, int], modification: tuple[int, int]
    ) -> None:
        done = self.both("set_times", name, access, modification, 0)
        if done is None and UTIME_OMIT not in (access[1], modification[1]):
            self.both("times", name)

    @rule(name=_NAMES)
    def touch(self, name: bytes) -> None:
        self.both("set_times", name, (0, UTIME_NOW), (0, UTIME_NOW), 0)
        self.both("recent", name)

    @rule(name=_NAMES, attribute=_XATTRS, data=_DATA)
    def setxattr(self, name: bytes, attribute: str, data: bytes) -> None:
        self.both("setxattr", name, attribute, data[:100])
        self.both("listxattr", name)

    @rule(name=_NAMES, attribute=_XATTRS)
    def removexattr(self, name: bytes, attribute: str) -> None:
        self.both("getxattr", name, attribute)
        self.both("removexattr", name, attribute)

    @rule(name=_NAMES)
    def look(self, name: bytes) -> None:
        self.both("stat", name)
        self.both("listdir", b".")
        self.both("listing", b".")
        self.both("read_file", name)


def _batches(battery: Battery, people: tuple[str, str]) -> Iterator[type[Mirrored]]:
    """The machine again and again, each time with other sequences, until the time is up."""
    kind = type("Sequences", (Mirrored,), {"battery": battery, "people": people})
    deadline = time.monotonic() + _SECONDS / 2
    while time.monotonic() < deadline:
        yield kind


@pytest.mark.timeout(int(_SECONDS * 3 + 120))
@pytest.mark.parametrize("people", [("user", "user2"), ("root", "root2")], ids=["user", "root"])
def test_random_sequences(mirror: Battery, people: tuple[str, str]) -> None:
    for machine in _batches(mirror, people):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=15,
                stateful_step_count=40,
                deadline=None,
                database=None,
                phases=_PHASES,
                suppress_health_check=list(HealthCheck),
            ),
        )
