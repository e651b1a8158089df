"""Locks of a mount and of the bare tree under it: they exclude each other."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support import rawcalls
from support.clients import clients
from support.locking import WAYS, locking, on_both_sides
from support.mounting import Mount
from support.programs import start_client
from support.rawcalls import F_OFD_SETLK
from support.waiting import within

pytestmark = pytest.mark.host

SHARED, EXCLUSIVE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB


@pytest.fixture
def people() -> Iterator[Any]:
    with clients() as made:
        yield made


@pytest.fixture(params=["async", "plain", "daemon"])
def mount(place: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    name, policy, _ = WAYS[request.param]
    with locking(place, name, policy) as made:
        (made.source / "f").write_bytes(b"0" * 100)
        (made.source / "f").chmod(0o666)
        yield made


def test_each_side_sees_the_locks_of_the_other(mount: Mount, people: Any) -> None:
    inside, outside = on_both_sides(mount, people)
    for one, other in ((inside, outside), (outside, inside)):
        one.lock("f", fcntl.F_SETLK, EXCLUSIVE, 10, 5)
        assert other.lock("f", fcntl.F_SETLK, SHARED, 12, 1) == "EAGAIN"
        assert other.lock("f", F_OFD_SETLK, SHARED, 12, 1) == "EAGAIN"
        assert other.locked("f", fcntl.F_GETLK, SHARED, 0, 0)[:3] == (EXCLUSIVE, 10, 5)
        assert other.lock("f", fcntl.F_SETLK, EXCLUSIVE, 15, 5) is None
        one.flock("f", EX)
        assert other.flock("f", SH | NB) == "EAGAIN"
        for client in (one, other):
            client.lock("f", fcntl.F_SETLK, NONE, 0, 0)
            client.flock("f", UN)
    # A process underneath is told as what it is, one of the mount by its number, too.
    outside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 1)
    assert inside.locked("f", fcntl.F_GETLK, SHARED, 0, 0)[3] == 1


def test_each_side_waits_for_the_other(mount: Mount, people: Any) -> None:
    inside, outside = on_both_sides(mount, people)
    for one, other in ((inside, outside), (outside, inside)):
        one.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 0)
        other.start("lock", "f", fcntl.F_SETLKW, EXCLUSIVE, 0, 0)
        assert other.blocked(0.6)
        one.lock("f", fcntl.F_SETLK, NONE, 0, 0)
        assert other.finish() is None
        one.start("flock", "f", EX)
        assert one.finish() is None
        other.start("flock", "f", SH)
        assert other.blocked()
        one.close("f")
        assert other.finish() is None
        one.open("f", b"f", os.O_RDWR)
        other.flock("f", UN)
        other.lock("f", fcntl.F_SETLK, NONE, 0, 0)


def test_what_is_open_through_the_mount_still_bypasses(mount: Mount, people: Any) -> None:
    if mount.stats()["tier"] == "none":
        pytest.skip("this kernel has no bypass")
    inside, _ = on_both_sides(mount, people)
    inside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 0)
    inside.flock("f", EX)
    assert inside.pwrite("f", b"new", 0) == 3
    assert inside.pread("f", 3, 0) == b"new"
    stats = mount.stats()
    assert all(
        stats[opcode][by] == 0 for opcode in ("READ", "WRITE") for by in ("daemon", "handler")
    )


def test_locking_for_reading_lets_others_execute(mount: Mount, people: Any) -> None:
    program = mount.source / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    inside = people.get("root")
    inside.enter(os.fsencode(mount.path))
    inside.open("p", b"program", os.O_RDONLY)
    assert inside.lock("p", fcntl.F_SETLK, SHARED, 0, 0) is None
    assert inside.flock("p", EX | NB) is None
    assert subprocess.run([program], check=False).returncode == 0
    assert subprocess.run([mount.path / "program"], check=False).returncode == 0


def test_locks_of_files_that_are_gone(mount: Mount, people: Any) -> None:
    inside, outside = on_both_sides(mount, people)
    inside.unlink(b"f")
    assert inside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 10) is None
    assert outside.lock("f", fcntl.F_SETLK, SHARED, 5, 1) == "EAGAIN"
    inside.close("f")
    assert within(lambda: outside.lock("f", fcntl.F_SETLK, SHARED, 5, 1) is None)


def test_append_only_files_can_be_locked(mount: Mount, people: Any) -> None:
    inside, outside = people.get("root"), people.get("root2")
    inside.enter(os.fsencode(mount.path))
    outside.enter(os.fsencode(mount.source))
    inside.open("f", b"f", os.O_RDWR)
    inside.set_flags("f", rawcalls.FS_APPEND)
    try:
        inside.open("f", b"f", os.O_WRONLY | os.O_APPEND)
        outside.open("f", b"f", os.O_WRONLY | os.O_APPEND)
        assert inside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 0) is None
        assert outside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 0) == "EAGAIN"
    finally:
        outside.open("g", b"f", os.O_RDONLY)
        outside.set_flags("g", 0, rawcalls.FS_APPEND)


_COUNTS: Final = """
import fcntl, os, struct, sys
path, counter, kind, times = sys.argv[1:5]
lock, number = os.open(path, os.O_RDWR), os.open(counter, os.O_RDWR)
record = lambda type_: struct.pack("hhqqi4x", type_, 0, 10, 5, 0)
print("ready")
sys.stdin.readline()
for turn in range(int(times)):
    if kind == "flock":
        fcntl.flock(lock, fcntl.LOCK_EX)
    elif kind == "posix":
        fcntl.fcntl(lock, fcntl.F_SETLKW, record(fcntl.F_WRLCK))
    else:
        fcntl.fcntl(lock, 38, record(fcntl.F_WRLCK))
    value = int.from_bytes(os.pread(number, 8, 0), "little") + 1
    os.pwrite(number, value.to_bytes(8, "little"), 0)
    if turn % 10 == 9:  # by closing, too
        os.close(lock)
        lock = os.open(path, os.O_RDWR)
    elif kind == "flock":
        fcntl.flock(lock, fcntl.LOCK_UN)
    else:
        fcntl.fcntl(lock, fcntl.F_SETLK if kind == "posix" else 37, record(fcntl.F_UNLCK))
"""


@pytest.mark.parametrize("kind", ["flock", "posix", "open-file"])
def test_nobody_gets_in_between(mount: Mount, kind: str) -> None:
    """Clients of the mount and programs underneath count together, by turns."""
    counter = mount.source.parent / "counter"
    counter.write_bytes(bytes(8))
    paths = [mount.path / "f"] * 4 + [mount.source / "f"] * 2
    processes = [start_client(_COUNTS, str(path), str(counter), kind, "100") for path in paths]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    try:
        assert [process.wait(240) for process in processes] == [0] * 6
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert int.from_bytes(counter.read_bytes(), "little") == 600
    assert mount.complaints() == []
