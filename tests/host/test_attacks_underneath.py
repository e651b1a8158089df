"""What changes underneath, and what was opened before: where the promises of policies end."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator

import pytest
from support.attacks import Camp, camp
from support.clients import USER, Client

pytestmark = pytest.mark.host

_CACHED = 1.1  # seconds; shipped policies let names be kept for one


@pytest.fixture(scope="module", params=("none", "rw"))
def logs(host: None, request: pytest.FixtureRequest) -> Iterator[Camp]:
    with camp(request.param, "append-only-logs") as made:
        yield made


@pytest.fixture(scope="module", params=("none", "rw"))
def flagged(host: None, request: pytest.FixtureRequest) -> Iterator[Camp]:
    with camp(request.param, "quarantine") as made:
        yield made


def within(made: Camp, name: str) -> Client:
    client = made.people.get(name)
    client.reset()
    client.enter(os.fsencode(made.mount.path))
    return client


def file(made: Camp, name: str, content: bytes = b"content") -> bytes:
    """A file underneath that everybody may write."""
    path = made.mount.source / f"{next(made.numbers)}-{name}"
    path.write_bytes(content)
    path.chmod(0o666)
    return os.fsencode(path.name)


def test_a_log_that_appears_underneath(logs: Camp) -> None:
    user = within(logs, "user")
    name = b"%d-later.log" % next(logs.numbers)
    assert user.lstat(name) == "ENOENT"
    (logs.mount.source / os.fsdecode(name)).write_bytes(b"content")
    (logs.mount.source / os.fsdecode(name)).chmod(0o666)
    assert user.open("f", name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC) == "EPERM"
    assert user.open("f", name, os.O_CREAT | os.O_WRONLY) is None
    assert user.pwrite("f", b"X", 0) == "EPERM"
    assert (logs.mount.source / os.fsdecode(name)).read_bytes() == b"content"


def test_a_parent_that_is_replaced_by_a_symlink_underneath(logs: Camp) -> None:
    user = within(logs, "user")
    home = logs.mount.source / f"{next(logs.numbers)}-home"
    away = logs.mount.source / f"{next(logs.numbers)}-away"
    for directory in (home, away):
        directory.mkdir()
        directory.chmod(0o777)
        (directory / "x.log").write_bytes(b"content")
        (directory / "x.log").chmod(0o666)
    path = os.fsencode(home.name) + b"/x.log"
    assert user.open("f", path, os.O_WRONLY) is None
    home.rename(home.with_suffix(".moved"))
    home.symlink_to(away.name)
    assert user.pwrite("f", b"X", 0) == "EPERM"
    time.sleep(_CACHED)
    assert user.open("f", path, os.O_WRONLY) is None
    assert user.pwrite("f", b"X", 0) == "EPERM"
    assert user.truncate(path, 0) == "EPERM"
    assert (away / "x.log").read_bytes() == b"content"


def test_a_file_that_becomes_a_log_underneath(logs: Camp) -> None:
    """Documented: what is open stays open as it was; opens after that go by the new name."""
    user, root = within(logs, "user"), within(logs, "root")
    name = file(logs, "plain")
    assert user.open("f", name, os.O_WRONLY) is None
    source = logs.mount.source / os.fsdecode(name)
    source.rename(source.with_suffix(".log"))
    assert user.pwrite("f", b"C", 0) == 1
    user.close("f")
    assert root.open("g", name + b".log", os.O_WRONLY) in (None, "ENOENT")
    assert user.open("f", name + b".log", os.O_WRONLY) in (None, "ENOENT")
    user.discard("f")
    root.reset()
    root.enter(os.fsencode(logs.mount.path))
    renamed = os.fsencode(source.with_suffix(".log").name)
    assert user.open("f", renamed, os.O_WRONLY) is None
    assert user.pwrite("f", b"X", 0) == "EPERM"
    assert source.with_suffix(".log").read_bytes() == b"Content"


def test_two_names_of_one_file_made_underneath(logs: Camp) -> None:
    """Where both names are known, the stricter rules hold, whichever is used."""
    user = within(logs, "user")
    name = file(logs, "plain")
    source = logs.mount.source / os.fsdecode(name)
    os.link(source, source.with_suffix(".log"))
    assert user.lstat(os.fsencode(source.with_suffix(".log").name))["nlink"] == 2
    assert user.open("f", name, os.O_RDWR) is None
    assert user.pwrite("f", b"X", 0) == "EPERM"
    assert user.map("m", "f", 7, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ) == "ENODEV"
    assert user.truncate(name, 0) == "EPERM"
    assert source.read_bytes() == b"content"


def test_a_flag_holds_from_the_next_open_on(flagged: Camp) -> None:
    """POSIX semantics: what is open already can be read and written, by whomever it is sent to."""
    user, user2 = within(flagged, "user"), within(flagged, "user2")
    name = file(flagged, "open")
    source = flagged.mount.source / os.fsdecode(name)
    os.chown(source, USER, USER)
    assert user.open("f", name, os.O_RDWR) is None
    os.setxattr(source, "user.quarantine", b"1")
    address = b"inopt-flagged-%d" % os.getpid()
    assert user2.expect(address) is None
    assert user.pass_on("f", address) is None
    assert user2.take("f") is None
    for client in (user, user2):
        assert client.pread("f", 7, 0) == b"content"
        assert client.pwrite("f", b"C", 0) == 1
        assert client.pwrite("f", b"c", 0) == 1
        # What is asked of the file, and not only of the descriptor, is refused at once.
        assert client.ftruncate("f", 1) == "EACCES"
        assert client.fchmod("f", 0o777) == "EACCES"
        assert client.reopen("g", "f", os.O_RDONLY) == "EACCES"
        assert client.open("g", name, os.O_RDONLY) == "EACCES"
        assert client.removexattr(name, "user.quarantine") == "EACCES"
    assert source.read_bytes() == b"content"


def test_root_clears_the_flag(flagged: Camp) -> None:
    user, root = within(flagged, "user"), within(flagged, "root")
    name = file(flagged, "cleared")
    os.setxattr(flagged.mount.source / os.fsdecode(name), "user.quarantine", b"1")
    for client in (user, root):
        assert client.read_file(name) == "EACCES"
    assert root.removexattr(name, "user.quarantine") is None
    for client in (user, root):
        assert client.read_file(name) == b"content"
    assert user.setxattr(name, "user.quarantine", b"by me") is None
    assert user.read_file(name) == "EACCES"
    assert user.unlink(name) == "EACCES"
    assert root.unlink(name) is None


def test_what_goes_into_the_quarantine_does_not_come_out(flagged: Camp) -> None:
    user, root = within(flagged, "user"), within(flagged, "root")
    number = next(flagged.numbers)
    inside = b"quarantine/%d" % number
    assert user.write_file(inside, b"content", 0o666) is None
    assert user.read_file(inside) == "EACCES"
    assert user.listdir(b"quarantine") == "EACCES"
    assert user.rename(inside, b"%d-out" % number) == "EACCES"
    assert user.link(inside, b"%d-out" % number) == "EACCES"
    assert user.rename(b"quarantine", b"elsewhere") == "EACCES"
    assert user.open("w", inside, os.O_WRONLY) is None
    assert user.seek("w", 0, os.SEEK_DATA) == "EACCES"
    assert user.reopen("r", "w", os.O_RDONLY) == "EACCES"
    assert root.read_file(inside) == b"content"
    assert inside.removeprefix(b"quarantine/") in root.listdir(b"quarantine")
