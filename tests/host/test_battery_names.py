"""rename with its flags, links, names of all kinds, and files that have lost their name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import TEAM, USER, Client
from support.rawcalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
_KINDS = (b"file", b"dir", b"full", b"link", b"fifo", b"none")
_FLAGS = (0, RENAME_NOREPLACE, RENAME_EXCHANGE, 3, 6, 8)


def _make(client: Client, kind: bytes, path: bytes) -> None:
    if kind == b"file":
        client.write_file(path, path)
    elif kind in (b"dir", b"full"):
        client.mkdir(path)
        if kind == b"full":
            client.write_file(path + b"/inner", path)
    elif kind == b"link":
        client.symlink(b"target of " + path, path)
    elif kind == b"fifo":
        client.mknod(path, stat.S_IFIFO | 0o600)


def rename_matrix(stage: Stage) -> None:
    for flags in _FLAGS:
        _rename_matrix(stage.client("user"), flags)


def rename_leaving_a_whiteout(stage: Stage) -> None:
    for client in stage.clients("root", "user"):
        client.mkdir(client.name.encode())
        client.enter(client.name.encode())
        _rename_matrix(client, RENAME_WHITEOUT)
        _rename_matrix(client, RENAME_WHITEOUT | RENAME_NOREPLACE)


def _rename_matrix(user: Client, flags: int) -> None:
    for old in _KINDS:
        for new in _KINDS:
            prefix = b"%d-%b-%b" % (flags, old, new)
            _make(user, old, prefix + b"-a")
            _make(user, new, prefix + b"-b")
            user.rename(prefix + b"-a", prefix + b"-b", flags)
            user.lstat(prefix + b"-a")
            user.lstat(prefix + b"-b")


def rename_corners(stage: Stage) -> None:
    user, root = stage.clients("user", "root")
    user.mkdir(b"a")
    user.mkdir(b"a/b")
    user.write_file(b"f", b"one")
    user.link(b"f", b"g")
    for old, new in (
        (b"a", b"a/b/c"), (b"a", b"a"), (b"a/b", b"a"), (b"a", b"a/."), (b".", b"x"),
        (b"a/..", b"x"), (b"f", b"g"), (b"f", b"f/x"), (b"f", b"a/"), (b"f/", b"z"),
        (b"a/b", b"up"), (b"up", b"a/b"), (b"a", b"moved/"), (b"moved", b"a"), (b"", b"x"),
        (b"f", b"n" * 255), (b"n" * 255, b"n" * 256), (b"n" * 255, b"f"),
    ):  # fmt: skip
        user.rename(old, new)
        user.rename(old, new, RENAME_NOREPLACE)
        user.rename(old, new, RENAME_EXCHANGE)
    user.listdir(b".")
    root.mkdir(b"sticky")
    root.chmod(b"sticky", 0o1777)
    for owner in ("root", "user", "member"):
        stage.client(owner).write_file(b"sticky/" + owner.encode(), b"x")
        stage.client(owner).mkdir(b"sticky/d-" + owner.encode())
    for client in stage.clients("user", "member"):
        for owner in PEOPLE:
            name = b"sticky/" + owner.encode()
            client.rename(name, name + b"-" + client.name.encode())
            client.rename(name + b"-" + client.name.encode(), name)
            client.rename(b"sticky/d-" + owner.encode(), b"d-" + owner.encode())
        for owner in PEOPLE:
            client.unlink(b"sticky/" + owner.encode())
            client.rmdir(b"sticky/d-" + owner.encode())


def open_across_renames(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.mkdir(b"deep")
    user.mkdir(b"deep/er")
    for name in (b"one", b"two", b"deep/er/three"):
        user.write_file(name, b"I am " + name, 0o666)
        user.open(name.decode(), name, os.O_RDWR)
    user.rename(b"one", b"two")
    user.fstat("one")
    user.fstat("two")
    user.pwrite("two", b"unseen", 0)
    user.pread("two", 20, 0)
    user.pread("one", 20, 0)
    user.rename(b"deep", b"deeper")
    user.pwrite("deep/er/three", b"moved", 0)
    member.read_file(b"deeper/er/three")
    member.read_file(b"deep/er/three")
    user.write_file(b"new-two", b"new")
    user.rename(b"new-two", b"two", RENAME_EXCHANGE)
    member.read_file(b"two")
    member.read_file(b"new-two")
    user.fstat("one")


def hard_links(stage: Stage) -> None:
    root = stage.client("root")
    for client in stage.clients(*PEOPLE):
        name = client.name.encode()
        client.write_file(name, b"data")
        client.mkdir(name + b"-d")
        for number in range(3):
            client.link(name, name + b"-%d" % number)
        client.lstat(name)
        client.link(name, name + b"-0")
        client.link(name + b"-d", name + b"-e")
        client.link(b"nothing", name + b"-e")
        client.symlink(name, name + b"-l")
        client.link(name + b"-l", name + b"-ll")
        client.link(name + b"-l", name + b"-lf", True)
        client.same_inode(name + b"-l", name + b"-ll")
        client.same_inode(name, name + b"-lf")
        client.mknod(name + b"-p", stat.S_IFIFO | 0o600)
        client.link(name + b"-p", name + b"-d/p")
        client.open("one", name, os.O_RDWR)
        client.open("other", name + b"-1", os.O_RDONLY)
        client.pwrite("one", b"both", 0)
        client.read("other", 10)
        client.unlink(name)
        client.fstat("one")
        client.truncate(name + b"-2", 2)
        client.fstat("other")
        client.setxattr(name + b"-2", "user.who", name)
        client.getxattr(name + b"-1", "user.who")
    # protected_hardlinks: others' files may be linked by root alone
    for mode in (0o600, 0o666, 0o4755, 0o2755):
        made = b"made-%o" % mode
        root.write_file(made, b"x")
        root.chown(made, USER, TEAM)
        root.chmod(made, mode)
        for client in stage.clients(*PEOPLE):
            client.link(made, made + client.name.encode())


def unlinked_but_open(stage: Stage) -> None:
    root = stage.client("root")
    for client in stage.clients("root", "user"):
        name = client.name.encode()
        client.write_file(name, b"0123456789", 0o644)
        client.open("a", name, os.O_RDWR)
        client.open("b", name, os.O_RDONLY)
        client.unlink(name)
        client.fstat("a")
        client.lstat(name)
        client.pwrite("a", b"still", 5)
        client.pread("b", 20, 0)
        client.ftruncate("a", 7)
        client.fstat("b")
        client.fchmod("a", 0o600)
        client.fchown("a", -1, -1) if client is root else None
        client.fstat("a")
        client.fsync("a")
        client.fallocate("a", 0, 0, 10_000)
        client.close("a")
        client.pread("b", 20, 0)
        client.fstat("b")
        client.link_open("b", name + b"-back")
        client.write_file(name, b"another")
        client.fstat("b")
        client.read_file(name)
        client.mkdir(name + b"-d")
        client.open("d", name + b"-d", os.O_RDONLY | os.O_DIRECTORY)
        client.rmdir(name + b"-d")
        client.fstat("d")
        client.mkdir(name + b"-d")
        client.lstat(name + b"-d")


def temporary_files(stage: Stage) -> None:
    root = stage.client("root")
    root.mkdir(b"closed", 0o755)
    for client in stage.clients(*PEOPLE):
        name = client.name.encode()
        for mode in (0o600, 0o666, 0o6777):
            client.open("t", b".", os.O_TMPFILE | os.O_RDWR, mode)
            client.fstat("t")
            client.write("t", b"temporary")
            client.pread("t", 20, 0)
            client.link_open("t", name + b"-%o" % mode)
            client.fstat("t")
            client.lstat(name + b"-%o" % mode)
            client.write("t", b" no more")
            client.link_open("t", name + b"-%o-too" % mode)
        client.open("x", b".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
        client.link_open("x", name + b"-excl")
        client.open("w", b".", os.O_TMPFILE | os.O_WRONLY, 0o000)
        client.write("w", b"blind")
        client.read("w", 1)
        client.open("r", b".", os.O_TMPFILE | os.O_RDONLY, 0o600)
        client.open("c", b"closed", os.O_TMPFILE | os.O_RDWR, 0o600)
        client.open("f", name + b"-600", os.O_TMPFILE | os.O_RDWR, 0o600)


def odd_names(stage: Stage) -> None:
    user = stage.client("user")
    names = [
        b"n" * 255, b"n" * 256, "ü".encode() * 127, b"\xff\xfe\x80", b" ", b"-rf", b"new\nline",
        b"tab\t", b"\x01\x7f", b"back\\slash", b"...", b".hidden", "日本".encode(), b"quote'\"",
        b"*", b"e\xcc\x81", b"\xc3\xa9", b"A", b"a",
    ]  # fmt: skip
    for name in names:
        user.write_file(name, name)
        user.lstat(name)
        user.mkdir(name + b"d")
        user.symlink(name, name[:253] + b"-l")
        user.readlink(name[:253] + b"-l")
        user.rename(name, name[:250] + b"-m")
        user.lstat(name[:250] + b"-m")
        user.lstat(name)
    user.listdir(b".")
    user.lstat(b"")
    user.open("f", b"", os.O_CREAT | os.O_RDWR)
    user.mkdir(b"")
    user.lstat(b"/".join([b"."] * 2048))
    user.lstat(b"/".join([b"."] * 2047))


def deep_paths(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    name = b"d" * 200
    member.mkdirs(b"e", 600)
    user.mkdirs(name, 19)
    user.write_file(b"f" * 255, b"deep")
    user.read_file(b"f" * 255)
    user.listdir(b".")
    member.enter(b"/".join([b".."] * 600))
    member.read_file(b"/".join([name] * 19) + b"/" + b"f" * 255)
    member.lstat(b"/".join([name] * 20))
    member.lstat(b"/".join([name] * 20) + b"/" + b"x" * 60)
    user.enter(b"/".join([b".."] * 19))
    user.rename(name, b"renamed")
    member.read_file(b"/".join([b"renamed"] + [name] * 18) + b"/" + b"f" * 255)


@pytest.mark.parametrize(
    "scenario",
    [
        rename_matrix,
        rename_leaving_a_whiteout,
        rename_corners,
        open_across_renames,
        hard_links,
        unlinked_but_open,
        temporary_files,
        odd_names,
        deep_paths,
    ],
)
def test_names(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
