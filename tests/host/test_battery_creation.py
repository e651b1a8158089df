"""Making files, directories, links and special files: modes, owners and groups."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import TEAM, USER

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
_KINDS = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


def umasks(stage: Stage) -> None:
    for client in stage.clients(*PEOPLE):
        for mask in (0, 0o022, 0o027, 0o077, 0o777):
            client.umask(mask)
            for mode in (0o777, 0o666, 0o600, 0o000, 0o1777, 0o2755, 0o4755, 0o6777):
                name = f"{client.name}-{mask:o}-{mode:o}".encode()
                client.mkdir(name + b"-d", mode)
                client.lstat(name + b"-d")
                client.open("new", name + b"-f", os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
                client.fstat("new")
                client.close("new")
                client.mknod(name + b"-p", stat.S_IFIFO | mode)
                client.lstat(name + b"-p")


def setgid_directories(stage: Stage) -> None:
    root = stage.client("root")
    for group in (0, USER, TEAM, 4242):
        for mode in (0o2777, 0o3777, 0o777):
            home = f"{group}-{mode:o}".encode()
            root.mkdir(home)
            root.chown(home, 0, group)
            root.chmod(home, mode)
            for client in stage.clients(*PEOPLE):
                prefix = home + b"/" + client.name.encode()
                client.mkdir(prefix + b"-d", 0o777)
                client.lstat(prefix + b"-d")
                client.mkdir(prefix + b"-d/deeper", 0o2700)
                client.open("new", prefix + b"-f", os.O_CREAT | os.O_WRONLY, 0o2775)
                client.fstat("new")
                client.open("new", prefix + b"-x", os.O_CREAT | os.O_WRONLY, 0o6711)
                client.fstat("new")
                client.mknod(prefix + b"-n", stat.S_IFREG | 0o2755)
                client.lstat(prefix + b"-n")
                client.symlink(b"anywhere", prefix + b"-l")
                client.lstat(prefix + b"-l")
                client.open("tmp", home, os.O_TMPFILE | os.O_RDWR, 0o2775)
                client.fstat("tmp")
                client.link_open("tmp", prefix + b"-t")
                client.lstat(prefix + b"-t")


def supplementary_groups(stage: Stage) -> None:
    root, user, member = stage.clients("root", "user", "member")
    for group, mode in ((USER, 0o770), (TEAM, 0o770), (TEAM, 0o750), (USER, 0o2770)):
        home = f"{group}-{mode:o}".encode()
        root.mkdir(home)
        root.chown(home, 0, group)
        root.chmod(home, mode)
        for client in (user, member):
            prefix = home + b"/" + client.name.encode()
            client.mkdir(prefix, 0o755)
            client.write_file(prefix + b"-f", b"mine")
            client.chown(prefix + b"-f", -1, TEAM)
            client.chown(prefix + b"-f", -1, USER)
            client.chown(prefix + b"-f", -1, 4242)
            client.symlink(b"x", prefix + b"-l")
            client.mknod(prefix + b"-p", stat.S_IFIFO | 0o640)
            client.listdir(home)
            client.unlink(prefix + b"-f")


def special_files(stage: Stage) -> None:
    for client in stage.clients(*PEOPLE):
        for kind in _KINDS:
            for device in (0, os.makedev(1, 3), os.makedev(259, 300_000), os.makedev(4095, 255)):
                name = f"{client.name}-{kind:o}-{device:x}".encode()
                client.mknod(name, kind | 0o640, device)
                client.lstat(name)
        client.mknod(client.name.encode() + b"-dir", stat.S_IFDIR | 0o755)
        client.mknod(client.name.encode() + b"-link", stat.S_IFLNK | 0o755)
        client.mknod(client.name.encode() + b"-none", 0o644)
        client.lstat(client.name.encode() + b"-none")
    root, user = stage.clients("root", "user")
    root.chmod(b"root-20000-103", 0o666)
    for client in (root, user):
        client.open("null", b"root-20000-103", os.O_RDWR)
        client.write("null", b"gone")
        client.read("null", 10)
        client.open("socket", b"root-140000-0", os.O_RDWR)
        client.open("fifo", b"user-10000-0", os.O_RDWR | os.O_NONBLOCK)
        client.write("fifo", b"through")
        client.read("fifo", 10)


def a_fifo_between_processes(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.mknod(b"pipe", stat.S_IFIFO | 0o666)
    user.chmod(b"pipe", 0o666)
    member.open("end", b"pipe", os.O_WRONLY | os.O_NONBLOCK)
    user.open("end", b"pipe", os.O_RDONLY | os.O_NONBLOCK)
    member.open("end", b"pipe", os.O_WRONLY | os.O_NONBLOCK)
    user.read("end", 100)
    member.write("end", b"hello")
    user.read("end", 100)
    member.close("end")
    user.read("end", 100)


def already_there(stage: Stage) -> None:
    root = stage.client("root")
    root.mkdir(b"closed", 0o700)
    root.mkdir(b"readable", 0o755)
    for client in stage.clients(*PEOPLE):
        client.mkdir(b"dir")
        client.write_file(b"file", b"1")
        client.symlink(b"nowhere", b"dangling")
        for name in (b"dir", b"file", b"dangling", b"dir/.", b"dir/..", b".", b"file/x", b"no/x"):
            client.mkdir(name)
            client.mknod(name, stat.S_IFIFO | 0o600)
            client.symlink(b"t", name)
            client.link(b"file", name)
            client.open("new", name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        client.open("new", b"dangling", os.O_CREAT | os.O_NOFOLLOW | os.O_RDWR, 0o600)
        client.open("new", b"dangling", os.O_CREAT | os.O_RDWR, 0o604)
        client.lstat(b"nowhere")
        client.mkdir(b"closed/inner")
        client.mkdir(b"readable/" + client.name.encode())
        client.write_file(b"closed/f", b"")
        client.symlink(b"", b"empty-target")
        client.symlink(b"x" * 4095, b"long-" + client.name.encode())
        client.symlink(b"x" * 4096, b"longer-" + client.name.encode())
        client.readlink(b"long-" + client.name.encode())


@pytest.mark.parametrize(
    "scenario",
    [
        umasks,
        setgid_directories,
        supplementary_groups,
        special_files,
        a_fifo_between_processes,
        already_there,
    ],
)
def test_creation(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
