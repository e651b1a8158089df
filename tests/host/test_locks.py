"""Locks that are negotiated: through handlers and by the daemon, against the bare tree."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from host import test_battery_locks
from support.battery import Battery, Stage
from support.clients import clients
from support.locking import WAYS, locking
from support.mounting import in_place
from support.rawcalls import F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
from support.waiting import within

pytestmark = pytest.mark.host

SHARED, EXCLUSIVE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB


@pytest.fixture(scope="module", params=list(WAYS))
def way(host: None, request: pytest.FixtureRequest) -> Iterator[Battery]:
    name, policy, served_by = WAYS[request.param]
    with (
        in_place(f"locks-{request.param}") as place,
        clients() as people,
        locking(place, name, policy) as mount,
    ):
        yield Battery(place, mount, "locks", people, excused_as="none")
        people.close()
        stats = mount.stats()
        asked = [stats[opcode] for opcode in ("GETLK", "SETLK", "SETLKW")]
        for route in ("daemon", "handler"):
            assert (sum(counts[route] for counts in asked) > 0) is (route == served_by)
        assert within(lambda: mount.stats()["open_files"] == 0)


# --- the same as on the bare tree --------------------------------------------------------------


def interrupts(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"0" * 100, 0o666)
    for client in (user, member):
        client.open("f", b"f", os.O_RDWR)
    user.flock("f", EX)
    user.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 10)
    member.flock_until_signal("f", SH, 0.2)
    member.lock_until_signal("f", fcntl.F_SETLKW, SHARED, 5, 1, 0.2)
    member.lock_until_signal("f", fcntl.F_SETLKW, SHARED, 10, 1, 0.2)
    member.lock_until_signal("f", F_OFD_SETLKW, SHARED, 5, 1, 0.2)
    user.close("f")
    member.flock_until_signal("f", EX, 5)
    member.lock_until_signal("f", fcntl.F_SETLKW, EXCLUSIVE, 0, 0, 5)
    user.open("f", b"f", os.O_RDWR)
    user.flock("f", SH | NB)
    user.lock("f", fcntl.F_SETLK, SHARED, 0, 1)


def descriptors(stage: Stage) -> None:
    """Closing any descriptor of a file ends a process's locks on it, and no open file's."""
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"0" * 100, 0o666)
    user.open("f", b"f", os.O_RDWR)
    user.open("g", b"f", os.O_RDONLY)
    user.duplicate("f", "same")
    user.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 10)
    user.lock("f", F_OFD_SETLK, EXCLUSIVE, 20, 10)
    user.flock("f", SH)
    member.open("f", b"f", os.O_RDWR)

    def ask() -> None:
        for start in (0, 20):
            member.lock("f", fcntl.F_SETLK, SHARED, start, 10)
        member.flock("f", EX | NB)

    ask()
    user.close("g")
    ask()
    user.lock("f", fcntl.F_SETLK, EXCLUSIVE, 40, 10)
    member.lock("f", fcntl.F_SETLK, SHARED, 40, 10)
    user.close("same")
    member.lock("f", fcntl.F_SETLK, SHARED, 40, 10)
    ask()
    user.close("f")
    ask()


def deaths(stage: Stage) -> None:
    root, other = stage.clients("root", "root2")
    root.write_file(b"f", b"0" * 100, 0o666)
    for client in (root, other):
        client.open("f", b"f", os.O_RDWR)
    root.let_child_lock("child", "f", fcntl.F_SETLK, EXCLUSIVE, 0, 10)
    root.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 1)
    other.start("lock", "f", fcntl.F_SETLKW, EXCLUSIVE, 5, 1)
    stage.note("waits", other.blocked())
    root.kill_child("child")
    other.finish()
    root.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 1)
    root.let_child_flock("child", "f", EX)
    other.flock("f", SH | NB)
    root.kill_child("child")  # the open file is the parent's, too
    other.flock("f", SH | NB)
    root.close("f")
    other.flock("f", SH | NB)


def handing_on(stage: Stage) -> None:
    user, member, user2 = stage.clients("user", "member", "user2")
    user.write_file(b"f", b"0" * 100, 0o666)
    for client in (user, member, user2):
        client.open("f", b"f", os.O_RDWR)
    user.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 0)
    member.start("lock", "f", fcntl.F_SETLKW, SHARED, 0, 10)
    user2.start("lock", "f", fcntl.F_SETLKW, SHARED, 5, 10)
    stage.note("both wait", (member.blocked(), user2.blocked()))
    user.lock("f", fcntl.F_SETLK, SHARED, 0, 0)  # which both can share
    member.finish()
    user2.finish()
    user.start("lock", "f", fcntl.F_SETLKW, EXCLUSIVE, 0, 20)
    stage.note("waits", user.blocked())
    member.lock("f", fcntl.F_SETLK, NONE, 0, 0)
    stage.note("waits", user.blocked())
    user2.close("f")
    user.finish()
    member.locked("f", fcntl.F_GETLK, SHARED, 0, 0)
    with stage.known("lock-pid"):
        member.locked("f", F_OFD_GETLK, SHARED, 0, 0)
    user.lock("f", fcntl.F_SETLK, SHARED, 3, 1)
    user.lock("f", fcntl.F_SETLK, NONE, 10, 1)
    for start, length in ((0, 3), (3, 1), (4, 1), (9, 2), (10, 1), (11, 0), (20, 1)):
        member.locked("f", fcntl.F_GETLK, EXCLUSIVE, start, length)


def changing_a_whole_lock(stage: Stage) -> None:
    """flock(2) gives back what it had before it takes another, and may so lose it."""
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"", 0o666)
    for client in (user, member):
        client.open("f", b"f", os.O_RDONLY)
    user.flock("f", SH)
    member.flock("f", SH)
    user.flock("f", EX | NB)
    member.flock("f", EX | NB)
    user.flock("f", SH | NB)
    member.flock("f", SH)
    user.start("flock", "f", EX)
    stage.note("waits", user.blocked())
    user_of_none = stage.client("user2")
    user_of_none.open("f", b"f", os.O_RDONLY)
    user_of_none.flock("f", SH | NB)
    member.flock("f", UN)
    stage.note("waits", user.blocked())
    user_of_none.flock("f", UN)
    user.finish()
    member.flock("f", SH | NB)


def read_and_write_by_turns(stage: Stage) -> None:
    """A process locks by files that are open for reading, and for writing."""
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"0" * 100, 0o666)
    user.open("r", b"f", os.O_RDONLY)
    member.open("f", b"f", os.O_RDWR)
    user.lock("r", fcntl.F_SETLK, SHARED, 0, 10)
    user.lock("r", fcntl.F_SETLK, EXCLUSIVE, 0, 10)
    user.open("w", b"f", os.O_WRONLY)
    user.lock("w", fcntl.F_SETLK, SHARED, 5, 1)
    user.lock("w", fcntl.F_SETLK, EXCLUSIVE, 5, 1)
    user.lock("r", fcntl.F_SETLK, SHARED, 20, 10)
    for start, length in ((0, 5), (5, 1), (6, 4), (10, 10), (20, 10), (30, 0)):
        for kind in (SHARED, EXCLUSIVE):
            member.locked("f", fcntl.F_GETLK, kind, start, length)
    user.close("w")
    member.locked("f", fcntl.F_GETLK, EXCLUSIVE, 0, 0)


def open_files_deadlock(stage: Stage) -> None:
    """Nobody finds deadlocks of locks that are open files': others may give them back."""
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"0" * 100, 0o666)
    for number, client in enumerate((user, member)):
        client.open("f", b"f", os.O_RDWR)
        client.lock("f", F_OFD_SETLK, EXCLUSIVE, number, 1)
    user.start("lock", "f", F_OFD_SETLKW, EXCLUSIVE, 1, 1)
    stage.note("waits", user.blocked())
    member.lock_until_signal("f", F_OFD_SETLKW, EXCLUSIVE, 0, 1, 0.4)
    member.lock("f", F_OFD_SETLK, NONE, 1, 1)
    user.finish()


SCENARIOS: Final = (
    open_files_deadlock,
    interrupts, descriptors, deaths, handing_on, changing_a_whole_lock, read_and_write_by_turns,
    test_battery_locks.whole_files, test_battery_locks.ranges,
    test_battery_locks.ranges_of_open_files, test_battery_locks.deadlock,
    test_battery_locks.kinds_do_not_mix,
)  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_as_on_the_bare_tree(way: Battery, scenario: Callable[[Stage], None]) -> None:
    own = "own" in str(way.mount.path)
    if scenario is test_battery_locks.deadlock and own:
        pytest.skip("who keeps locks of its own finds its own deadlocks")
    way.run(scenario)
