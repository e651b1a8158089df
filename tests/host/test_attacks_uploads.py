"""no-exec-uploads: nothing that was uploaded runs as a program."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator

import pytest
from support.attacks import ACL_FOR_ALL, Camp, camp
from support.clients import Client, Errno

pytestmark = pytest.mark.host

_TRUE = "/usr/bin/true"


@pytest.fixture(scope="module", params=("none", "rw"))
def uploads(host: None, request: pytest.FixtureRequest) -> Iterator[Camp]:
    with camp(request.param, "no-exec-uploads") as made:
        shutil.copy(_TRUE, made.mount.source / "program")
        os.chmod(made.mount.source / "program", 0o755)
        yield made


@pytest.fixture(params=("root", "user"))
def client(uploads: Camp, request: pytest.FixtureRequest) -> Iterator[Client]:
    made = uploads.people.get(request.param)
    made.reset()
    made.enter(os.fsencode(uploads.mount.path))
    yield made
    made.reset()


def upload(uploads: Camp, name: str, mode: int) -> bytes:
    """Put a program there underneath."""
    path = uploads.mount.source / "uploads" / f"{name}-{next(uploads.numbers)}"
    shutil.copy(_TRUE, path)
    path.chmod(mode)
    return b"uploads/" + os.fsencode(path.name)


def programs_in(uploads: Camp) -> list[str]:
    """What is executable in the uploads, underneath."""
    return [
        path.name
        for path in (uploads.mount.source / "uploads").iterdir()
        if path.is_file() and path.stat().st_mode & 0o111
    ]


def test_what_was_put_there_does_not_run(uploads: Camp, client: Client) -> None:
    path = upload(uploads, "theirs", 0o777)
    here = b"./" + path
    assert client.run(b"./program") is None
    assert client.run(here) == "EACCES"
    assert client.run(b"./uploads/../" + here) == "EACCES"
    assert client.run(b"/lib64/ld-linux-x86-64.so.2", here) in ("ENOEXEC", "ENOENT")
    assert client.open("p", path, os.O_PATH) is None
    assert client.execute_open("p") == "EACCES"
    assert client.symlink(path, b"link-%d" % next(uploads.numbers)) is None
    link = b"link-%d" % (next(uploads.numbers) - 1)
    assert client.run(b"./" + link) == "EACCES"
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_CREAT):
        assert client.open("f", path, flags) == "EACCES"
    assert client.open("w", path, os.O_PATH) is None
    assert client.reopen("f", "w", os.O_RDONLY) == "EACCES"
    for to in (b"moved-%d", b"linked-%d"):
        name = to % next(uploads.numbers)
        act = client.rename if to.startswith(b"moved") else client.link
        assert act(path, name) in ("EXDEV", "EACCES")
        assert not (uploads.mount.source / os.fsdecode(name)).exists()
    assert client.rename(path, b"program", 2) in ("EXDEV", "EACCES")
    os.unlink(uploads.mount.source / os.fsdecode(path))


def test_none_gets_executable(uploads: Camp, client: Client) -> None:
    path = upload(uploads, "plain", 0o666)
    os.chown(uploads.mount.source / os.fsdecode(path), os.stat("/").st_uid, 1001)
    assert client.open("f", path, os.O_RDWR) is None
    assert client.fchmod("f", 0o777) == "EPERM"
    assert client.chmod(path, 0o777) == "EPERM"
    assert client.setxattr(path, "system.posix_acl_access", ACL_FOR_ALL) == "EPERM"
    assert client.run(b"./" + path) == "EACCES"
    assert client.execute_open("f") == "EACCES"
    assert not programs_in(uploads)


@pytest.mark.parametrize("mask", [0o022, 0o111])
def test_none_is_made_executable(uploads: Camp, client: Client, mask: int) -> None:
    number = next(uploads.numbers)
    new = b"uploads/new-%d" % number
    client.umask(mask)
    expected = None if mask == 0o111 else "EACCES"
    assert client.open("f", new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o777) == expected
    assert client.mknod(new + b"-node", stat.S_IFREG | 0o755) == expected
    assert client.open("t", b"uploads", os.O_TMPFILE | os.O_RDWR, 0o700 & ~0o111) is None
    client.umask(0)
    assert client.open("t", b"uploads", os.O_TMPFILE | os.O_RDWR, 0o755) == "EACCES"
    assert client.open("t", b".", os.O_TMPFILE | os.O_RDWR, 0o755) is None
    assert client.link_open("t", new + b"-linked") == "EACCES"
    assert client.rename(b"program", new + b"-moved") == "EACCES"
    assert client.link(b"program", new + b"-hard") in ("EXDEV", "EACCES", "EPERM")
    assert client.rename(b"program", new, 2) in ("EXDEV", "EACCES", "ENOENT")
    assert not programs_in(uploads)
    assert (uploads.mount.source / "program").exists()


def test_a_default_acl_makes_none_executable(uploads: Camp, client: Client) -> None:
    home = b"uploads/dir-%d" % next(uploads.numbers)
    assert client.mkdir(home) is None
    assert client.setxattr(home, "system.posix_acl_default", ACL_FOR_ALL) is None
    client.umask(0o111)  # which a default ACL overrules
    made = client.open("f", home + b"/new", os.O_CREAT | os.O_RDWR, 0o777)
    assert made == "EACCES"
    assert client.mknod(home + b"/node", stat.S_IFREG | 0o777) == "EACCES"
    assert client.open("t", home, os.O_TMPFILE | os.O_RDWR, 0o777) == "EACCES"
    assert client.open("f", home + b"/plain", os.O_CREAT | os.O_RDWR, 0o666) is None
    assert os.listdir(uploads.mount.source / os.fsdecode(home)) == ["plain"]


def test_as_an_upload_is_read_by_an_interpreter(uploads: Camp, client: Client) -> None:
    """Documented: what can be read can be interpreted; -o noexec stops ld.so, not sh."""
    name = b"uploads/script-%d" % next(uploads.numbers)
    assert client.write_file(name, b"exit 0\n", 0o644) == "EPERM"  # its fchmod
    assert client.write_file(name, b"exit 0\n", 0o644) == "EPERM"
    assert client.read_file(name) == b"exit 0\n"
    assert client.run(b"/bin/sh", name) is None
    program = upload(uploads, "readable", 0o644)
    assert client.run(b"/lib64/ld-linux-x86-64.so.2", b"./" + program) is None
    assert not isinstance(client.lstat(name), Errno)
