"""The shipped policies as they are: they mount, log what they should, and change nothing else."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import rawcalls
from support.attacks import ACL_FOR_ALL, camp
from support.battery import Battery, Record, Scenario, Stage
from support.clients import USER, Client, Errno, clients
from support.mounting import Mount, in_place, mounted
from support.waiting import within

from inopt.policy.load import load_policy, shipped_policies
from inopt.policy.rules import compile_rules

pytestmark = pytest.mark.host

NAMES = sorted(shipped_policies())
EXPECTED = {
    "append-only-logs", "audit-writes", "hidden-dotfiles", "label-gated", "metadata-native",
    "mirror", "no-exec-uploads", "overlay", "overlay-sandbox", "quarantine", "read-only",
    "team-share",
}  # fmt: skip
# They have no source: see test_overlay_shipped.py.
OF_LAYERS = {name for name in NAMES if load_policy(name).policy.overlay is not None}
TIERS = ("none", "rw")


def test_all_are_there() -> None:
    assert set(NAMES) >= EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_each_says_for_whom_it_is(name: str) -> None:
    lines = shipped_policies()[name].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=policy.schema.json"
    assert lines[1].startswith("# For ")
    assert max(map(len, lines)) <= 100
    loaded = load_policy(name)
    assert loaded.policy.description
    assert all(rule.name for rule in loaded.policy.rules)
    compile_rules(loaded)


# --- nothing else changes -----------------------------------------------------------------------


class _Prepared(Battery):
    """A battery that puts some files there first, underneath."""

    def _perform(self, scenario: Scenario, made: Path, path: Path) -> list[Record]:
        def prepared(stage: Stage) -> None:
            for name in ("one", "two", "sub/three"):
                (made / name).parent.mkdir(exist_ok=True)
                (made / name).write_bytes(name.encode() * 1000)
                os.chown(made / name, USER, USER)
            (made / "link").symlink_to("sub/three")
            os.setxattr(made / "one", "user.some", b"value")
            scenario(stage)

        prepared.__name__ = scenario.__name__
        return super()._perform(prepared, made, path)


def reading(stage: Stage) -> None:
    for client in stage.clients("root", "user", "member"):
        for name in (b"one", b"sub/three", b"link", b"nothing", b"sub"):
            client.lstat(name)
            client.stat(name)
            client.read_file(name)
            client.readlink(name)
            client.access(name, os.R_OK)
            client.getxattr(name, "user.some")
            client.listxattr(name)
            client.open("f", name, os.O_RDONLY)
            client.pread("f", 50, 10)
            client.map_load("f")
            client.splice_out("f", 100)
            client.end_of("f")
            client.fsync("f")
            client.store_privately("f", 100, b"mine")
            client.discard("f")
            if name != b"nothing":
                client.open("f", name, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
        client.listing(b".")
        client.listdir(b"sub")
        client.filesystem(b".")
        client.enter(b"sub")
        client.read_file(b"../one")
        client.enter(b"..")


def writing(stage: Stage) -> None:
    reading(stage)
    for client in stage.clients("root", "user", "member"):
        own = client.name.encode()
        client.mkdir(own)
        client.enter(own)
        client.open("f", b"f", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
        client.pwrite("f", b"0123456789" * 1000, 0)
        client.pwrite("f", b"over", 5)
        client.open("a", b"f", os.O_WRONLY | os.O_APPEND)
        client.write("a", b"end")
        client.ftruncate("f", 9000)
        client.map_store("f", 100, b"mapped")
        client.fallocate("f", rawcalls.FALLOC_PUNCH_HOLE | rawcalls.FALLOC_KEEP_SIZE, 0, 4096)
        client.open("t", b".", os.O_TMPFILE | os.O_RDWR, 0o600)
        client.write("t", b"nameless")
        client.link_open("t", b"named")
        client.copy_range("f", "t", 100, 0, 0)
        client.send_file("f", "t", 100)
        client.splice_into("t", b"spliced", 3)
        client.chmod(b"f", 0o600)
        client.fchmod("f", 0o644)
        client.chown(b"f", -1, -1)
        client.set_times(b"f", (5, 0), (6, 7))
        client.setxattr(b"f", "user.own", b"value")
        client.removexattr(b"f", "user.own")
        client.setxattr(b"f", "system.posix_acl_access", ACL_FOR_ALL)
        client.set_flags("f", rawcalls.FS_NODUMP)
        client.link(b"f", b"g")
        client.symlink(b"f", b"l")
        client.mknod(b"n", stat.S_IFREG | 0o600)
        client.mknod(b"p", stat.S_IFIFO | 0o600)
        client.rename(b"n", b"m")
        client.rename(b"m", b"named", rawcalls.RENAME_EXCHANGE)
        client.rename(b"named", b"g")
        client.rename(b"nothing", b"g")
        client.mkdir(b"d")
        client.rename(b"f", b"d/f")
        client.unlink(b"l")
        client.rmdir(b"d")
        client.unlink(b"nothing")
        client.open("w", b"../one", os.O_WRONLY)
        client.listing(b".")
        client.enter(b"..")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", sorted(set(NAMES) - OF_LAYERS))
def test_what_no_rule_denies_is_as_on_the_bare_tree(host: None, name: str, tier: str) -> None:
    with in_place(f"benign-{name}") as place, clients() as people:
        source, path = place / "back", place / "mnt"
        with mounted(source, path, "--tier", tier, policy=name) as mount:
            assert mount.stats()["tier"] == tier
            try:
                made = _Prepared(place, mount, tier, people)
                made.run(reading)
                if tier == "rw" and name != "audit-writes":
                    assert served(mount) == (0, 0), "what could bypass did not"
                if name != "read-only":
                    made.run(writing)
            finally:
                people.close()


# --- what bypasses still does -------------------------------------------------------------------


def served(mount: Mount) -> tuple[int, int]:
    stats = mount.stats()
    return sum(stats["READ"].values()), sum(stats["WRITE"].values())


def bypasses(mount: Mount, user: Client) -> None:
    """No read or write of a file that no rule is about reaches the daemon."""
    before = served(mount)
    assert user.open("f", b"data", os.O_CREAT | os.O_RDWR) is None
    assert user.pwrite("f", b"bytes" * 10_000, 0) == 50_000
    assert user.pread("f", 5, 0) == b"bytes"
    assert user.map_store("f", 0, b"store")
    assert user.read_file(b"data").startswith(b"store")
    assert served(mount) == before


@pytest.mark.parametrize("name", ["no-exec-uploads", "label-gated", "quarantine", "team-share"])
def test_other_files_are_written_by_the_kernel(host: None, name: str) -> None:
    with camp("rw", name) as made:
        user = made.people.get("user")
        user.enter(os.fsencode(made.mount.path))
        bypasses(made.mount, user)


def test_only_logs_are_written_by_the_daemon(host: None) -> None:
    with camp("rw", "append-only-logs") as made:
        user = made.people.get("user")
        user.enter(os.fsencode(made.mount.path))
        bypasses(made.mount, user)
        assert user.open("w", b"x.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC) is None
        assert [user.write("w", b"line\n") for _ in range(3)] == [5, 5, 5]
        assert user.read_file(b"x.log") == b"line\n" * 3
        assert sum(made.mount.stats()["WRITE"].values()) == 3


# --- the audit ----------------------------------------------------------------------------------


def audited(mount: Mount) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in mount.log.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if record["event"] == "audit"]


@pytest.mark.parametrize("tier", TIERS)
def test_each_change_has_one_record(host: None, tier: str) -> None:
    with camp(tier, "audit-writes") as made:
        mount = made.mount
        user, root = made.people.get("user"), made.people.get("root")
        for client in (user, root):
            client.enter(os.fsencode(mount.path))
        steps: list[tuple[Callable[[], Any], dict[str, Any]]] = [
            (
                lambda: user.open("f", b"f", os.O_CREAT | os.O_RDWR),
                {"opcode": "CREATE", "path": "/f"},
            ),
            (lambda: user.pwrite("f", b"data", 0), {"opcode": "WRITE", "path": "/f"}),
            (lambda: user.ftruncate("f", 2), {"opcode": "SETATTR", "path": "/f"}),
            (
                lambda: user.open("t", b"f", os.O_RDONLY | os.O_TRUNC),
                {"opcode": "OPEN", "path": "/f"},
            ),
            (lambda: user.chmod(b"f", 0o600), {"opcode": "SETATTR", "path": "/f"}),
            (
                lambda: user.set_times(b"f", (1, 0), (1, 0)),
                {"opcode": "SETATTR", "path": "/f"},
            ),
            (
                lambda: user.set_flags("f", rawcalls.FS_NODUMP),
                {"opcode": "IOCTL", "path": "/f"},
            ),
            (
                lambda: user.setxattr(b"f", "user.a", b"v"),
                {"opcode": "SETXATTR", "path": "/f", "attribute": "user.a"},
            ),
            (
                lambda: user.removexattr(b"f", "user.a"),
                {"opcode": "REMOVEXATTR", "path": "/f", "attribute": "user.a"},
            ),
            (
                lambda: user.removexattr(b"f", "user.a"),
                {"opcode": "REMOVEXATTR", "path": "/f", "result": "ENODATA"},
            ),
            (lambda: user.fallocate("f", 0, 0, 10), {"opcode": "FALLOCATE", "path": "/f"}),
            (lambda: user.mkdir(b"d"), {"opcode": "MKDIR", "path": "/d"}),
            (
                lambda: user.setxattr(b"d", "user.a", b"v"),
                {"opcode": "SETXATTR", "path": "/d", "attribute": "user.a"},
            ),
            (lambda: user.mknod(b"d/n", stat.S_IFIFO | 0o600), {"opcode": "MKNOD", "path": "/d/n"}),
            (lambda: user.symlink(b"x", b"d/l"), {"opcode": "SYMLINK", "path": "/d/l"}),
            (
                lambda: user.link(b"f", b"d/f"),
                {"opcode": "LINK", "path": "/f", "new_path": "/d/f"},
            ),
            (
                lambda: user.rename(b"f", b"d/g"),
                {"opcode": "RENAME", "path": "/f", "new_path": "/d/g"},
            ),
            (
                lambda: user.rename(b"d/g", b"d/l", rawcalls.RENAME_EXCHANGE),
                {"opcode": "RENAME2", "path": "/d/g", "new_path": "/d/l"},
            ),
            (lambda: user.rmdir(b"d"), {"opcode": "RMDIR", "path": "/d", "result": "ENOTEMPTY"}),
            (lambda: user.unlink(b"d/f"), {"opcode": "UNLINK", "path": "/d/f"}),
            (
                lambda: user.open("t", b"d", os.O_TMPFILE | os.O_RDWR),
                {"opcode": "TMPFILE", "path": "/d"},
            ),
            (lambda: root.chown(b"d/l", 5, 6), {"opcode": "SETATTR", "path": "/d/l", "uid": 0}),
            (
                lambda: root.unlink(b"d/n"),
                {"opcode": "UNLINK", "path": "/d/n", "uid": 0, "gid": 0},
            ),
        ]
        for number, (act, expected) in enumerate(steps):
            answer = act()
            found = audited(mount)
            assert len(found) == number + 1, (expected, answer, found[number:])
            wanted = {"uid": USER, "gid": USER, "result": 0} | expected
            if expected.get("uid") == 0:
                wanted["gid"] = 0
            if isinstance(answer, Errno):
                assert wanted["result"] == answer
            assert {key: found[-1].get(key) for key in wanted} == wanted
            assert found[-1]["pid"] > 0
        stats = mount.stats()
        handled = {op: counts["handler"] for op, counts in stats.items() if op.isupper()}
        for opcode in {expected["opcode"] for _, expected in steps}:
            done = [step for _, step in steps if step["opcode"] == opcode]
            assert handled[opcode] == len(done), opcode
        assert user.read_file(b"d/l") is not None
        assert len(audited(mount)) == len(steps)
        assert not mount.complaints()


@pytest.mark.parametrize("tier", TIERS)
def test_a_store_through_a_mapping_is_nobodys(host: None, tier: str) -> None:
    with camp(tier, "audit-writes") as made:
        user = made.people.get("user")
        user.enter(os.fsencode(made.mount.path))
        user.open("f", b"f", os.O_CREAT | os.O_RDWR)
        user.pwrite("f", b"data", 0)
        assert user.map_store("f", 0, b"DATA")
        user.fsync("f")
        within(lambda: len(audited(made.mount)) >= 3)
        last = audited(made.mount)[-1]
        assert (last["opcode"], last["path"], last["uid"], last["pid"]) == (
            "WRITE",
            "/f",
            None,
            None,
        )
        assert (made.mount.source / "f").read_bytes() == b"DATA"
