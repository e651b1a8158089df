"""What handlers are told on a real mount: that somebody polls, and what the kernel forgets."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from support.clients import TESTS
from support.mounting import Mount, mounted
from support.programs import error_of, events, start_client
from support.waiting import wait_asleep, within
from support.ways import Pyfuse3Mount

pytestmark = pytest.mark.host

_ALL: Final = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


@contextmanager
def told(place: Path, name: str, rule: str, *arguments: str) -> Iterator[Mount]:
    policy = place / "policy.yaml"
    policy.write_text(f"version: 1\nhandlers: support.gauges:{name}\nrules: [{rule}]\n")
    environment = {"PYTHONPATH": str(TESTS)}
    with mounted(
        place / "back", place / "mnt", *arguments, policy=policy, environment=environment
    ) as mount:
        yield mount


_BOXES: Final = "{match: {path: box, type: file}, handle: [open, read, poll, setxattr]}"


@pytest.mark.parametrize("name", ["Mailbox", "MailboxPlain"])
def test_poll_is_woken_by_the_handler(place: Path, name: str) -> None:
    with told(place, name, _BOXES) as mount:
        (mount.source / "box").touch()
        (mount.source / "other").touch()
        box = os.open(mount.path / "box", os.O_RDONLY)
        try:
            poll, epoll = select.poll(), select.epoll()
            poll.register(box, select.POLLIN)
            epoll.register(box, select.EPOLLIN)
            assert poll.poll(0) == []
            assert epoll.poll(0) == []
            for number in range(5):
                wait = poll.poll if number % 2 else lambda seconds: epoll.poll(seconds / 1000)
                sender = threading.Timer(
                    0.2, os.setxattr, (mount.path / "box", "user.mail", b"letter")
                )
                sender.start()
                assert wait(100_000) == [(box, select.POLLIN)]
                sender.join()
                assert os.read(box, 100) == b"letter"
                assert poll.poll(0) == []
            assert mount.stats()["POLL"]["handler"] > 5
            # Files of no handler are ready, as they are where nobody overrides poll.
            with (mount.path / "other").open("rb") as other:
                poll.register(other, select.POLLIN | select.POLLOUT)
                assert poll.poll(0) == [(other.fileno(), select.POLLIN | select.POLLOUT)]
            epoll.close()
        finally:
            os.close(box)
        assert mount.complaints() == []


def test_many_poll_and_all_are_woken(place: Path) -> None:
    code = (
        "import os, select, sys\n"
        "poll = select.poll()\n"
        "poll.register(os.open(sys.argv[1], os.O_RDONLY), select.POLLIN)\n"
        "print('ready')\n"
        "print(len(poll.poll(100000)))\n"
    )
    with told(place, "Mailbox", _BOXES) as mount:
        (mount.source / "box").touch()
        # By one open file each: the handler keeps the last handle, and so wakes one of them.
        first, last = (start_client(code, str(mount.path / "box")) for _ in range(2))
        wait_asleep(first.pid, last.pid)
        os.setxattr(mount.path / "box", "user.mail", b"letter")
        assert last.communicate(timeout=240)[0].strip() == "1"
        first.kill()
        first.wait()


def test_without_a_handler_the_kernel_asks_once(place: Path) -> None:
    with told(place, "Forgets", "{handle: getxattr}") as mount:
        for name in ("one", "other"):
            (mount.source / name).touch()
            with (mount.path / name).open("rb") as file:
                poll = select.poll()
                poll.register(file, _ALL)
                assert poll.poll(0) == [(file.fileno(), _ALL)]
        stats = mount.stats()["POLL"]
        assert (stats["handler"], stats["daemon"], stats["errors"]) == (0, 1, 1)


# --- forgetting --------------------------------------------------------------------------------


def drop_caches() -> None:
    """Let the kernel forget what nobody uses."""
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


@pytest.mark.parametrize("name", ["Forgets", "ForgetsPlainly", "FailsToForget"])
def test_handlers_are_told_what_is_forgotten(place: Path, name: str) -> None:
    with told(place, name, "{handle: [lookup, getxattr]}") as mount:
        folder = mount.source / "folder"
        folder.mkdir()
        for number in range(200):
            (folder / f"{number}").touch()
        for number in range(200):
            assert (mount.path / "folder" / f"{number}").stat().st_size == 0
        known = mount.stats()["known_inodes"]
        assert known > 200
        with (mount.path / "folder" / "7").open("rb") as kept:
            drop_caches()
            # All but the one that is open, its directory, and the root.
            assert within(lambda: mount.stats()["known_inodes"] <= 3)
            inode = os.fstat(kept.fileno()).st_ino
            os.getxattr(mount.path, "user.told")
            assert os.pread(kept.fileno(), 10, 0) == b""
            count, states = os.getxattr(mount.path, "user.told").split()
            assert int(count) >= 199
            assert int(states) >= 199  # it was there, with what the handler had noted
        # And known again when it is asked for: nothing is ESTALE.
        for number in range(200):
            assert (mount.path / "folder" / f"{number}").stat().st_size == 0
        assert (mount.path / "folder" / "7").stat().st_ino == inode
        failed = [each for each in events(mount) if "forget failed" in each]
        assert len(failed) == (name == "FailsToForget")


def test_a_storm_of_lookups_and_forgets_keeps_the_counts(place: Path) -> None:
    """Async forgetting goes on while the same names are looked up again."""
    with told(place, "Forgets", "{handle: [lookup, getxattr]}") as mount:
        for number in range(50):
            (mount.source / f"{number}").write_text(f"{number}")
        deadline = time.monotonic() + 4
        problems: list[object] = []

        def look() -> None:
            while time.monotonic() < deadline:
                for number in range(50):
                    try:
                        if (mount.path / f"{number}").read_text() != f"{number}":
                            problems.append(number)
                    except OSError as error:
                        problems.append(error)

        def forget() -> None:
            while time.monotonic() < deadline:
                drop_caches()

        threads = [threading.Thread(target=each) for each in (look, look, forget)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        drop_caches()
        assert within(lambda: mount.stats()["known_inodes"] <= 1)
        assert mount.complaints() == []


# --- on stock pyfuse3 --------------------------------------------------------------------------


@contextmanager
def elsewhere(
    place: Path, name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mount]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    policy = place / "policy.yaml"
    policy.write_text(f"version: 1\nhandlers: {name}\nrules: [{rule}]\n")
    for folder in ("back", "mnt"):
        (place / folder).mkdir()
    mount = Pyfuse3Mount(place / "back", place / "mnt", policy=str(policy))
    try:
        yield mount
    finally:
        mount.close()


def test_poll_on_pyfuse3(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyfuse3 = pytest.importorskip("pyfuse3")
    if not hasattr(pyfuse3.Operations, "poll"):
        pytest.skip("pyfuse3 before 3.5 has no poll")
    with elsewhere(place, "support.gauges:Mailbox", _BOXES, monkeypatch) as mount:
        for name in ("box", "other"):
            (mount.source / name).touch()
        box = os.open(mount.path / "box", os.O_RDONLY)
        poll = select.poll()
        poll.register(box, select.POLLIN)
        assert poll.poll(0) == []
        sender = threading.Timer(0.2, os.setxattr, (mount.path / "box", "user.mail", b"letter"))
        sender.start()
        assert poll.poll(10_000) == [(box, select.POLLIN)]
        sender.join()
        os.close(box)
        with (mount.path / "other").open("rb") as other:
            poll = select.poll()
            poll.register(other, select.POLLIN)
            assert poll.poll(0) == [(other.fileno(), select.POLLIN)]


@pytest.mark.parametrize("name", ["Forgets", "ForgetsPlainly", "FailsToForget"])
def test_forgetting_on_pyfuse3(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = "{handle: [lookup, getxattr]}"
    with elsewhere(place, f"support.gauges:{name}", rule, monkeypatch) as mount:
        for number in range(50):
            (mount.source / f"{number}").write_text(f"{number}")
        for _ in range(3):
            for number in range(50):
                assert (mount.path / f"{number}").read_text() == f"{number}"
            drop_caches()
        count, states = os.getxattr(mount.path, "user.told").split()
        assert (int(count), int(states) >= 50) == (50, True)
        assert len(mount.complaints()) == (name == "FailsToForget")


def test_what_pyfuse3_never_asks_for_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "own.py").write_text(
        "from inopt import Handlers\n"
        "class Own(Handlers):\n"
        "    def setlk(self, fh, lock, wait, ctx):\n"
        "        raise OSError(13, 'no')\n"
        "    def getattr(self, inode, ctx):\n"
        "        return self.daemon.getattr(inode, ctx)\n"
    )
    with elsewhere(place, "own:Own", "{handle: [setlk, getattr]}", monkeypatch) as mount:
        (line,) = mount.complaints()
        assert "pyfuse3 never asks for what the handlers override" in line
        assert '"methods": ["setlk"]' in line
        (mount.source / "file").touch()
        with (mount.path / "file").open("r+b") as file:
            # The kernel's own.
            assert error_of(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)) == 0
        assert error_of(lambda: os.stat(mount.path / "none")) == errno.ENOENT
