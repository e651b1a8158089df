"""Ways round rules that no shipped policy has: handlers, and what new inodes inherit."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.attacks import ACL_FOR_ALL
from support.clients import TEAM, Client, Clients, clients
from support.mounting import Mount, inopt, mounted

pytestmark = pytest.mark.host

Mounting = Callable[[str], AbstractContextManager[Mount]]
_AUDIT = "handlers: inopt.handlers.audit:AuditHandlers\n"


@pytest.fixture
def people() -> Iterator[Clients]:
    with clients() as made:
        yield made


@pytest.fixture(params=("none", "rw"))
def mounting(place: Path, people: Clients, request: pytest.FixtureRequest) -> Mounting:
    """Mounts under a policy given as text; the source is everybody's."""

    @contextmanager
    def mount(policy: str) -> Iterator[Mount]:
        (place / "policy.yaml").write_text(f"version: 1\n{policy}")
        (place / "back").mkdir()
        (place / "back").chmod(0o777)
        with mounted(
            place / "back", place / "mnt", "--tier", request.param, policy=place / "policy.yaml"
        ) as made:
            try:
                yield made
            finally:
                people.close()

    return mount


def enter(people: Clients, mount: Mount, *names: str) -> list[Client]:
    """Those clients, within the mount."""
    found = [people.get(name) for name in names]
    for client in found:
        client.enter(os.fsencode(mount.path))
    return found


def audited(mount: Mount) -> list[dict[str, Any]]:
    """The records of the audit handlers."""
    records = [json.loads(line) for line in mount.log.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if record["event"] == "audit"]


def test_no_way_round_a_handler(mounting: Mounting, people: Clients) -> None:
    """A word covers every opcode by which the operation can be reached, for handlers, too."""
    words = "[truncate, create, chmod, chattr, unlink, copy_file_range]"
    with mounting(_AUDIT + f"rules: [{{match: {{path: '*.h'}}, handle: {words}}}]") as mount:
        (user,) = enter(people, mount, "user")
        (mount.source / "free").write_bytes(b"free")
        expected: list[str] = []
        acts: list[tuple[str, Callable[[], Any]]] = [
            ("CREATE", lambda: user.open("c", b"c.h", os.O_CREAT | os.O_RDWR)),
            ("MKNOD", lambda: user.mknod(b"n.h", stat.S_IFREG | 0o600)),
            ("OPEN", lambda: user.open("f", b"c.h", os.O_WRONLY | os.O_TRUNC)),
            ("SETATTR", lambda: user.truncate(b"c.h", 5)),
            ("SETATTR", lambda: user.fchmod("c", 0o644)),
            ("SETXATTR", lambda: user.setxattr(b"c.h", "system.posix_acl_access", ACL_FOR_ALL)),
            ("IOCTL", lambda: user.set_flags("c", 0x40)),
            ("RENAME", lambda: user.rename(b"n.h", b"c.h")),
            ("CREATE", lambda: user.open("c", b"e.h", os.O_CREAT | os.O_RDWR)),
            ("UNLINK", lambda: user.unlink(b"e.h")),
        ]
        for opcode, act in acts:
            answer = act()
            assert answer is None or isinstance(answer, int), (opcode, answer)
            expected.append(opcode)
        assert user.open("s", b"free", os.O_RDONLY) is None
        assert user.copy_range("s", "c", 4, 0, 0) == 4
        expected.append("COPY_FILE_RANGE")
        found = [record["opcode"].removesuffix("_64") for record in audited(mount)]
        found = [opcode.replace("RENAME2", "RENAME") for opcode in found]
        assert found == expected


def test_opening_is_not_handled_because_reading_is(mounting: Mounting, people: Clients) -> None:
    with mounting(_AUDIT + "rules: [{handle: [read, write]}]") as mount:
        (user,) = enter(people, mount, "user")
        user.open("f", b"f", os.O_CREAT | os.O_RDWR)
        user.open("f", b"f", os.O_RDWR)
        assert not audited(mount)


def test_what_a_new_inode_inherits_is_known(mounting: Mounting, people: Clients) -> None:
    """Its group and the set-group-ID bit, and by a default ACL its permissions."""
    rules = (
        f"- {{match: {{path: /group, owner: {{group: {TEAM}}}}}, deny: [create, mknod]}}\n"
        "- {match: {path: /group, type: directory, mode: setgid}, deny: mkdir}\n"
        "- {match: {path: [/acl, /mask], mode: world_writable}, deny: [create, mkdir]}\n"
    )
    with mounting(f"rules:\n{rules}") as mount:
        for name, mode in (("group", 0o2777), ("acl", 0o777), ("mask", 0o777)):
            (mount.source / name).mkdir()
            os.chown(mount.source / name, -1, TEAM)
            (mount.source / name).chmod(mode)
        os.setxattr(mount.source / "acl", "system.posix_acl_default", ACL_FOR_ALL)
        for client in enter(people, mount, "root", "user", "member"):
            assert client.open("f", b"group/f", os.O_CREAT | os.O_RDWR) == "EACCES"
            assert client.open("f", b"group", os.O_TMPFILE | os.O_RDWR) == "EACCES"
            assert client.mknod(b"group/n", stat.S_IFREG | 0o600) == "EACCES"
            assert client.mkdir(b"group/d") == "EACCES"
        (user,) = enter(people, mount, "user")
        user.umask(0o077)
        assert user.open("f", b"acl/f", os.O_CREAT | os.O_RDWR, 0o666) == "EACCES"
        assert user.mkdir(b"acl/d") == "EACCES"
        assert user.open("f", b"acl/f", os.O_CREAT | os.O_RDWR, 0o660) is None
        assert user.open("f", b"mask/f", os.O_CREAT | os.O_RDWR, 0o666) is None
        user.umask(0)
        assert user.open("f", b"mask/g", os.O_CREAT | os.O_RDWR, 0o666) == "EACCES"
        (mount.source / "group").chmod(0o777)
        user.reset()
        (user,) = enter(people, mount, "user")
        assert user.mkdir(b"group/d") is None


def test_a_file_can_be_made_by_an_open_that_truncates(mounting: Mounting, people: Clients) -> None:
    with mounting("rules: [{match: {path: '*.log'}, deny: [truncate, overwrite]}]") as mount:
        (user,) = enter(people, mount, "user")
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
        assert user.open("f", b"new.log", flags) is None
        assert user.write("f", b"first line\n") == 11
        assert user.open("f", b"new.log", flags) == "EACCES"
        assert user.open("f", b"new.log", os.O_RDONLY | os.O_TRUNC) == "EACCES"
        assert (mount.source / "new.log").read_bytes() == b"first line\n"


def test_what_may_not_be_written_can_be_copied_from(mounting: Mounting, people: Clients) -> None:
    rules = "- {match: {path: /sealed}, deny: {write: EROFS}}\n"
    with mounting(f"rules:\n{rules}") as mount:
        (mount.source / "sealed").write_text("text")
        (mount.source / "target").write_text("")
        for name in ("sealed", "target"):
            mount.source.joinpath(name).chmod(0o666)
        for client in enter(people, mount, "root", "user"):
            assert client.open("sealed", b"sealed", os.O_RDONLY) is None
            assert client.open("target", b"target", os.O_RDWR) is None
            assert client.copy_range("sealed", "target", 4, 0, 0) == 4
            assert client.open("again", b"sealed", os.O_RDWR) == "EROFS"
        assert (mount.source / "target").read_text() == "text"


def test_visibility_cannot_depend_on_the_caller(place: Path) -> None:
    (place / "policy.yaml").write_text(
        "version: 1\n"
        "rules:\n"
        "  - match: {path: '.*', caller: {user: 0}}\n"
        "    visible: true\n"
        "  - {match: {path: '.*'}, visible: false}\n"
    )
    (place / "back").mkdir()
    (place / "mnt").mkdir()
    done = inopt("mount", str(place / "policy.yaml"), str(place / "back"), str(place / "mnt"))
    assert done.returncode == 2
    assert "policy.yaml:4:5" in done.stderr
    assert "caller" in done.stderr
