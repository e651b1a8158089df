"""flock, POSIX and OFD locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.rawcalls import F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW

pytestmark = pytest.mark.host

SHARED, EXCLUSIVE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


def whole_files(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"data", 0o666)
    for client in (user, member):
        client.open("f", b"f", os.O_RDWR)
        client.open("g", b"f", os.O_RDONLY)
    user.flock("f", fcntl.LOCK_SH)
    member.flock("f", fcntl.LOCK_SH | fcntl.LOCK_NB)
    user.flock("f", fcntl.LOCK_EX | fcntl.LOCK_NB)
    member.flock("f", fcntl.LOCK_UN)
    user.flock("f", fcntl.LOCK_EX | fcntl.LOCK_NB)
    member.flock("g", fcntl.LOCK_SH | fcntl.LOCK_NB)
    user.flock("g", fcntl.LOCK_SH | fcntl.LOCK_NB)
    member.start("flock", "f", fcntl.LOCK_EX)
    stage.note("waits", member.blocked())
    user.close("f")
    member.finish()
    user.flock("g", fcntl.LOCK_SH | fcntl.LOCK_NB)
    member.flock("f", fcntl.LOCK_UN)
    user.flock("g", fcntl.LOCK_SH | fcntl.LOCK_NB)
    user.flock("g", 99)
    user.open("d", b".", os.O_RDONLY)
    member.open("d", b".", os.O_RDONLY)
    user.flock("d", fcntl.LOCK_EX)
    member.flock("d", fcntl.LOCK_EX | fcntl.LOCK_NB)


def ranges(stage: Stage) -> None:
    _ranges(stage, fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK)


def ranges_of_open_files(stage: Stage) -> None:
    _ranges(stage, F_OFD_SETLK, F_OFD_SETLKW, F_OFD_GETLK)


def _ranges(stage: Stage, take: int, wait: int, ask: int) -> None:
    user, member, user2 = stage.clients("user", "member", "user2")
    user.write_file(b"f", b"0" * 1000, 0o666)
    for client in (user, member, user2):
        client.open("f", b"f", os.O_RDWR)
    user.lock("f", take, EXCLUSIVE, 100, 100)
    member.lock("f", take, EXCLUSIVE, 0, 100)
    member.lock("f", take, EXCLUSIVE, 150, 10)
    member.lock("f", take, SHARED, 199, 1)
    member.lock("f", take, SHARED, 200, 0)
    user2.lock("f", take, SHARED, 300, 10)
    user2.lock("f", take, EXCLUSIVE, 300, 10)
    for start, length in ((0, 10), (90, 20), (150, 1), (200, 1), (1 << 40, 5), (0, 0)):
        user2.locked("f", ask, EXCLUSIVE, start, length)
        user2.locked("f", ask, SHARED, start, length)
    user.lock("f", take, NONE, 120, 20)
    user2.locked("f", ask, EXCLUSIVE, 125, 5)
    user2.lock("f", take, EXCLUSIVE, 120, 20)
    user.lock("f", take, SHARED, 140, 60)
    member.lock("f", take, SHARED, 150, 10)
    member.start("lock", "f", wait, EXCLUSIVE, 100, 10)
    stage.note("waits", member.blocked())
    user.lock("f", take, NONE, 100, 10)
    member.finish()
    user.open("g", b"f", os.O_RDONLY)
    user.lock("g", take, EXCLUSIVE, 900, 1)
    user.lock("g", take, SHARED, 145, 1)
    user.close("g")  # which ends POSIX locks of the process, and not those of the other file
    user2.locked("f", ask, EXCLUSIVE, 145, 1)
    user.open("w", b"f", os.O_WRONLY)
    user.lock("w", take, SHARED, 800, 1)
    user.lock("w", take, EXCLUSIVE, 0, -5)
    user.lock("w", take, EXCLUSIVE, -5, 3)
    user.lock("w", take, 77, 0, 1)


def deadlock(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"0" * 100, 0o666)
    for number, client in enumerate((user, member)):
        client.open("f", b"f", os.O_RDWR)
        client.lock("f", fcntl.F_SETLK, EXCLUSIVE, number, 1)
    user.start("lock", "f", fcntl.F_SETLKW, EXCLUSIVE, 1, 1)
    stage.note("waits", user.blocked())
    member.lock("f", fcntl.F_SETLKW, EXCLUSIVE, 0, 1)
    member.lock("f", fcntl.F_SETLK, NONE, 1, 1)
    user.finish()


def kinds_do_not_mix(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.write_file(b"f", b"0" * 100, 0o666)
    for client in (user, member):
        client.open("f", b"f", os.O_RDWR)
        client.open("g", b"f", os.O_RDWR)
    user.flock("f", fcntl.LOCK_EX)
    member.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 0)
    user.lock("f", F_OFD_SETLK, EXCLUSIVE, 0, 0)
    member.lock("f", fcntl.F_SETLK, NONE, 0, 0)
    user.lock("f", F_OFD_SETLK, EXCLUSIVE, 0, 10)
    user.lock("g", F_OFD_SETLK, EXCLUSIVE, 0, 10)
    with stage.known("lock-pid"):
        member.locked("f", fcntl.F_GETLK, SHARED, 0, 0)
    user.unlink(b"f")
    member.lock("g", F_OFD_SETLK, EXCLUSIVE, 5, 10)
    user.close("f")
    member.lock("g", F_OFD_SETLK, EXCLUSIVE, 5, 10)


@pytest.mark.parametrize(
    "scenario", [whole_files, ranges, ranges_of_open_files, deadlock, kinds_do_not_mix]
)
def test_locks(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
