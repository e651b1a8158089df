"""Extended attributes in all namespaces, of all sizes, with all flags; and inode flags."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
from support import rawcalls
from support.battery import Battery, Stage

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
_NAMES = (
    "user.plain", "user.", "user", "trusted.secret", "security.label", "security.capability",
    "system.made.up", "nothing", ".", "user." + "n" * 250, "user." + "n" * 251, "user.ünïcode",
    "os2.thing", "system.posix_acl_access", "security.selinux", "USER.x",
)  # fmt: skip
_KINDS = ("file", "dir", "link", "fifo", "sticky")


def _make(stage: Stage, owner: str) -> None:
    client = stage.client(owner)
    name = owner.encode()
    client.write_file(name + b"-file", b"data")
    client.mkdir(name + b"-dir")
    client.symlink(name + b"-file", name + b"-link")
    client.mknod(name + b"-fifo", stat.S_IFIFO | 0o644)
    client.mkdir(name + b"-sticky")
    client.chmod(name + b"-sticky", 0o1777)


def namespaces(stage: Stage) -> None:
    _make(stage, "user")
    _make(stage, "root")
    for owner in ("user", "root"):
        for client in stage.clients(*PEOPLE):
            for kind in _KINDS:
                path = f"{owner}-{kind}".encode()
                for name in _NAMES:
                    client.setxattr(path, name, b"value of " + client.name.encode(), 0, False)
                    client.getxattr(path, name, False)
                with stage.known("trusted-listed"):
                    client.listxattr(path, False)
                    client.listxattr_length(path, 0)
        for client in stage.clients("member", "user", "root"):
            for kind in _KINDS:
                for name in _NAMES:
                    client.removexattr(f"{owner}-{kind}".encode(), name, False)
                with stage.known("trusted-listed"):
                    client.listxattr(f"{owner}-{kind}".encode())


def modes_matter(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    for mode in (0o600, 0o644, 0o666, 0o222, 0o000):
        name = b"%o" % mode
        user.write_file(name, b"data")
        user.setxattr(name, "user.mine", b"value")
        user.chmod(name, mode)
        for client in (user, member):
            client.getxattr(name, "user.mine")
            client.setxattr(name, "user.new", b"by " + client.name.encode())
            client.listxattr(name)
            client.removexattr(name, "user.mine")


def sizes_and_flags(stage: Stage) -> None:
    user = stage.client("user")
    user.write_file(b"f", b"data")
    for size in (0, 1, 100, 3000, 3900, 4096, 65_536, 65_537):
        user.setxattr(b"f", "user.sized", b"x" * size)
        user.getxattr(b"f", "user.sized")
        for room in (0, 1, size - 1, size, size + 1, 70_000):
            user.getxattr_into(b"f", b"user.sized", max(room, 0))
    user.setxattr(b"f", "user.a", b"1", os.XATTR_CREATE)
    user.setxattr(b"f", "user.a", b"2", os.XATTR_CREATE)
    user.setxattr(b"f", "user.a", b"3", os.XATTR_REPLACE)
    user.setxattr(b"f", "user.b", b"4", os.XATTR_REPLACE)
    user.setxattr(b"f", "user.b", b"5", 3)
    user.setxattr(b"f", "user.b", b"6", 4)
    user.getxattr(b"f", "user.a")
    user.removexattr(b"f", "user.b")
    user.removexattr(b"f", "user.b")
    for number in range(30):
        user.setxattr(b"f", f"user.number-{number}", b"%d" % number)
    user.listxattr(b"f")
    for room in (0, 1, 10, 100, 1000, 65_536):
        user.listxattr_length(b"f", room)
    user.open("f", b"f", os.O_RDONLY)
    user.unlink(b"f")
    user.fstat("f")


def capabilities(stage: Stage) -> None:
    root, member = stage.clients("root", "member")
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    for how in ("write", "truncate", "chown", "trunc-open", "read"):
        name = how.encode()
        root.write_file(name, b"data", 0o777)
        root.setxattr(name, "security.capability", value)
        root.getxattr(name, "security.capability")
        if how == "write":
            member.open("f", name, os.O_WRONLY)
            member.write("f", b"new")
        elif how == "truncate":
            member.truncate(name, 1)
        elif how == "chown":
            root.chown(name, 5, 5)
        elif how == "trunc-open":
            member.open("f", name, os.O_WRONLY | os.O_TRUNC)
        else:
            member.read_file(name)
        root.getxattr(name, "security.capability")


def inode_flags(stage: Stage) -> None:
    settable = (
        rawcalls.FS_NODUMP,
        rawcalls.FS_NOATIME,
        rawcalls.FS_SYNC,
        rawcalls.FS_APPEND,
        rawcalls.FS_IMMUTABLE,
    )
    for owner in ("user", "root"):
        _make(stage, owner)
        for client in stage.clients(*PEOPLE):
            for kind in ("file", "dir"):
                client.open("f", f"{owner}-{kind}".encode(), os.O_RDONLY)
                client.get_flags("f")
                for flags in settable:
                    client.set_flags("f", flags)
                    client.get_flags("f")
                    client.set_flags("f", 0, flags)
        root = stage.client("root")
        root.open("f", f"{owner}-fifo".encode(), os.O_RDONLY | os.O_NONBLOCK)
        with stage.known("ioctl-on-fifo"):
            root.get_flags("f")
            root.set_flags("f", rawcalls.FS_NODUMP)
            root.set_flags("f", 0, rawcalls.FS_NODUMP)


def immutable(stage: Stage) -> None:
    _protected(stage, rawcalls.FS_IMMUTABLE)


def append_only(stage: Stage) -> None:
    _protected(stage, rawcalls.FS_APPEND)


def _protected(stage: Stage, flag: int) -> None:
    root, user = stage.clients("root", "user")
    user.write_file(b"f", b"data", 0o666)
    user.mkdir(b"d")
    user.write_file(b"d/inner", b"data")
    user.write_file(b"other", b"data")
    for name in (b"f", b"d"):
        root.open("held-" + name.decode(), name, os.O_RDONLY)
        root.set_flags("held-" + name.decode(), flag)
    with stage.known("immutable-order"):
        for client in (root, user):
            for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                for append in (0, os.O_APPEND):
                    client.open("f", b"f", access | append)
                    client.write("f", b"more")
                    client.ftruncate("f", 2)
                    client.discard("f")
            client.truncate(b"f", 0)
            client.chmod(b"f", 0o600)
            client.chown(b"f", 5, 5)
            client.set_times(b"f", (1, 2), (3, 4))
            client.set_times(b"f", (0, rawcalls.UTIME_NOW), (0, rawcalls.UTIME_NOW))
            client.setxattr(b"f", "user.a", b"b")
            client.rename(b"f", b"g")
            client.link(b"f", b"h")
            client.unlink(b"f")
            client.mkdir(b"d/new-" + client.name.encode())
            client.write_file(b"d/file-" + client.name.encode(), b"x")
            client.unlink(b"d/inner")
            client.rename(b"other", b"d/other")
            client.rename(b"d/inner", b"inner")
            client.rmdir(b"d")
            client.rename(b"d", b"e")
            client.chmod(b"d", 0o700)
            with stage.known("immutable-access"):
                client.access(b"f", os.W_OK)
                client.access(b"d", os.W_OK)
    root.read_file(b"f")
    for slot in ("held-f", "held-d"):
        root.set_flags(slot, 0, flag)


@pytest.mark.parametrize(
    "scenario",
    [
        namespaces,
        modes_matter,
        sizes_and_flags,
        capabilities,
        inode_flags,
        immutable,
        append_only,
    ],
)
def test_xattrs(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
