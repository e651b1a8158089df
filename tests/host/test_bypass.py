"""Tier rw: reads and writes never reach the daemon, in whatever ways a file is opened at once."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import MEMBER, TESTS, USER, Clients, Errno, clients
from support.mounting import Mount, in_place, mounted
from support.sizing import STRESS
from support.waiting import within

pytestmark = pytest.mark.host

_SECONDS = 4.0
_MODES = (
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_APPEND,
    os.O_WRONLY | os.O_APPEND,
    os.O_RDWR | os.O_SYNC,
    os.O_RDWR | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_DIRECT,
    os.O_RDONLY | os.O_DIRECT,
)

# Appending opens send their reads and writes, so that fcntl(2) can clear the flag; what truncates
# or needs alignment has a test of its own below.
_BYPASSING = tuple(
    flags for flags in _MODES if not flags & (os.O_APPEND | os.O_DIRECT | os.O_TRUNC)
)


@pytest.fixture(scope="module")
def mount(host: None) -> Iterator[Mount]:
    """A mount of tier rw."""
    with (
        in_place("bypass") as place,
        mounted(place / "back", place / "mnt", "--tier", "rw") as made,
    ):
        os.chmod(place / "back", 0o777)
        yield made


@pytest.fixture
def people() -> Iterator[Clients]:
    """Client processes."""
    with clients() as made:
        yield made


def served(mount: Mount) -> tuple[int, int]:
    """How many READ and WRITE requests the daemon has had."""
    stats = mount.stats()
    return sum(stats["READ"].values()), sum(stats["WRITE"].values())


def wait_for_no_backing_ids(mount: Mount) -> dict[str, Any]:
    """RELEASE comes after close(2) has returned."""
    assert within(lambda: not mount.stats()["backing_ids"])
    return mount.stats()


def fine(result: Any) -> Any:
    """The result, which must not be an error."""
    assert not isinstance(result, Errno), result
    return result


def test_no_read_or_write_reaches_the_daemon(mount: Mount, people: Clients) -> None:
    before = served(mount)
    everyone = [people.get(name) for name in ("root", "user", "user2", "member")]
    for client in everyone:
        fine(client.enter(os.fsencode(mount.path)))
    for number in range(100):
        name = b"many-%d" % number
        fine(everyone[number % 4].write_file(name, b"0" * 10_000, 0o666))
        fine(everyone[0].chmod(name, 0o666))
        for client in everyone:
            for index, flags in enumerate(random.Random(number).sample(_BYPASSING, 4)):
                slot = f"{number}-{index}"
                fine(client.open(slot, name, flags))
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    fine(client.pwrite(slot, b"written", number))
                if flags & os.O_ACCMODE != os.O_WRONLY:
                    assert len(fine(client.pread(slot, 7, number))) == 7
            fine(client.open("m", name, os.O_RDWR))
            fine(client.map("m", "m", 5000, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
            fine(client.map_write("m", 100, client.name.encode()))
            assert fine(client.read_file(name))[100:].startswith(client.name.encode())
            fine(client.copy_range("m", "m", 100, 0, 5000))
            fine(client.unmap("m"))
    assert mount.stats()["backing_ids"] == 100
    for client in everyone:
        client.reset()
    stats = wait_for_no_backing_ids(mount)
    assert stats["backing_ids"] == 0
    assert stats["open_files"] == 0
    assert served(mount) == before
    assert not mount.complaints()


def test_new_and_nameless_files_bypass_as_well(mount: Mount, people: Clients) -> None:
    before = served(mount)
    user = people.get("user")
    fine(user.enter(os.fsencode(mount.path)))
    fine(user.open("new", b"new", os.O_CREAT | os.O_EXCL | os.O_RDWR))
    fine(user.open("tmp", b".", os.O_TMPFILE | os.O_RDWR))
    for slot in ("new", "tmp"):
        fine(user.pwrite(slot, b"data", 0))
        assert user.pread(slot, 4, 0) == b"data"
    fine(user.unlink(b"new"))
    fine(user.pwrite("new", b"more", 0))
    fine(user.open("trunc", b"many-0", os.O_RDWR | os.O_TRUNC))
    fine(user.write("trunc", b"data"))
    assert mount.stats()["backing_ids"] == 3
    user.reset()
    assert wait_for_no_backing_ids(mount)["backing_ids"] == 0
    assert served(mount) == before


def test_one_open_keeps_the_backing_id(mount: Mount, people: Clients) -> None:
    user, member = people.get("user"), people.get("member")
    for client in (user, member):
        fine(client.enter(os.fsencode(mount.path)))
    fine(user.write_file(b"kept", b"data", 0o666))
    wait_for_no_backing_ids(mount)
    fine(user.open("f", b"kept", os.O_RDONLY))
    for flags in _MODES:
        fine(member.open("f", b"kept", flags, 0o666))
        fine(member.close("f"))
    assert mount.stats()["backing_ids"] == 1
    fine(user.rename(b"kept", b"renamed"))
    fine(member.open("f", b"renamed", os.O_RDWR))
    fine(user.close("f"))
    time.sleep(0.05)
    assert mount.stats()["backing_ids"] == 1
    fine(member.close("f"))
    assert wait_for_no_backing_ids(mount)["backing_ids"] == 0


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
def test_a_store_through_a_mapping_moves_the_times_at_once(mount: Mount, flags: int) -> None:
    path = mount.path / f"stored-{flags}"
    path.write_bytes(b"x" * 4096)
    os.utime(path, (1, 1))
    descriptor = os.open(path, flags)
    with mmap.mmap(descriptor, 4096) as mapping:
        assert mapping[:1] == b"x"
        assert path.stat().st_mtime == os.fstat(descriptor).st_mtime == 1
        mapping[:1] = b"y"
        changed = (mount.source / path.name).stat()
        seen = path.stat()
        os.close(descriptor)
    assert changed.st_mtime > 1
    assert (seen.st_mtime_ns, seen.st_ctime_ns) == (changed.st_mtime_ns, changed.st_ctime_ns)


def test_many_processes_open_the_same_files_in_all_ways(mount: Mount) -> None:
    home = Path(mount.path) / "stress"
    home.mkdir()
    home.chmod(0o777)
    for number in range(3):
        (home / str(number)).write_bytes(b"0" * 20_000)
        (home / str(number)).chmod(0o666)
    seconds = _SECONDS * (10 if STRESS else 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "support.opener", str(home), str(seed), str(seconds), str(uid)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        for seed, uid in enumerate((0, USER, 0, USER, MEMBER))
    ]
    try:
        ended = [process.communicate(timeout=seconds + 20) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    complaints = [error for _, error in ended if error]
    assert not complaints, complaints[0]
    assert all(int(rounds) > 20 for rounds, _ in ended), ended
    stats = wait_for_no_backing_ids(mount)
    assert stats["backing_ids"] == 0
    assert stats["open_files"] == 0
    assert not mount.complaints()


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_DIRECT, os.O_DIRECT | os.O_TRUNC])
def test_truncating_and_direct_opens_bypass(mount: Mount, flags: int) -> None:
    before = served(mount)
    path = mount.path / "direct"
    path.write_bytes(b"0" * 8192)
    with mmap.mmap(-1, 4096) as room, memoryview(room) as view:
        room.write(b"1" * 4096)
        descriptor = os.open(path, os.O_RDWR | flags)
        try:
            assert os.pwritev(descriptor, [view], 0) == 4096
            assert os.preadv(descriptor, [view], 0) == 4096
        finally:
            os.close(descriptor)
    assert path.read_bytes()[:4096] == b"1" * 4096
    assert served(mount) == before


def test_the_append_flag_follows_fcntl(mount: Mount) -> None:
    path = mount.path / "appended"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
    other = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, b"end")
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)
        os.pwrite(descriptor, b"X", 0)
        assert os.pread(other, 20, 0) == b"X123456789end"
    finally:
        os.close(descriptor)
        os.close(other)
