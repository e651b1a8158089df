"""Events of fanotify: captured and made ones, and what becomes of them."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inopt.backing.filesystems import Filesystem
from inopt.backing.inodes import ROOT_NODEID, Inode, InodeTable
from inopt.backing.watch import calls
from inopt.backing.watch.changes import Changes
from inopt.backing.watch.fanotify import Event, gather, parse

THREAD = 18496
A_TXT = bytes.fromhex("0800000001000000020018001f062700")
FOLDER = bytes.fromhex("08000000010000000100180099edae9e")
SUB = bytes.fromhex("080000000100000003001800571de7a8")
# What Linux 6.18 said of an ext4: open(O_CREAT); write and close; link; chmod of a directory;
# mkdir, and a rename into it; the queue's end.
CREATED = bytes.fromhex(
    "58000000030018000001000000000000ffffffff404800000200240071b79595e4b97ede0800000001000000"
    "0100180099edae9e612e74787400000001001c0071b79595e4b97ede0800000001000000020018001f062700"
)
WRITTEN = bytes.fromhex(
    "58000000030018000a00000000000000ffffffff404800000200240071b79595e4b97ede0800000001000000"
    "0100180099edae9e612e74787400000001001c0071b79595e4b97ede0800000001000000020018001f062700"
)
LINKED = bytes.fromhex(
    "34000000030018000400000000000000ffffffff4048000001001c0071b79595e4b97ede0800000001000000"
    "020018001f06270054000000030018000001000000000000ffffffff404800000200200071b79595e4b97ede"
    "08000000010000000100180099edae9e6200000001001c0071b79595e4b97ede0800000001000000020018001f"
    "062700"
)
CHMOD_OF_A_DIRECTORY = bytes.fromhex(
    "38000000030018000400004000000000ffffffff404800000200200071b79595e4b97ede0800000001000000"
    "0100180099edae9e2e000000"
)
MKDIR_AND_RENAME = bytes.fromhex(
    "54000000030018000001004000000000ffffffff404800000200200071b79595e4b97ede0800000001000000"
    "0100180099edae9e7375620001001c0071b79595e4b97ede080000000100000003001800571de7a8"
    "54000000030018004000000000000000ffffffff404800000200200071b79595e4b97ede0800000001000000"
    "0100180099edae9e6200000001001c0071b79595e4b97ede0800000001000000020018001f062700"
    "64000000030018008000000000000000ffffffff404800000200300071b79595e4b97ede0800000001000000"
    "03001800571de7a86c6f6e67206e616d65206f6620612066696c650001001c0071b79595e4b97ede08000000"
    "01000000020018001f062700"
)
OVERFLOW = bytes.fromhex("18000000030018000040000000000000ffffffff00000000")


def record(kind: int, handle: bytes, name: bytes | None = None) -> bytes:
    content = b"\x11" * 8 + handle + (b"" if name is None else name + b"\0")
    content += bytes(-(len(content) + 4) % 4)
    return struct.pack("<BBH", kind, 0, 4 + len(content)) + content


def event(mask: int, *records: bytes, thread: int = THREAD) -> bytes:
    body = b"".join(records)
    return struct.pack("<IBBHQii", 24 + len(body), 3, 0, 24, mask, -1, thread) + body


def test_captured_events() -> None:
    assert list(parse(b"")) == []
    assert list(parse(CREATED)) == [(calls.CREATE, THREAD, A_TXT, FOLDER, b"a.txt")]
    both = calls.MODIFY | calls.CLOSE_WRITE
    assert list(parse(WRITTEN)) == [(both, THREAD, A_TXT, FOLDER, b"a.txt")]
    assert list(parse(LINKED)) == [
        (calls.ATTRIB, THREAD, A_TXT, b"", b""),
        (calls.CREATE, THREAD, A_TXT, FOLDER, b"b"),
    ]
    of_itself = calls.ATTRIB | calls.ON_DIRECTORY
    assert list(parse(CHMOD_OF_A_DIRECTORY)) == [(of_itself, THREAD, b"", FOLDER, b".")]
    assert list(parse(MKDIR_AND_RENAME)) == [
        (calls.CREATE | calls.ON_DIRECTORY, THREAD, SUB, FOLDER, b"sub"),
        (calls.MOVED_FROM, THREAD, A_TXT, FOLDER, b"b"),
        (calls.MOVED_TO, THREAD, A_TXT, SUB, b"long name of a file"),
    ]
    assert list(parse(WRITTEN + OVERFLOW)) == [
        (both, THREAD, A_TXT, FOLDER, b"a.txt"),
        (calls.OVERFLOW, 0, b"", b"", b""),
    ]


handles = st.binary(min_size=1, max_size=128).map(lambda raw: struct.pack("<Ii", len(raw), 1) + raw)
names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)


@given(
    st.lists(st.tuples(st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 22), handles, handles,
                       names, st.booleans()), max_size=6)
)  # fmt: skip
def test_made_events(made: list[tuple[int, int, bytes, bytes, bytes, bool]]) -> None:
    raw = b""
    expected: list[Event] = []
    for mask, thread, inode, directory, name, further in made:
        records = [record(2, directory, name), record(1, inode)]
        if further:  # of a kind that a later kernel may add
            records.insert(1, record(9, inode))
        raw += event(mask, *records, thread=thread)
        expected.append((mask, thread, inode, directory, name))
    assert list(parse(raw)) == expected
    for end in range(1, len(raw)):
        try:
            found = list(parse(raw[:end]))
        except ValueError:
            continue
        assert found == expected[: len(found)], "what is cut off is no other event"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x18",
        OVERFLOW[:20],
        OVERFLOW[:4] + b"\x04" + OVERFLOW[5:],  # another version
        bytes(4) + OVERFLOW[4:],  # of no length: it would never end
        CREATED[:-1],
        CREATED[:26] + b"\x00\x00" + CREATED[28:],  # a record of no length
        CREATED[:26] + b"\xff\xff" + CREATED[28:],
        CREATED[:36] + b"\xff\xff\xff\xff" + CREATED[40:],  # a handle longer than its record
    ],
)
def test_what_is_no_event(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an event|not a record|cut off"):
        list(parse(raw))


@given(st.binary(max_size=200), st.binary(max_size=60), st.integers(0, 200))
def test_garbage_ends(garbage: bytes, middle: bytes, at: int) -> None:
    for raw in (garbage, CREATED[:at] + middle + CREATED[at:]):
        with suppress(ValueError):
            assert len(list(parse(raw))) <= len(raw) // 24


def table_of(*handles: tuple[int, bytes, bool]) -> InodeTable:
    """A table that knows inodes by number, handle, and whether they are directories."""
    filesystem = Filesystem(10, 8, 1, -1)
    root = Inode(ROOT_NODEID, 2, filesystem, b"the root's", is_directory=True)
    table = InodeTable(root)
    table.index()
    for number, handle, is_directory in handles:
        table.adopt((10, 8, 1, number), filesystem, handle, -1, is_directory=is_directory)
    return table


def gathered(raw: bytes, table: InodeTable, own: set[int] | None = None) -> Changes:
    changes = Changes()
    gather(parse(raw), table.index(), own or set(), changes)
    return changes


def test_what_changes_are_about() -> None:
    table = table_of((100, A_TXT, False), (101, FOLDER, True), (102, SUB, True))
    file, folder, sub = (table.get(number) for number in (100, 101, 102))
    changes = gathered(WRITTEN, table)
    assert changes.inodes == {file: True}
    assert not changes.names
    changes = gathered(CREATED, table)
    assert changes.inodes == {file: False, folder: False}
    assert changes.names == {(folder, b"a.txt"): False}
    changes = gathered(LINKED, table)
    assert changes.inodes == {file: False, folder: False}
    assert changes.names == {(folder, b"b"): False}
    assert changes.linked == {file}
    changes = gathered(CHMOD_OF_A_DIRECTORY, table)
    assert changes.inodes == {folder: False}
    assert not changes.names
    changes = gathered(MKDIR_AND_RENAME, table)
    assert changes.inodes == {file: False, folder: False, sub: False}
    moved = {(folder, b"b"): True, (sub, b"long name of a file"): True}
    assert changes.names == moved | {(folder, b"sub"): False}
    assert not changes.moved
    assert changes.events == 3


def test_what_comes_together_is_told_once() -> None:
    table = table_of((100, A_TXT, False), (101, FOLDER, True))
    file, folder = table.get(100), table.get(101)
    removed = event(calls.DELETE, record(2, FOLDER, b"a.txt"), record(1, A_TXT))
    changes = gathered(WRITTEN + CREATED + removed + CREATED + WRITTEN, table)
    assert changes.inodes == {file: True, folder: False}
    assert changes.names == {(folder, b"a.txt"): True}, "it has led somewhere in between"


def test_what_nobody_knows_and_what_is_known_already() -> None:
    table = table_of((100, A_TXT, False), (101, FOLDER, True))
    stranger = event(calls.CREATE, record(2, SUB, b"x"), record(1, SUB))
    changes = gathered(stranger + WRITTEN + CREATED, table, {THREAD})
    assert (changes.inodes, changes.names) == ({}, {})
    assert (changes.events, changes.own) == (3, 3)
    changes = gathered(stranger, table)
    assert (changes.inodes, changes.names) == ({}, {})
    assert (changes.events, changes.own) == (1, 0)


def test_a_moved_directory() -> None:
    table = table_of((101, FOLDER, True))
    mask = calls.MOVED_TO | calls.ON_DIRECTORY
    assert gathered(event(mask, record(2, FOLDER, b"x"), record(1, SUB)), table).moved
    assert gathered(event(mask, record(2, SUB, b"x"), record(1, FOLDER)), table).moved
    assert not gathered(event(mask, record(2, SUB, b"x"), record(1, A_TXT)), table).moved


def test_overflow() -> None:
    assert gathered(OVERFLOW, table_of()).lost
    assert gathered(OVERFLOW, table_of(), {0}).lost, "it is nobody's own"


def test_the_index_follows_the_table() -> None:
    table = table_of((100, A_TXT, False))
    other = Filesystem(11, 8, 1, -1)
    foreign, _ = table.adopt((11, 8, 1, 300), other, SUB, -1)
    index = table.index()
    assert index == {b"the root's": table.root, A_TXT: table.get(100)}
    table.forget(foreign.nodeid, 1)
    # The number is given to another inode while the earlier one is still known.
    newer, _ = table.adopt((10, 8, 1, 100), table.root.filesystem, FOLDER, -1)
    assert index[A_TXT] is not newer
    assert index[FOLDER] is newer
    table.forget(100, 1)
    assert set(index) == {b"the root's", FOLDER}
    table.unindex()
    assert table.by_handle is None
    table.adopt((10, 8, 1, 400), table.root.filesystem, SUB, -1)
    assert table.index() == {table.root.handle: table.root, FOLDER: newer, SUB: table.get(400)}
