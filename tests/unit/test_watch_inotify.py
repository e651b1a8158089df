"""A watch by directory: real inotify on a tree, without a mount."""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.backing.watch import calls
from inopt.backing.watch.changes import ATTRIBUTES, NAME, Changes
from inopt.backing.watch.inotify import Inotify, parse

BOTH = NAME | ATTRIBUTES


class Watched:
    """A tree with a watch, and the kernel's part: looking up and forgetting."""

    def __init__(self, source: Path, budget: int) -> None:
        self.source = source
        self.woken = 0
        self.tree = Tree(str(source), 256)
        self.watch = self.tree.watch = Inotify(self.tree, budget, self._wake)
        self.changes()

    def _wake(self) -> None:
        self.woken += 1

    def find(self, path: str) -> Inode:
        """Look every name of *path* up, and tell the kernel."""
        inode = self.tree.root
        for name in path.encode().split(b"/"):
            parent = inode
            inode, _ = self.tree.resolve(parent, name)
            self.watch.meet(parent, name, inode)
        return inode

    def covers(self, path: str) -> int:
        inode = self.find(path)
        return self.watch.covers(inode, self.tree.attributes(inode))

    def changes(self) -> Changes:
        select.select([self.watch.descriptor], [], [], 0.05)
        return self.watch.read(())


@pytest.fixture
def watched(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    for number in range(12):
        (tmp_path / f"dir{number}").mkdir()
        (tmp_path / f"dir{number}" / "file").write_text("file")
    made = Watched(tmp_path, getattr(request, "param", 100))
    yield made
    made.tree.close()


def test_events_are_taken_apart() -> None:
    raw = struct.pack("<iIII", 7, calls.CREATE, 0, 16) + b"name".ljust(16, b"\0")
    own = struct.pack("<iIII", -1, calls.OVERFLOW, 0, 0)
    assert list(parse(raw + own)) == [(7, calls.CREATE, b"name"), (-1, calls.OVERFLOW, b"")]
    for cut in (raw[:10], raw[:-1], own[:-1]):
        with pytest.raises(ValueError, match="cut off"):
            list(parse(cut))


def test_changes_of_what_is_known(watched: Watched) -> None:
    below, directory, file = (
        watched.source / "dir0",
        watched.find("dir0"),
        watched.find("dir0/file"),
    )
    watched.changes()
    (below / "file").chmod(0o600)
    assert watched.changes().inodes == {file: False}
    with (below / "file").open("a") as stream:
        stream.write("more")
    assert watched.changes().inodes == {file: True}
    below.chmod(0o700)
    assert watched.changes().inodes == {directory: False}
    (below / "new").write_text("new")
    changes = watched.changes()
    assert changes.inodes == {directory: False}
    assert changes.names == {(directory, b"new"): False}
    assert changes.linked == set()
    os.link(below / "file", below / "other")
    changes = watched.changes()
    assert changes.inodes == {directory: False, file: False}
    assert changes.linked == {file}
    assert watched.covers("dir0/file") == 0, "a file with two names can change by either"
    (below / "other").unlink()
    assert watched.changes().names == {(directory, b"other"): True}
    assert watched.covers("dir0/file") == BOTH


def test_what_is_renamed_is_not_believed(watched: Watched) -> None:
    first, second = watched.find("dir0"), watched.find("dir1")
    moved, replaced = watched.find("dir0/file"), watched.find("dir1/file")
    watched.changes()
    (watched.source / "dir0" / "file").rename(watched.source / "dir1" / "file")
    changes = watched.changes()
    assert changes.names == {(first, b"file"): True, (second, b"file"): True}
    assert changes.inodes == {first: False, second: False, moved: False, replaced: False}
    assert not changes.moved
    for inode in (moved, replaced):
        assert watched.watch.covers(inode, watched.tree.attributes(moved)) == 0
    assert watched.covers("dir1/file") == BOTH, "after the next lookup it is"
    (watched.source / "dir2").rename(watched.source / "elsewhere")
    assert watched.changes().moved


def test_what_is_covered(watched: Watched) -> None:
    root = watched.tree.root
    assert watched.watch.covers(root, watched.tree.attributes(root)) == ATTRIBUTES
    assert watched.covers("dir0") == NAME, "nothing in it has been looked at"
    assert watched.covers("dir0/file") == BOTH
    assert watched.covers("dir0") == BOTH
    nameless = os.open(watched.source, os.O_TMPFILE | os.O_RDWR)
    inode, attributes = watched.tree.adopt_open(nameless)
    assert watched.watch.covers(inode, attributes) == 0
    os.close(nameless)


def test_what_was_said_before_a_watch_began(watched: Watched) -> None:
    directory = watched.find("dir0")
    assert watched.changes().inodes == {}
    before = watched.woken
    watched.find("dir0/file")
    assert watched.woken == before + 1
    assert watched.changes().inodes == {directory: False}


@pytest.mark.parametrize("watched", [8], indirect=True)
def test_the_least_recently_used_is_given_up(watched: Watched) -> None:
    files = [watched.find(f"dir{number}/file") for number in range(7)]
    directories = [watched.find(f"dir{number}") for number in range(7)]
    assert watched.watch.facts() == {"watched_directories": 8, "watch_budget": 8}
    watched.changes()
    watched.find("dir0/file")  # no longer the oldest
    watched.find("dir7/file")
    assert watched.watch.facts()["watched_directories"] == 8
    changes = watched.changes()
    assert changes.expired == {(directories[1], b"file")}
    assert {files[1], directories[1]} <= set(changes.inodes)
    attributes = watched.tree.attributes(files[1])
    assert watched.watch.covers(files[1], attributes) == 0
    assert watched.watch.covers(files[0], attributes) == BOTH
    (watched.source / "dir1" / "file").chmod(0o600)
    (watched.source / "dir0" / "file").chmod(0o600)
    assert watched.changes().inodes == {files[0]: False}
    assert watched.covers("dir1/file") == BOTH, "used again, it is watched again"
    (watched.source / "dir1" / "file").chmod(0o644)
    assert files[1] in watched.changes().inodes


def test_where_others_use_the_limit_up(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.find("dir0/file")
    watched.find("dir1/file")
    watched.changes()
    add = calls.inotify_add
    refused: list[int] = []

    def full(descriptor: int, directory: int, mask: int) -> int:
        if not refused:
            refused.append(directory)
            raise OSError(28, "No space left on device")
        return add(descriptor, directory, mask)

    monkeypatch.setattr(calls, "inotify_add", full)
    assert watched.covers("dir2/file") == BOTH
    assert watched.watch.budget == 3
    assert watched.covers("dir0/file") == BOTH

    def always_full(*_: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calls, "inotify_add", always_full)
    assert watched.covers("dir3/file") == 0, "not watched: not covered"


def test_forgetting_ends_a_watch(watched: Watched) -> None:
    for _ in range(3):
        file, directory = watched.find("dir0/file"), watched.find("dir0")
        assert watched.watch.facts()["watched_directories"] == 2
        watched.tree.forget(file.nodeid, file.lookups)
        watched.tree.forget(directory.nodeid, directory.lookups)
        assert watched.watch.facts()["watched_directories"] == 1
        watched.changes()
        (watched.source / "dir0" / "file").touch()
        assert watched.changes().inodes == {}


def test_a_directory_that_is_removed(watched: Watched) -> None:
    directory, file = watched.find("dir0"), watched.find("dir0/file")
    watched.changes()
    (watched.source / "dir0" / "file").unlink()
    watched.tree.descriptors.drop(directory.nodeid)  # which would keep it
    watched.tree.descriptors.close_retired()
    (watched.source / "dir0").rmdir()
    changes = watched.changes()
    assert changes.names == {(directory, b"file"): True, (watched.tree.root, b"dir0"): True}
    assert {directory, file, watched.tree.root} <= set(changes.inodes)
    assert watched.watch.facts()["watched_directories"] == 1
    (watched.source / "dir0").mkdir()
    (watched.source / "dir0" / "file").touch()
    watched.changes()
    assert watched.covers("dir0/file") == BOTH


def test_what_is_lost(watched: Watched) -> None:
    file = watched.find("dir0/file")
    attributes = watched.tree.attributes(file)
    watched.changes()
    changes = Changes()
    watched.watch._take(-1, calls.OVERFLOW, b"", changes, [])
    assert changes.lost
    assert watched.watch.covers(file, attributes) == 0, "nobody knows where it is by now"
    assert watched.covers("dir0/file") == BOTH


def test_the_parent_by_dots_is_no_child(watched: Watched) -> None:
    file = watched.find("dir0/file")
    watched.watch.meet(file, b"x", file)
    assert watched.watch.covers(file, watched.tree.attributes(file)) == BOTH
    watched.watch.meet(watched.find("dir0"), b"..", watched.tree.root)
    root = watched.tree.root
    assert watched.watch.covers(root, watched.tree.attributes(root)) == ATTRIBUTES


def test_after_the_end(watched: Watched) -> None:
    watched.tree.close()
    watched.watch.approach(watched.tree.root)
    watched.watch.forget(watched.tree.root)
    watched.tree = Tree(str(watched.source), 256)
