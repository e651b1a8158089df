"""Handlers on the running kernel: errors, interrupts, notifications, and who bypasses when."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from support.clients import TESTS
from support.mounting import Mount, mounted
from support.programs import client, error_of, start_client
from support.troubled import Troubled
from support.waiting import wait_asleep, within

import inopt
from inopt.ops import op_name
from inopt.testing import capture_requests

pytestmark = pytest.mark.host

_POLICY: Final = "version: 1\nhandlers: support.troubled:{name}\nrules: [{{handle: [{words}]}}]\n"
_TROUBLED: Final = ("Troubled", "TroubledPlain")


@contextmanager
def handled(place: Path, name: str, words: str, *arguments: str, more: str = "") -> Iterator[Mount]:
    policy = place / "policy.yaml"
    policy.write_text(_POLICY.format(name=name, words=words) + more)
    environment = {"PYTHONPATH": str(TESTS)}
    with mounted(
        place / "back", place / "mnt", *arguments, policy=policy, environment=environment
    ) as mount:
        (mount.source / "file").write_bytes(b"0123456789")
        yield mount


def records(mount: Mount, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in mount.log.read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == event]


def ask(mount: Mount, word: str, name: str = "file") -> int:
    """The errno of a getxattr(2), which is what the troubled handlers listen to."""
    return error_of(lambda: os.getxattr(mount.path / name, f"user.{word}"))


@pytest.mark.parametrize("name", _TROUBLED)
def test_errors_and_mistakes(place: Path, name: str) -> None:
    with handled(place, name, "getxattr") as mount:
        inode = os.stat(mount.path / "file").st_ino
        assert ask(mount, "fuse-error") == errno.EDQUOT
        assert ask(mount, "os-error") == errno.ENOSPC
        assert ask(mount, "none") == errno.ENODATA
        assert records(mount, "request failed") == []
        assert ask(mount, "bug") == errno.EIO
        (record,) = records(mount, "request failed")
        assert (record["opcode"], record["nodeid"]) == ("GETXATTR", inode)
        assert record["level"] == "error"
        (told,) = record["exception"]
        assert (told["exc_type"], told["exc_value"]) == ("ZeroDivisionError", "a bug")
        assert [each["name"] for each in told["frames"]][-2:] == ["getxattr", "_asked_for"]
        assert ask(mount, "wrong") == errno.EIO
        (told,) = records(mount, "request failed")[1]["exception"]
        assert told["exc_value"] == (
            "the handler of GETXATTR returned str ('text'): expected bytes"
        )
        # The mount lives on.
        assert (mount.path / "file").read_bytes() == b"0123456789"
        stats = mount.stats()["GETXATTR"]
        assert (stats["handler"], stats["errors"]) == (5, 5)


_INTERRUPTED: Final = """
import os, signal, sys
class Alarm(Exception): pass
def alarm(*_): raise Alarm
signal.signal(signal.SIGALRM, alarm)
print("ready")
try:
    os.getxattr(sys.argv[1], "user.sleep")
except Alarm:
    print("interrupted")
except OSError as error:
    print(error)
"""


def test_interrupts(place: Path) -> None:
    with handled(place, "Troubled", "getxattr") as mount:

        def counted(what: str) -> int:
            return int(mount.stats()["GETXATTR"][what])

        interrupted = start_client(_INTERRUPTED, str(mount.path / "file"))
        assert within(lambda: counted("handler") == 1), "it waits for its handler now"
        interrupted.send_signal(signal.SIGALRM)
        assert interrupted.communicate(timeout=240)[0] == "interrupted\n"
        # A client that is killed goes at once.
        code = "import os, sys; print('ready'); os.getxattr(sys.argv[1], 'user.sleep')"
        killed = start_client(code, str(mount.path / "file"))
        assert within(lambda: counted("handler") == 2)
        killed.kill()
        assert killed.wait(240) == -signal.SIGKILL
        assert within(lambda: counted("errors") == 2)
        assert mount.complaints() == []


def test_unmounting_ends_what_still_waits(place: Path) -> None:
    code = "import os, sys; print('ready'); os.getxattr(sys.argv[1], 'user.sleep')"
    with handled(place, "Troubled", "getxattr") as mount:
        waits = start_client(code, str(mount.path / "file"))
        wait_asleep(waits.pid)
        waits.kill()
        waits.wait()


@pytest.mark.parametrize("name", _TROUBLED)
def test_stuck_handlers_are_named(place: Path, name: str) -> None:
    with handled(place, name, "getxattr", "--handler-timeout", "0.25") as mount:
        inode = os.stat(mount.path / "file").st_ino
        assert ask(mount, "late") == errno.ENODATA
        found = records(mount, "a handler does not answer")
        assert 1 <= len(found) <= 8
        assert (found[0]["opcode"], found[0]["nodeid"]) == ("GETXATTR", inode)
        assert found[0]["pid"] == os.getpid()


def test_who_asks(place: Path) -> None:
    with handled(place, "Troubled", "getxattr") as mount:
        (mount.source / "file").chmod(0o644)
        code = "import os, sys; print(os.getxattr(sys.argv[1], 'user.where').decode())"
        done = client(code, str(mount.path / "file"), user=1001)
        assert done.stdout == "GETXATTR 1001\n"


# --- notifications -----------------------------------------------------------------------------

_LONG: Final = "cache: {entry: 1h, attributes: 1h}\n"


def told(mount: Mount, what: str, name: str = "file") -> bool:
    return os.getxattr(mount.path / name, f"user.notify-{what}") == b"True"


def test_notifications_about_an_inode(place: Path) -> None:
    with handled(place, "Troubled", "getxattr", "--tier", "none", more=_LONG) as mount:
        file = mount.path / "file"
        assert file.stat().st_size == 10
        os.truncate(mount.source / "file", 4)
        assert file.stat().st_size == 10
        assert told(mount, "attributes")
        assert file.stat().st_size == 4
        (mount.source / "file").write_bytes(b"abcd")
        assert told(mount, "inode")
        assert file.read_bytes() == b"abcd"
        (mount.source / "file").write_bytes(b"efghij")
        assert told(mount, "attributes")
        assert told(mount, "store")
        with file.open("rb") as opened:
            assert opened.read()[:6] in (b"STORED", b"efghij")
        assert not told(mount, "unknown")


def test_notifications_about_names(place: Path) -> None:
    with handled(place, "Troubled", "getxattr", more=_LONG) as mount:
        for action in ("entry", "expire"):
            (mount.source / "name").touch()
            assert (mount.path / "name").exists()
            (mount.source / "name").unlink()
            assert (mount.path / "name").exists()
            assert told(mount, f"{action}:name", ".")
            assert not (mount.path / "name").exists()


# --- who bypasses when -------------------------------------------------------------------------

_HAMMER: Final = """
import os, random, sys, time
files = [os.path.join(sys.argv[1], f"file-{n}") for n in range(3)]
random.seed(int(sys.argv[2]))
held, done = [], 0
deadline = time.monotonic() + float(sys.argv[3])
while time.monotonic() < deadline or done < 10:
    name = random.choice(files)
    flags = random.choice((os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND))
    chance = random.random()
    try:
        if chance < 0.05:
            os.setxattr(name, random.choice(("user.stop", "user.again")), b"")
        if chance > 0.97:
            os.unlink(name)
        opened = os.open(name, flags | (os.O_CREAT if chance > 0.9 else 0), 0o666)
    except FileNotFoundError:
        continue
    held.append(opened)
    if flags & os.O_ACCMODE != os.O_WRONLY:
        os.pread(opened, 100, 0)
    if flags & os.O_ACCMODE != os.O_RDONLY:
        os.pwrite(opened, b"x" * 50, 10)
    done += 1
    while len(held) > random.randrange(6):
        os.close(held.pop(random.randrange(len(held))))
print(done)
"""


@pytest.mark.parametrize("name", ["Chooses", "ChoosesPlain"])
@pytest.mark.parametrize("words", ["open, create, setxattr", "open, create, setxattr, read"])
def test_wishes_never_end_in_an_error(place: Path, name: str, words: str) -> None:
    """An EIO would be the kernel's, for opens that bypass and others of the same file."""
    with handled(place, name, words) as mount:
        if mount.stats()["tier"] == "none":
            pytest.skip("this kernel has no bypass")
        for number in range(3):
            (mount.source / f"file-{number}").write_bytes(b"data" * 100)
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", _HAMMER, str(mount.path), str(number), "4"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(6)
        ]
        outcomes = [each.communicate(timeout=240) for each in clients]
        assert [error for _, error in outcomes if error] == []
        assert sum(int(done) for done, _ in outcomes) > 50
        assert mount.complaints() == []
        stats = mount.stats()
        assert within(lambda: mount.stats()["open_files"] == 0), stats
        assert mount.stats()["backing_ids"] == 0
        # Some of each: reads that the daemon served, and ones that it never saw.
        assert 0 < stats["READ"]["daemon"] + stats["READ"]["handler"] < stats["OPEN"]["handler"]


def test_stop_bypassing(place: Path) -> None:
    with handled(place, "Troubled", "getxattr") as mount:
        if mount.stats()["tier"] == "none":
            pytest.skip("this kernel has no bypass")
        file = mount.path / "file"

        def reads() -> int:
            before = int(mount.stats()["READ"]["daemon"])
            file.read_bytes()
            return int(mount.stats()["READ"]["daemon"]) - before

        assert reads() == 0
        with file.open("rb") as held:
            assert held.read(2) == b"01"
            assert os.getxattr(file, "user.leave-alone") == b"done"
            assert reads() == 0
        assert within(lambda: mount.stats()["open_files"] == 0)
        assert reads() > 0
        assert within(lambda: mount.stats()["open_files"] == 0)
        assert os.getxattr(file, "user.bypass-again") == b"done"
        assert reads() == 0


# --- in a program ------------------------------------------------------------------------------


async def test_in_a_trio_program(place: Path) -> None:
    """`inopt.mount`, capture, and an interrupt, whose signal must not end the program."""
    source, path = place / "source", place / "mnt"
    source.mkdir()
    path.mkdir()
    (source / "file").write_bytes(b"data")
    umask = os.umask(0o022)
    groups = os.getgroups()
    try:
        async with inopt.mount(path, source=source, handlers=Troubled()) as session:
            with capture_requests(session) as requests:
                data = await trio.to_thread.run_sync((path / "file").read_bytes)
                assert data == b"data"
                words = _INTERRUPTED, str(path / "file")
                waits = await trio.to_thread.run_sync(start_client, *words)
                while not session.stats()["GETXATTR"]["handler"]:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                waits.send_signal(signal.SIGALRM)
                said = await trio.to_thread.run_sync(waits.communicate)
                assert said[0] == "interrupted\n"
            asked = [(op_name(each.opcode), each.route, each.errno) for each in requests]
            assert ("GETXATTR", "handler", errno.EINTR) in asked
            assert ("OPEN", "daemon", 0) in asked
            with pytest.raises(ZeroDivisionError):
                raise ZeroDivisionError
    finally:
        os.umask(umask)
        os.setgroups(groups)


async def test_an_error_in_the_body_comes_as_it_is(place: Path) -> None:
    (place / "source").mkdir()
    (place / "mnt").mkdir()
    with pytest.raises(ZeroDivisionError):
        async with inopt.mount(place / "mnt", source=place / "source"):
            raise ZeroDivisionError
    assert not os.path.ismount(place / "mnt")


def test_a_hook_that_fails_leaves_nothing(place: Path) -> None:
    (place / "fails.py").write_text(
        "import inopt\n"
        "class Fails(inopt.Handlers):\n"
        "    async def started(self, session):\n"
        "        raise RuntimeError('no database')\n"
        "    def statfs(self, ctx):\n"
        "        return self.daemon.statfs(ctx)\n"
    )
    (place / "p.yaml").write_text("version: 1\nhandlers: fails:Fails\nrules: [{handle: statfs}]\n")
    with (
        pytest.raises(AssertionError, match="no database"),
        mounted(place / "back", place / "mnt", policy=place / "p.yaml"),
    ):
        pass
    assert not os.path.ismount(place / "mnt")
