"""chmod and chown, and what clears set-id bits: for the owner, for others, for root."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import MEMBER, TEAM, USER, Client

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
_SET_ID = (0o4755, 0o2755, 0o6755, 0o2745, 0o6777, 0o6666, 0o2711)


def change_modes(stage: Stage) -> None:
    root = stage.client("root")
    for owner, group in ((0, 0), (USER, USER), (USER, TEAM), (MEMBER, TEAM), (MEMBER, 4242)):
        for client in stage.clients(*PEOPLE):
            name = f"{owner}-{group}-{client.name}".encode()
            root.write_file(name, b"data")
            root.mkdir(name + b"-d")
            for made in (name, name + b"-d"):
                root.chown(made, owner, group)
                for mode in (0, 0o644, 0o7777, 0o2755, 0o2644, 0o4711, 0o1777, 0o6666, 0o755):
                    client.chmod(made, mode)


def change_owners(stage: Stage) -> None:
    root = stage.client("root")
    for mode in (0o755, *_SET_ID):
        for client in stage.clients(*PEOPLE):
            for uid, gid in ((USER, -1), (-1, TEAM), (-1, USER), (MEMBER, TEAM), (0, 0), (-1, 7)):
                name = f"{mode:o}-{client.name}-{uid}-{gid}".encode()
                root.write_file(name, b"data")
                root.mkdir(name + b"-d")
                for made in (name, name + b"-d"):
                    root.chown(made, client_uid(client.name), USER)
                    root.chmod(made, mode)
                    client.chown(made, uid, gid)
                    client.lstat(made)


def client_uid(name: str) -> int:
    return {"root": 0, "user": USER, "member": MEMBER}[name]


def chown_to_nobody_new(stage: Stage) -> None:
    user, root = stage.clients("user", "root")
    for client in (root, user):
        name = client.name.encode()
        client.write_file(name, b"data")
        client.chmod(name, 0o6755)
        with stage.known("chown-nothing"):
            client.chown(name, -1, -1)
            client.lstat(name)
        client.chmod(name, 0o755)  # so that the trees are alike again


def links_of_others(stage: Stage) -> None:
    root = stage.client("root")
    for client in stage.clients(*PEOPLE):
        name = client.name.encode() + b"-link"
        client.symlink(b"nowhere", name)
        client.chown(name, USER, TEAM, False)
        client.lstat(name)
        root.chown(name, USER, TEAM, False)
        client.chown(name, -1, USER, False)
        client.chown(name, USER, USER)
        client.chmod(name, 0o600)


def _writes(client: Client, name: bytes) -> dict[str, Callable[[], object]]:
    c = client.call

    def opened(flags: int, operation: str, *rest: object) -> object:
        c("open", "f", name, flags)
        c(operation, *rest)
        return c("close", "f")

    return {
        "write": lambda: opened(os.O_WRONLY, "pwrite", "f", b"new", 1),
        "append": lambda: opened(os.O_WRONLY | os.O_APPEND, "write", "f", b"new"),
        "empty-write": lambda: opened(os.O_WRONLY, "pwrite", "f", b"", 0),
        "open-only": lambda: opened(os.O_WRONLY, "fstat", "f"),
        "read": lambda: opened(os.O_RDONLY, "read", "f", 3),
        "trunc-open": lambda: opened(os.O_WRONLY | os.O_TRUNC, "fstat", "f"),
        "truncate": lambda: c("truncate", name, 2),
        "truncate-same": lambda: c("truncate", name, 4),
        "ftruncate": lambda: opened(os.O_RDWR, "ftruncate", "f", 9),
        "fallocate": lambda: opened(os.O_RDWR, "fallocate", "f", 0, 0, 8192),
        "fallocate-keep": lambda: opened(os.O_RDWR, "fallocate", "f", 1, 0, 8192),
        "punch": lambda: opened(os.O_RDWR, "fallocate", "f", 3, 0, 2),
        "zero": lambda: opened(os.O_RDWR, "fallocate", "f", 16, 0, 2),
        "rename": lambda: c("rename", name, name + b"-moved"),
        "link": lambda: c("link", name, name + b"-linked"),
        "times": lambda: c("set_times", name, (1, 2), (3, 4)),
    }


def set_id_bits_after_writes(stage: Stage) -> None:
    for client in stage.clients(*PEOPLE):
        _set_id_bits_after_writes(stage, client, (0o6777, 0o4777, 0o2777))


def set_gid_without_execute_after_writes(stage: Stage) -> None:
    # The bit stays if the writer is in the file's group (setattr_should_drop_sgid).
    for client in stage.clients("root", "user"):
        _set_id_bits_after_writes(stage, client, (0o2767, 0o6766))


def set_gid_without_execute_after_writes_of_a_member(stage: Stage) -> None:
    _set_id_bits_after_writes(stage, stage.client("member"), (0o2767, 0o6766))


def _set_id_bits_after_writes(stage: Stage, client: Client, modes: tuple[int, ...]) -> None:
    root = stage.client("root")
    for mode in modes:
        for how in _writes(client, b""):
            name = f"{client.name}-{mode:o}-{how}".encode()
            root.write_file(name, b"data")
            root.chown(name, USER, TEAM)
            root.chmod(name, mode)
            _writes(client, name)[how]()
            for left in (name, name + b"-moved"):
                root.lstat(left)


def set_id_bits_after_copies(stage: Stage) -> None:
    root = stage.client("root")
    root.write_file(b"source", b"0123456789" * 1000)
    for client in stage.clients(*PEOPLE):
        for mode in (0o6777, 0o4777, 0o2777):
            name = f"{client.name}-{mode:o}".encode()
            root.write_file(name, b"data")
            root.chown(name, USER, TEAM)
            root.chmod(name, mode)
            client.open("from", b"source", os.O_RDONLY)
            client.open("to", name, os.O_WRONLY)
            client.copy_range("from", "to", 5000, 0, 2)
            client.close("to")
            root.lstat(name)
            root.chmod(name, mode)
            client.open("to", name, os.O_WRONLY)
            client.send_file("from", "to", 5000)
            client.close("to")
            root.lstat(name)


def set_id_bits_set_while_open(stage: Stage) -> None:
    root = stage.client("root")
    for client in stage.clients("user", "member"):
        for mode in (0o6777, 0o4777, 0o2777):
            name = f"{client.name}-{mode:o}".encode()
            root.write_file(name, b"data")
            root.chown(name, USER, TEAM)
            root.chmod(name, 0o777)
            client.open("f", name, os.O_RDWR)
            client.write("f", b"one")
            root.chmod(name, mode)
            client.write("f", b"two")
            client.fstat("f")
            root.lstat(name)
            client.close("f")
    name = b"by-root"
    root.write_file(name, b"data")
    root.chown(name, USER, TEAM)
    root.open("f", name, os.O_RDWR)
    root.chmod(name, 0o6777)
    with stage.known("root-writes-set-id"):
        root.write("f", b"two")
        root.fstat("f")
    root.chmod(name, 0o777)


@pytest.mark.parametrize(
    "scenario",
    [
        change_modes,
        change_owners,
        chown_to_nobody_new,
        links_of_others,
        set_id_bits_after_writes,
        set_gid_without_execute_after_writes,
        set_gid_without_execute_after_writes_of_a_member,
        set_id_bits_after_copies,
        set_id_bits_set_while_open,
    ],
)
def test_owners(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
