"""Listings of directories that several layers make up."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Final

from inopt.backing.files import (
    DT_CHR,
    DT_DIR,
    DT_REG,
    DT_UNKNOWN,
    DirectoryEntry,
    OpenDirectory,
    read_entries,
)
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.layers.format import Format, is_whiteout, origin_number
from inopt.layers.stack import Layer
from inopt.layers.standing import standing_of
from inopt.layers.tree import LayeredTree
from inopt.wire.directory import DOTS

_NAME: Final = itemgetter(3)
_LISTING: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME | os.O_CLOEXEC


class MergedDirectory(OpenDirectory):
    """An open directory over layers.

    Of one that is in the upper layer alone, or where nothing is copied up, offsets are the layer's,
    as of any directory. Else the names are put together when the listing begins, and an offset is a
    place in that list until it is rewound. They are in an order of their own, which a copy-up does
    not change: the kernel keeps a part of a listing, does not hear of copies, and goes on.
    """

    __slots__ = (
        "_begun",
        "_impure",
        "_layer",
        "_list",
        "_lower",
        "_marked",
        "_merged",
        "_place",
        "_tree",
    )

    def __init__(self, tree: LayeredTree, inode: Inode, flags: int) -> None:
        super().__init__(inode, flags)
        self._tree = tree
        self._layer: Layer | None = None
        standing = standing_of(inode)
        # For good: only what has been put together already can get a part in the upper layer.
        can_change = tree.stack.has_upper and not standing.layer.is_upper
        self._lower = can_change or bool(standing.below)
        self._list: list[DirectoryEntry] = []
        self._merged: set[bytes] = set()
        self._begun = False
        self._place = 0
        self._marked = False
        self._impure = False

    def seek(self, offset: int) -> None:
        """Go to *offset*, one that an entry came with, or 0."""
        if offset == 0:
            self._begun = False
            if self._layer is not standing_of(self.inode).layer:
                self._refresh()  # it has got a part in the upper layer
            marks = self._tree.stack.format
            self._impure = marks.read(marks.impure, self.descriptor) is not None
        if self._lower:
            self._place = offset
        else:
            super().seek(offset)

    def _refresh(self) -> None:
        """Read from what the directory is made of now, not when it was opened."""
        if self.descriptor >= 0:
            self.close(self._tree)
            self.descriptor = -1
        self.open(self._tree)

    def open(self, tree: Tree) -> None:
        """Open the descriptor, if it is not yet. Raises `OSError`."""
        if self.descriptor >= 0:
            return
        self._layer = standing_of(self.inode).layer
        if not self._layer.is_upper:
            self._flags |= os.O_NOATIME
        super().open(tree)
        self._marked = self._tree.stack.format.opaqueness(self.descriptor) == b"x"

    @contextmanager
    def current(self, tree: Tree) -> Iterator[int]:
        """A descriptor of the directory's uppermost part, which may have come about since."""
        descriptor = tree.open(self.inode, _LISTING)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def entries(self, buffer: ctypes.Array[ctypes.c_char]) -> Iterator[DirectoryEntry]:
        """The entries from where it is on: (inode number, offset of the one behind it, type, name).

        An entry is gone past when the next one is asked for.
        """
        if not self._lower:
            yield from self._entries_alone(buffer)
            return
        if not self._begun:
            merged = merged_entries(self._tree, self.inode, self.descriptor, buffer)
            self._list, self._merged = merged
            self._begun = True
        while self._place < len(self._list):
            number, _, kind, name = self._list[self._place]
            yield number, self._place + 1, kind, name
            self._place += 1

    @property
    def tells_numbers(self) -> bool:
        """Always (`Layer.number`), but for what is on other devices than its layer's root."""
        return True

    @property
    def at_hand(self) -> int:
        """How many entries have been read at once."""
        return len(self._list) if self._lower else super().at_hand

    def _entries_alone(self, buffer: ctypes.Array[ctypes.c_char]) -> Iterator[DirectoryEntry]:
        marks, marked = self._tree.stack.format, self._marked
        suspects, layer = _suspects(marked), standing_of(self.inode).layer
        for entry in super().entries(buffer):
            if entry[2] in suspects and _is_whiteout(marks, self.descriptor, entry, marked=marked):
                continue
            yield _as_called(layer, entry) if layer.device_index else entry

    def number(self, name: bytes, number: int) -> int:
        """The inode number that stat(2) tells, also of what has been copied up."""
        if name == b".":
            return self.inode.number
        if name == b"..":
            parent = standing_of(self.inode).parent
            return number if parent is None else parent.number
        if name in self._merged:
            # Whether it goes on in lower layers, and so has their number, a lookup tells.
            with suppress(OSError):
                return self._tree.number_of(self.inode, name)
        if not standing_of(self.inode).layer.is_upper:
            return number
        marks, top = self._tree.stack.format, self._tree.stack.top
        key = (top.key_mount, *top.device, number)
        known = self._tree.table.find(key)
        if known is not None:
            return known.number
        if self._tree.has_twin(key):
            with suppress(OSError):
                return self._tree.number_of(self.inode, name)
        if self._impure:
            with suppress(OSError):  # it is a lower layer that has it
                origin = origin_number(marks.read(marks.origin, self.descriptor, name), top.uuid)
                return origin if origin > 0 else number
        return number


def _suspects(marked: bool) -> tuple[int, ...]:
    """The types of what may say that a name is no more, in a directory that is *marked* or not."""
    return (DT_CHR, DT_UNKNOWN, DT_REG) if marked else (DT_CHR, DT_UNKNOWN)


def _is_whiteout(marks: Format, directory: int, entry: DirectoryEntry, *, marked: bool) -> bool:
    """Whether an entry that is suspected says that its name is no more."""
    name = entry[3]
    try:
        attributes = attributes_of(directory, name)
    except OSError:
        return False  # gone meanwhile
    if is_whiteout(attributes):
        return True
    return marked and not attributes.size and marks.has(marks.whiteout, directory, name)


def merged_entries(
    tree: LayeredTree, inode: Inode, descriptor: int, buffer: ctypes.Array[ctypes.c_char]
) -> tuple[list[DirectoryEntry], set[bytes]]:
    """What a directory of several layers has: each name once, in order. Offsets mean nothing.

    And the names of directories that several layers have: they may be one.
    *descriptor*: of its topmost part, open for reading; *buffer*: for getdents64(2).
    """
    marks = tree.stack.format
    places: dict[bytes, DirectoryEntry | None] = {}
    merged: set[bytes] = set()
    standing = standing_of(inode)
    _merge(marks, descriptor, _entries_of(standing.layer, descriptor, buffer), places, merged)
    for part in standing.below:
        lower = tree.open(part.inode, _LISTING)
        try:
            _merge(marks, lower, _entries_of(part.layer, lower, buffer), places, merged)
        finally:
            os.close(lower)
    shown = [entry for entry in places.values() if entry is not None]
    shown.sort(key=_NAME)
    return shown, merged


def _entries_of(
    layer: Layer, descriptor: int, buffer: ctypes.Array[ctypes.c_char]
) -> list[DirectoryEntry]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    entries: list[DirectoryEntry] = []
    while more := read_entries(descriptor, buffer):
        entries += more
    return [_as_called(layer, entry) for entry in entries] if layer.device_index else entries


def _as_called(layer: Layer, entry: DirectoryEntry) -> DirectoryEntry:
    return (layer.number(entry[0]), *entry[1:])


def _merge(
    marks: Format,
    directory: int,
    entries: list[DirectoryEntry],
    places: dict[bytes, DirectoryEntry | None],
    merged: set[bytes],
) -> None:
    """Add the names of one more layer further down to those above it; None marks a whiteout."""
    marked = marks.opaqueness(directory) == b"x"
    suspects = _suspects(marked)
    for entry in entries:
        _, _, kind, name = entry
        if name not in places:
            hidden = kind in suspects and _is_whiteout(marks, directory, entry, marked=marked)
            places[name] = None if hidden else entry
        elif kind == DT_DIR and name not in DOTS:
            merged.add(name)


def has_entries(tree: LayeredTree, inode: Inode) -> bool:
    """Whether a directory shows any name."""
    buffer = ctypes.create_string_buffer(1 << 16)
    descriptor = tree.open(inode, _LISTING)
    try:
        entries, _ = merged_entries(tree, inode, descriptor, buffer)
    finally:
        os.close(descriptor)
    return any(entry[3] not in DOTS for entry in entries)
