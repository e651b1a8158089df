"""Directory listings, and permission to search, to list and to change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import TEAM, USER
from support.sizing import STRESS

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
# More than one call of getdents takes (32 KiB in glibc).
_MANY = 5000 if STRESS else 1200
_NEW = range(5000, 5000 + _MANY // 2)


def kinds_and_numbers(stage: Stage) -> None:
    root = stage.client("root")
    root.mkdir(b"d")
    root.write_file(b"d/file", b"")
    root.mkdir(b"d/dir")
    root.symlink(b"x", b"d/link")
    root.link(b"d/file", b"d/hard")
    for number, kind in enumerate((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)):
        root.mknod(b"d/special-%d" % number, kind | 0o600, os.makedev(1, 3))
    for client in stage.clients(*PEOPLE):
        client.listing(b"d/dir")
    root.listing(b"d")
    root.listdir(b"d/file")
    root.listdir(b"nothing")
    root.rename(b"d/file", b"d/dir/file")
    root.listing(b"d")
    root.listing(b"d/dir")


def many_entries(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.mkdir(b"d")
    user.fill_directory(b"d", _MANY)
    member.listdir(b"d")
    member.open_stream("s", b"d")
    member.stream_names("s")
    member.stream_names("s")
    member.stream_rewind("s")
    member.stream_names("s")
    member.stream_rewind("s")
    for count in (1, 2, 100, _MANY // 2):
        member.stream_seeks_back("s", count)
        member.stream_rewind("s")
        member.stream_skip("s", 50)
    user.rmdir(b"d")
    member.listing(b"d")


def changed_meanwhile(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.mkdir(b"d")
    user.fill_directory(b"d", _MANY)
    member.open_stream("s", b"d")
    with stage.aside():  # what it sees of the changes is the filesystem's choice
        first = member.call("stream_part", "s", _MANY // 4)
        for number in range(0, _MANY, 2):
            user.unlink(b"d/entry-%05d" % number)
        user.fill_directory(b"d", len(_NEW), _NEW.start)
        rest = member.call("stream_part", "s", 1 << 20)
    names = first + rest
    stage.note("no entry twice", len(names) == len(set(names)))
    kept = {b"entry-%05d" % number for number in range(1, _MANY, 2)}
    stage.note("what stayed is there", kept <= set(names))
    known = kept | {b"entry-%05d" % number for number in (*range(_MANY), *_NEW)}
    stage.note("nothing made up", set(names) <= known | {b".", b".."})
    member.stream_rewind("s")
    member.stream_names("s")
    user.write_file(b"d/at-once", b"")
    user.unlink(b"d/entry-00001")
    member.stream_rewind("s")
    member.stream_names("s")
    for number in range(3, _MANY, 2):
        user.unlink(b"d/entry-%05d" % number)
    for number in _NEW:
        user.unlink(b"d/entry-%05d" % number)
    member.stream_rewind("s")
    member.stream_names("s")
    user.unlink(b"d/at-once")
    user.rmdir(b"d")
    member.stream_rewind("s")
    member.stream_names("s")


def removed_while_open(stage: Stage) -> None:
    user = stage.client("user")
    user.mkdir(b"d")
    user.open("d", b"d", os.O_RDONLY | os.O_DIRECTORY)
    user.enter(b"d")
    user.rmdir(b"../d")
    user.listdir(b".")
    user.lstat(b".")
    user.fstat("d")
    user.write_file(b"new", b"")
    user.mkdir(b"new")
    user.lstat(b"..")
    user.fsync("d")


def permission(stage: Stage) -> None:
    root = stage.client("root")
    for owner, group in ((0, 0), (USER, USER), (USER, TEAM), (0, TEAM)):
        for mode in (0o000, 0o700, 0o070, 0o007, 0o711, 0o744, 0o755, 0o770, 0o333, 0o1777, 0o555):
            home = b"%d-%d-%o" % (owner, group, mode)
            root.mkdir(home)
            root.write_file(home + b"/f", b"data", mode & 0o777)
            root.mkdir(home + b"/sub")
            for path in (home + b"/f", home):
                root.chown(path, owner, group)
            root.chmod(home, mode)
            for client in stage.clients(*PEOPLE):
                for path in (home, home + b"/f", home + b"/sub", home + b"/no"):
                    for wanted in range(8):
                        client.access(path, wanted)
                    client.access_effective(path, os.W_OK)
                    client.access_effective(path, os.R_OK, False)
                client.listdir(home)
                client.lstat(home + b"/f")
                client.read_file(home + b"/f")
                client.open("f", home + b"/f", os.O_WRONLY)
                client.discard("f")
                client.write_file(home + b"/new-" + client.name.encode(), b"x")
                client.unlink(home + b"/new-" + client.name.encode())
                client.rename(home + b"/sub", home + b"/bus")
                client.rename(home + b"/bus", home + b"/sub")
                client.enter(home)
                client.enter(b"..")


def permission_changed_meanwhile(stage: Stage) -> None:
    root, user = stage.clients("root", "user")
    root.mkdir(b"d")
    root.write_file(b"d/f", b"data")
    for mode in (0o755, 0o700, 0o711, 0o744, 0o755):
        root.chmod(b"d", mode)
        user.listdir(b"d")
        user.read_file(b"d/f")
        user.access(b"d", os.X_OK)
    for mode in (0o644, 0o600, 0o604, 0o606, 0o600):
        root.chmod(b"d/f", mode)
        user.read_file(b"d/f")
        user.open("f", b"d/f", os.O_WRONLY)
    root.chown(b"d/f", USER, USER)
    user.read_file(b"d/f")


def filesystem_facts(stage: Stage) -> None:
    for client in stage.clients("root", "user"):
        client.filesystem(b".")


@pytest.mark.parametrize(
    "scenario",
    [
        kinds_and_numbers,
        many_entries,
        changed_meanwhile,
        removed_while_open,
        permission,
        permission_changed_meanwhile,
        filesystem_facts,
    ],
)
def test_listing(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
