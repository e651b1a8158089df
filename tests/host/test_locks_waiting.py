"""Who waits for locks, who is refused, and what is negotiated, on real mounts."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.clients import TESTS, clients
from support.locking import EVERYWHERE, WAYS, locking, on_both_sides
from support.mounting import Mount, inopt, mounted
from support.programs import error_of, events, start_client
from support.waiting import wait_asleep, wait_gone, within

pytestmark = pytest.mark.host

SHARED, EXCLUSIVE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB


@pytest.fixture
def people() -> Iterator[Any]:
    with clients() as made:
        yield made


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
            wait_asleep(*(process.pid for process in waiting))
            # With one reader (none while the trio thread reads), which none of them keeps.
            assert (mount.path / "f").stat().st_size == 1
            assert mount.stats()["readers"] <= 1
            # Killed ones go at once, although nothing is given back.
            for process in waiting[:4]:
                process.kill()
                assert process.wait(240) == -signal.SIGKILL
            fcntl.flock(holder, UN)
            fcntl.lockf(holder, UN)
            for process in waiting[4:]:
                # Each ends as soon as it has it, and so hands it on.
                assert process.communicate(timeout=240)[0].strip() == "granted"
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
    wait_asleep(first.pid, second.pid)
    assert inopt("umount", "--lazy", str(mount.path)).returncode == 0
    assert (first.poll(), second.poll()) == (None, None)
    first.kill()
    assert first.wait(240) == -signal.SIGKILL
    fcntl.lockf(keeper, UN)
    assert second.communicate(timeout=240)[0].strip() == "granted"
    os.close(keeper)
    assert wait_gone(mount.pid)


@pytest.mark.parametrize("way_", ["async", "plain", "daemon"])
def test_the_end_of_the_session_ends_waiting(place: Path, way_: str) -> None:
    mount = ended_otherwise(place, way_)
    keeper = os.open(mount.path / "f", os.O_RDWR)
    fcntl.lockf(keeper, EX)
    waits = start_client(_WAITS, str(mount.path / "f"), "lockf")
    wait_asleep(waits.pid)
    os.kill(mount.pid, signal.SIGTERM)
    assert within(lambda: "asked to stop" in events(mount))
    os.kill(mount.pid, signal.SIGTERM)  # the second one aborts
    assert waits.wait(240) == 1  # an error is all that it gets
    assert error_of(lambda: os.close(keeper)) == errno.ENOTCONN
    assert wait_gone(mount.pid)


def test_who_waits_is_not_called_stuck(place: Path) -> None:
    with locking(place, "Locks", EVERYWHERE, "--handler-timeout", "0.2") as mount:
        file = mount.path / "f"
        file.write_bytes(b"0")
        holder = os.open(file, os.O_RDWR)
        fcntl.lockf(holder, EX)
        waits = start_client(_WAITS, str(file), "lockf")
        time.sleep(0.8)
        assert waits.poll() is None
        os.close(holder)
        waits.communicate(timeout=240)
        assert mount.complaints() == []


# --- handlers that refuse ----------------------------------------------------------------------


def test_handlers_can_refuse(place: Path, people: Any) -> None:
    with locking(place, "Refuses", EVERYWHERE) as mount:
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
        assert waits.communicate(timeout=240)[0].strip() == "granted"
        assert error_of(lambda: os.stat(file)) == 0
        assert mount.stats()["SETLKW"]["daemon"] > 0
