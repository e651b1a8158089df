"""Locks that are negotiated: through handlers and by the daemon, against the bare tree."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from host import test_battery_locks
from support import rawcalls
from support.battery import Battery, Stage
from support.clients import TESTS, Client, clients
from support.mounting import Mount, in_place, inopt, mounted, wait_gone
from support.programs import error_of, events, start_client, within
from support.rawcalls import F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW

pytestmark = pytest.mark.host

SHARED, EXCLUSIVE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB

_EVERYWHERE: Final = "version: 1\nhandlers: support.lockers:{name}\nrules: [{{handle: locks}}]\n"
_NOWHERE: Final = (
    "version: 1\nhandlers: support.lockers:{name}\n"
    "rules: [{{match: {{path: '*.none', type: file}}, handle: locks}}]\n"
)
# How the mount serves locks: class, policy, and who is counted as serving them.
WAYS: Final = {
    "async": ("Locks", _EVERYWHERE, "handler"),
    "plain": ("PlainLocks", _EVERYWHERE, "handler"),
    "daemon": ("Locks", _NOWHERE, "daemon"),
    "own": ("KeepsItsOwn", _EVERYWHERE, "handler"),
    "own-plain": ("KeepsItsOwnPlain", _EVERYWHERE, "handler"),
}


@contextmanager
def locking(place: Path, name: str, policy: str, *arguments: str) -> Iterator[Mount]:
    path = place / "policy.yaml"
    path.write_text(policy.format(name=name))
    environment = {"PYTHONPATH": str(TESTS)}
    with mounted(
        place / "back", place / "mnt", *arguments, policy=path, environment=environment
    ) as mount:
        yield mount


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
        assert within(5, lambda: mount.stats()["open_files"] == 0)


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


# --- together with the bare tree ---------------------------------------------------------------


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


def on_both_sides(mount: Mount, people: Any) -> tuple[Client, Client]:
    """A client of the mount and one of the bare tree, each with the file open."""
    inside, outside = people.get("user"), people.get("member")
    for client, path in ((inside, mount.path), (outside, mount.source)):
        client.enter(os.fsencode(path))
        client.open("f", b"f", os.O_RDWR)
    return inside, outside


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
        began = time.monotonic()
        assert other.finish() is None
        assert time.monotonic() - began < 2
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
    assert within(2, lambda: outside.lock("f", fcntl.F_SETLK, SHARED, 5, 1) is None)


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


# --- waiting -----------------------------------------------------------------------------------

_WAITS: Final = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
print("ready")
if sys.argv[2] == "flock":
    fcntl.flock(file, fcntl.LOCK_EX)
else:
    fcntl.lockf(file, fcntl.LOCK_EX)
print("granted")
"""


@pytest.mark.parametrize("kind", ["flock", "lockf"])
@pytest.mark.parametrize("way_", ["async", "plain", "daemon"])
def test_many_wait_and_keep_nobody(place: Path, way_: str, kind: str) -> None:
    name, policy, _ = WAYS[way_]
    with locking(place, name, policy, "--readers", "1") as mount:
        file = mount.path / "f"
        file.write_bytes(b"0")
        holder = os.open(file, os.O_RDWR)
        fcntl.flock(holder, EX)
        fcntl.lockf(holder, EX)
        waiting = [start_client(_WAITS, str(file), kind) for _ in range(12)]
        try:
            time.sleep(0.5)
            # With one reader, which none of them keeps.
            assert (mount.path / "f").stat().st_size == 1
            assert mount.stats()["readers"] == 1
            # Killed ones go at once, although nothing is given back.
            for process in waiting[:4]:
                process.kill()
                assert process.wait(5) == -signal.SIGKILL
            fcntl.flock(holder, UN)
            fcntl.lockf(holder, UN)
            for process in waiting[4:]:
                # Each ends as soon as it has it, and so hands it on.
                assert process.communicate(timeout=10)[0].strip() == "granted"
        finally:
            os.close(holder)
            for process in waiting:
                process.kill()
                process.wait()
        assert mount.complaints() == []


def ended_otherwise(place: Path, way_: str) -> Mount:
    """A mount that the test ends itself; its place takes what is left away."""
    name, policy, _ = WAYS[way_]
    path = place / "policy.yaml"
    path.write_text(policy.format(name=name))
    for folder in ("back", "mnt"):
        (place / folder).mkdir()
    (place / "back" / "f").write_bytes(b"0")
    environment = {"PYTHONPATH": str(TESTS)}
    return Mount(place / "back", place / "mnt", policy=str(path), environment=environment)


@pytest.mark.parametrize("way_", ["async", "plain", "daemon"])
def test_a_detached_mount_serves_who_waits(place: Path, way_: str) -> None:
    mount = ended_otherwise(place, way_)
    keeper = os.open(mount.path / "f", os.O_RDWR)
    fcntl.lockf(keeper, EX)
    first, second = (start_client(_WAITS, str(mount.path / "f"), "lockf") for _ in range(2))
    time.sleep(0.3)
    assert inopt("umount", "--lazy", str(mount.path)).returncode == 0
    assert (first.poll(), second.poll()) == (None, None)
    first.kill()
    assert first.wait(5) == -signal.SIGKILL
    fcntl.lockf(keeper, UN)
    assert second.communicate(timeout=10)[0].strip() == "granted"
    os.close(keeper)
    assert wait_gone(mount.pid, 10)


@pytest.mark.parametrize("way_", ["async", "plain", "daemon"])
def test_the_end_of_the_session_ends_waiting(place: Path, way_: str) -> None:
    mount = ended_otherwise(place, way_)
    keeper = os.open(mount.path / "f", os.O_RDWR)
    fcntl.lockf(keeper, EX)
    waits = start_client(_WAITS, str(mount.path / "f"), "lockf")
    time.sleep(0.3)
    assert waits.poll() is None
    os.kill(mount.pid, signal.SIGTERM)
    assert within(5, lambda: "asked to stop" in events(mount))
    os.kill(mount.pid, signal.SIGTERM)  # the second one aborts
    assert waits.wait(10) == 1  # an error is all that it gets
    assert error_of(lambda: os.close(keeper)) == errno.ENOTCONN
    assert wait_gone(mount.pid, 15)


def test_who_waits_is_not_called_stuck(place: Path) -> None:
    with locking(place, "Locks", _EVERYWHERE, "--handler-timeout", "0.2") as mount:
        file = mount.path / "f"
        file.write_bytes(b"0")
        holder = os.open(file, os.O_RDWR)
        fcntl.lockf(holder, EX)
        waits = start_client(_WAITS, str(file), "lockf")
        time.sleep(0.8)
        assert waits.poll() is None
        os.close(holder)
        waits.communicate(timeout=10)
        assert mount.complaints() == []


# --- handlers that refuse ----------------------------------------------------------------------


def test_handlers_can_refuse(place: Path, people: Any) -> None:
    with locking(place, "Refuses", _EVERYWHERE) as mount:
        (mount.source / "f").write_bytes(b"0" * 100)
        (mount.source / "f").chmod(0o666)
        inside, outside = on_both_sides(mount, people)
        assert inside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 5, 10) == "EACCES"
        assert inside.lock("f", fcntl.F_SETLKW, EXCLUSIVE, 5, 10) == "EACCES"
        assert inside.lock("f", fcntl.F_SETLK, SHARED, 5, 10) is None
        assert outside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 5, 1) == "EAGAIN"
        assert inside.flock("f", EX | NB) == "EAGAIN"
        assert inside.flock("f", SH | NB) is None
        # EAGAIN to one who waits means that it goes on waiting.
        assert inside.flock_until_signal("f", EX, 0.4) == "interrupted"
        assert mount.complaints() == []
        people.close()


# --- what is negotiated ------------------------------------------------------------------------

_CLASSES: Final = """
from inopt import Handlers

class Nothing(Handlers):
    def getattr(self, inode, ctx):
        return self.daemon.getattr(inode, ctx)

class Ranges(Handlers):
    for_any_policy = True
    def setlk(self, fh, lock, wait, ctx):
        return self.daemon.setlk(fh, lock, wait, ctx)

class Whole(Handlers):
    for_any_policy = True
    def flock(self, fh, operation, ctx):
        return self.daemon.flock(fh, operation, ctx)
"""


@pytest.mark.parametrize(
    ("name", "ranges", "whole"),
    [("Nothing", False, False), ("Ranges", True, False), ("Whole", False, True)],
)
def test_what_is_not_overridden_is_the_kernels_own(
    place: Path, people: Any, name: str, ranges: bool, whole: bool
) -> None:
    (place / "classes.py").write_text(_CLASSES)
    (place / "p.yaml").write_text(
        f"version: 1\nhandlers: classes:{name}\nrules: [{{match: {{path: x}}, handle: getattr}}]\n"
        if name == "Nothing"
        else f"version: 1\nhandlers: classes:{name}\n"
    )
    with mounted(place / "back", place / "mnt", policy=place / "p.yaml") as mount:
        (mount.source / "f").write_bytes(b"0" * 100)
        (mount.source / "f").chmod(0o666)
        inside, outside = on_both_sides(mount, people)
        other = people.get("user2")
        other.enter(os.fsencode(mount.path))
        other.open("f", b"f", os.O_RDWR)
        assert inside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 0, 10) is None
        assert inside.flock("f", EX) is None
        assert other.lock("f", fcntl.F_SETLK, EXCLUSIVE, 5, 1) == "EAGAIN"
        assert other.flock("f", SH | NB) == "EAGAIN"
        expected = "EAGAIN" if ranges else None
        assert outside.lock("f", fcntl.F_SETLK, EXCLUSIVE, 5, 1) == expected
        assert outside.flock("f", SH | NB) == ("EAGAIN" if whole else None)
        stats = mount.stats()
        assert (stats["SETLK"]["daemon"] > 0) is (ranges or whole)
        inside.close("f")
        # Only locks of processes need to hear of each close(2).
        assert (mount.stats()["FLUSH"]["daemon"] > 0) is ranges
        people.close()


def test_reload_cannot_ask_for_locks_later(place: Path) -> None:
    (place / "classes.py").write_text(_CLASSES)
    for name, word in (("Nothing", "getattr"), ("Ranges", "setlk")):
        (place / f"{name}.yaml").write_text(
            f"version: 1\nhandlers: classes:{name}\nrules: [{{handle: {word}}}]\n"
        )
    with mounted(place / "back", place / "mnt", policy=place / "Nothing.yaml") as mount:
        done = inopt("reload", str(mount.path), str(place / "Ranges.yaml"))
        assert done.returncode == 2
        assert "locks (getlk, setlk)" in done.stderr
        assert "unmount, and mount again" in done.stderr
    with mounted(place / "back", place / "mnt", policy=place / "Ranges.yaml") as mount:
        file = mount.path / "f"
        file.write_bytes(b"0")
        with file.open("r+b") as held:
            fcntl.lockf(held, EX | NB)
            done = inopt("reload", str(mount.path), str(place / "Nothing.yaml"))
            assert done.returncode == 0, done.stderr
            waits = start_client(_WAITS, str(file), "lockf")
            time.sleep(0.2)
            assert waits.poll() is None
        assert waits.communicate(timeout=10)[0].strip() == "granted"
        assert error_of(lambda: os.stat(file)) == 0
        assert mount.stats()["SETLKW"]["daemon"] > 0
