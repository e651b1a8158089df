"""Backing ids are kept for a while after the last release, of files that stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inopt.backing.attach import Attachments
from inopt.backing.filesystems import Filesystem
from inopt.backing.inodes import Inode
from inopt.backing.kept import LIMIT


class Ids:
    """Stands for the kernel: gives ids, and has those back that it is given."""

    def __init__(self, path: Path) -> None:
        self.given: list[int] = []
        self.returned: list[int] = []
        self.stays = True
        path.write_text("")
        self.descriptor = os.open(path, os.O_RDONLY)
        self.attachments = Attachments(
            self.register, self.returned.append, stays=lambda _inode: self.stays
        )

    def register(self, inode: Inode, descriptor: int) -> int:
        assert descriptor == self.descriptor
        self.given.append(100 + len(self.given))
        return self.given[-1]

    def open(self, inode: Inode) -> int:
        return self.attachments.opened(
            inode, self.descriptor, writes=False, bypasses=True, joins=False
        )


@pytest.fixture
def ids(tmp_path: Path) -> Iterator[Ids]:
    made = Ids(tmp_path / "file")
    yield made
    os.close(made.descriptor)


def inode(nodeid: int = 7) -> Inode:
    return Inode(nodeid, nodeid, Filesystem(1, 0, 0, -1), b"handle")


def test_opened_again(ids: Ids) -> None:
    file, attachments = inode(), ids.attachments
    assert attachments.opened_again(file) == 0
    assert ids.open(file) == 100
    assert attachments.opened_again(file) == 100, "while it is open"
    for _ in range(2):
        attachments.released(file)
    assert attachments.backing_id(file) == 0, "nobody has it open"
    assert (ids.given, ids.returned, attachments.registered) == ([100], [], 1)
    assert attachments.opened_again(file) == attachments.backing_id(file) == 100
    attachments.released(file)
    assert attachments.opened_again(file) == 100
    assert (ids.given, ids.returned, attachments.registered) == ([100], [], 1)


def test_what_does_not_stay_is_given_back(ids: Ids) -> None:
    ids.stays = False
    file = inode()
    ids.open(file)
    ids.attachments.released(file)
    assert (ids.returned, ids.attachments.registered) == ([100], 0)
    assert ids.attachments.opened_again(file) == 0


def test_let_go(ids: Ids) -> None:
    file, attachments = inode(), ids.attachments
    ids.open(file)
    attachments.let_go(file)
    assert ids.returned == [], "it is open"
    attachments.released(file)
    attachments.let_go(file)
    attachments.let_go(file)
    assert (ids.returned, attachments.registered) == ([100], 0)
    assert attachments.opened_again(file) == 0


def test_another_inode_of_the_same_number(ids: Ids) -> None:
    earlier, later = inode(), inode()
    ids.open(earlier)
    ids.attachments.released(earlier)
    assert ids.attachments.opened_again(later) == 0
    assert ids.open(later) == 101
    ids.attachments.released(later)
    assert ids.returned == [100], "one for each number"
    assert ids.attachments.opened_again(earlier) == 0
    assert ids.attachments.opened_again(later) == 101


def test_opened_otherwise_while_an_id_is_kept(ids: Ids) -> None:
    """By somebody who writes, say: that open decides for itself."""
    file = inode()
    ids.open(file)
    ids.attachments.released(file)
    assert ids.open(file) == 101
    ids.attachments.released(file)
    assert (ids.returned, ids.attachments.registered) == ([100], 1)


def test_those_that_were_given_back_last_are_kept(ids: Ids) -> None:
    files = [inode(nodeid) for nodeid in range(2, LIMIT + 12)]
    for file in files:
        ids.open(file)
        ids.attachments.released(file)
    assert ids.attachments.registered == LIMIT
    assert ids.returned == ids.given[:10]
    assert ids.attachments.opened_again(files[9]) == 0
    assert ids.attachments.opened_again(files[10]) == ids.given[10]
