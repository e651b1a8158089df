"""POSIX ACLs with ``-o acl``: who may do what, and what is inherited."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import MEMBER, TEAM, USER

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_TAGS = {"u": 1, "U": 2, "g": 4, "G": 8, "m": 16, "o": 32}
_NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[str, int, int]) -> bytes:
    """An ACL as the kernel takes it: (tag, permissions, id); U and G are named."""
    packed = [
        struct.pack("<HHI", _TAGS[tag], allowed, who if tag in "UG" else _NOBODY)
        for tag, allowed, who in entries
    ]
    return struct.pack("<I", 2) + b"".join(packed)


PLAIN = acl(("u", 7, 0), ("g", 5, 0), ("o", 0, 0))
FOR_MEMBER = acl(("u", 6, 0), ("U", 6, MEMBER), ("g", 0, 0), ("m", 6, 0), ("o", 0, 0))
FOR_TEAM = acl(("u", 7, 0), ("g", 0, 0), ("G", 7, TEAM), ("m", 7, 0), ("o", 0, 0))
AGAINST = acl(("u", 7, 0), ("U", 0, USER), ("g", 7, 0), ("m", 7, 0), ("o", 7, 0))
MASKED = acl(("u", 7, 0), ("U", 7, MEMBER), ("g", 7, 0), ("m", 4, 0), ("o", 4, 0))
WRONG = acl(("u", 7, 0), ("U", 6, MEMBER), ("o", 0, 0))
_ALL = {
    "plain": PLAIN, "member": FOR_MEMBER, "team": FOR_TEAM, "against": AGAINST,
    "masked": MASKED, "wrong": WRONG, "short": b"\2\0\0\0\1", "empty": b"\2\0\0\0",
}  # fmt: skip


def enforced(stage: Stage) -> None:
    root = stage.client("root")
    for owner in (0, USER):
        for label, value in _ALL.items():
            name = f"{owner}-{label}".encode()
            root.write_file(name, b"data", 0o640)
            root.mkdir(name + b"-d", 0o750)
            for path in (name, name + b"-d"):
                root.chown(path, owner, TEAM if owner else 0)
                root.setxattr(path, ACCESS, value)
                root.getxattr(path, ACCESS)
                root.lstat(path)
                for client in stage.clients(*PEOPLE):
                    for wanted in range(8):
                        client.access(path, wanted)
                    client.open("f", path, os.O_RDONLY)
                    client.open("f", path, os.O_RDWR)
                    client.discard("f")
                    client.write_file(path + b"/" + client.name.encode(), b"x")


def inherited(stage: Stage) -> None:
    root = stage.client("root")
    for label, value in _ALL.items():
        home = label.encode()
        root.mkdir(home)
        root.chmod(home, 0o2777 if label == "team" else 0o777)
        root.setxattr(home, DEFAULT, value)
        root.getxattr(home, DEFAULT)
        for client in stage.clients(*PEOPLE):
            for mask in (0, 0o077):
                client.umask(mask)
                prefix = home + f"/{client.name}-{mask:o}".encode()
                client.mkdir(prefix + b"-d", 0o777)
                client.open("f", prefix + b"-f", os.O_CREAT | os.O_RDWR, 0o666)
                client.fstat("f")
                client.open("x", prefix + b"-x", os.O_CREAT | os.O_RDWR, 0o700)
                client.mknod(prefix + b"-p", stat.S_IFIFO | 0o666)
                client.mknod(prefix + b"-n", stat.S_IFREG | 0o666)
                client.symlink(b"t", prefix + b"-l")
                client.open("t", home, os.O_TMPFILE | os.O_RDWR, 0o666)
                client.fstat("t")
                client.link_open("t", prefix + b"-t")
                client.mkdir(prefix + b"-d/deeper", 0o755)
                for made in (b"-d", b"-f", b"-x", b"-p", b"-n", b"-t", b"-d/deeper"):
                    root.lstat(prefix + made)
                    root.listxattr(prefix + made)


def changed_by_modes(stage: Stage) -> None:
    root = stage.client("root")
    for label in ("member", "team", "against", "masked"):
        for owner in ("root", "user"):
            client = stage.client(owner)
            name = f"{label}-{owner}".encode()
            client.write_file(name, b"data")
            client.setxattr(name, ACCESS, _ALL[label])
            for mode in (0o777, 0o640, 0o604, 0o000, 0o2755, 0o4711):
                client.chmod(name, mode)
                client.getxattr(name, ACCESS)
                stage.client("member").access(name, os.R_OK)
            root.chown(name, MEMBER, TEAM)
            root.getxattr(name, ACCESS)
            client.removexattr(name, ACCESS)
            root.lstat(name)
            root.listxattr(name)


def who_may_set(stage: Stage) -> None:
    root = stage.client("root")
    for owner, group in ((0, 0), (USER, TEAM), (MEMBER, 4242), (MEMBER, TEAM)):
        for client in stage.clients(*PEOPLE):
            name = f"{owner}-{group}-{client.name}".encode()
            root.write_file(name, b"data", 0o666)
            root.mkdir(name + b"-d")
            for path in (name, name + b"-d"):
                root.chown(path, owner, group)
                root.chmod(path, 0o2775)
                client.setxattr(path, ACCESS, PLAIN)
                client.lstat(path)
                client.setxattr(path, ACCESS, FOR_TEAM)
                client.lstat(path)
                client.setxattr(path, DEFAULT, FOR_TEAM)
                client.getxattr(path, ACCESS)
                client.getxattr(path, DEFAULT)
                client.removexattr(path, ACCESS)
                client.removexattr(path, DEFAULT)
                client.listxattr(path)
        root.symlink(b"x", b"%d-%d-link" % (owner, group))
        root.setxattr(b"%d-%d-link" % (owner, group), ACCESS, PLAIN, 0, False)
        root.getxattr(b"%d-%d-link" % (owner, group), ACCESS, False)


SCENARIOS = [enforced, inherited, changed_by_modes, who_may_set]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_acl(acl_mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    acl_mirror.run(scenario)
