"""A whole filesystem, by fanotify(7): events name inodes and directories by their file handles.

An event is a ``struct fanotify_event_metadata`` and, after it, records of which each has a
``struct fanotify_event_info_header``: one names the inode, one a directory and a name in it
(linux/fanotify.h). Handles are those of name_to_handle_at(2), so they lead straight to inodes
that are known.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

from inopt.backing.filesystems import Filesystem
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.backing.watch import calls
from inopt.backing.watch.changes import ATTRIBUTES, NAME, Changes
from inopt.wire.attributes import Attributes

# Stores into mappings are not told of, but that the file is closed which was mapped.
_DATA: Final = calls.MODIFY | calls.CLOSE_WRITE
_LED: Final = calls.DELETE | calls.MOVED_FROM | calls.MOVED_TO
_NAMES: Final = _LED | calls.CREATE
_MOVED: Final = calls.MOVED_FROM | calls.MOVED_TO
MASK: Final = _DATA | _NAMES | calls.ATTRIB

_METADATA: Final = struct.Struct("<IBBHQii")  # length, version, -, its own length, mask, fd, thread
_RECORD: Final = struct.Struct("<BBH8xI")  # type, -, length; filesystem id; length of the handle
_HANDLE: Final = 12  # where it begins in a record
_HANDLE_HEAD: Final = 8
_VERSION: Final = 3
_OF_INODE: Final = 1
_OF_NAME: Final = 2
_LARGEST_READ: Final = 256 << 10
_LARGEST_EVENT: Final = 1 << 10
_MOST_READS: Final = 16  # some 40,000 events: more than the queue holds

Event: TypeAlias = tuple[int, int, bytes, bytes, bytes]
"""Its mask; the thread; the handle of the inode, that of a directory, and a name in that."""


def parse(events: bytes) -> Iterator[Event]:
    """Take apart what was read. Raises `ValueError` for what is not known to be an event."""
    at, end = 0, len(events)
    while at < end:
        length, version, _, head, mask, _, thread = _metadata(events, at)
        following = at + length
        if version != _VERSION or head < _METADATA.size or length < head or following > end:
            raise ValueError(f"not an event: version {version}, length {length}")
        inode = directory = name = b""
        at += head
        while at < following:
            kind, _, length, of_handle = _record(events, at, following)
            handle_end = at + _HANDLE + _HANDLE_HEAD + of_handle
            record_end = at + length
            if handle_end > record_end or record_end > following:
                raise ValueError(f"not a record: type {kind}, length {length}")
            if kind == _OF_INODE:
                inode = events[at + _HANDLE : handle_end]
            elif kind == _OF_NAME:
                directory = events[at + _HANDLE : handle_end]
                name = events[handle_end : events.index(0, handle_end, record_end)]
            at = record_end
        yield mask, thread, inode, directory, name


def _metadata(events: bytes, at: int) -> tuple[int, ...]:
    if at + _METADATA.size > len(events):
        raise ValueError("an event is cut off")
    return _METADATA.unpack_from(events, at)


def _record(events: bytes, at: int, end: int) -> tuple[int, ...]:
    if at + _RECORD.size > end:
        raise ValueError("a record is cut off")
    return _RECORD.unpack_from(events, at)


def gather(
    events: Iterator[Event], known: dict[bytes, Inode], own: Collection[int], changes: Changes
) -> None:
    """Add to *changes* what *events* say about *known* inodes (by handle).

    *own*: threads whose changes the kernel knows of already.
    """
    find = known.get
    for mask, thread, handle, beneath, name in events:
        changes.events += 1
        if mask & calls.OVERFLOW:
            changes.lost = True
            continue
        if thread in own:
            changes.own += 1
            continue
        inode = find(handle)
        if inode is not None:
            changes.touch(inode, data=bool(mask & _DATA))
            if mask & calls.CREATE and not inode.is_directory:
                changes.linked.add(inode)
        directory = find(beneath)
        if mask & _MOVED and mask & calls.ON_DIRECTORY:
            changes.moved = changes.moved or inode is not None or directory is not None
        if directory is None:
            continue
        if mask & _NAMES:
            changes.touch(directory)
            changes.rename(directory, name, led=bool(mask & _LED))
        elif name == b".":
            changes.touch(directory)


class Fanotify:
    """A watch of the filesystem that the tree's root is on. Raises `OSError` if it cannot be had.

    The tree must have file handles. What is below on other mounts is not covered.
    """

    kind = "fanotify"

    def __init__(self, tree: Tree) -> None:
        self.descriptor = calls.fanotify_init()
        try:
            calls.fanotify_mark_filesystem(self.descriptor, tree.root.descriptor, MASK)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._filesystem: Filesystem = tree.root.filesystem
        self._table = tree.table
        self._known = self._table.index()

    def read(self, own: Collection[int]) -> Changes:
        """What has changed since the last call; does not wait."""
        changes = Changes()
        for _ in range(_MOST_READS):
            try:
                events = os.read(self.descriptor, _LARGEST_READ)
            except BlockingIOError:
                break
            gather(parse(events), self._known, own, changes)
            if len(events) < _LARGEST_READ - _LARGEST_EVENT:
                break
        return changes

    def covers(self, inode: Inode, attributes: Attributes) -> int:  # noqa: ARG002
        """Everything of inodes that are known by a handle of the filesystem."""
        if inode.filesystem is self._filesystem and inode.handle:
            return NAME | ATTRIBUTES
        return 0

    def approach(self, directory: Inode) -> None:
        """All directories are watched."""

    def meet(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Names come with the events."""

    def forget(self, inode: Inode) -> None:
        """The table knows which inodes are known."""

    def facts(self) -> dict[str, int]:
        """Nothing but what all watches have."""
        return {}

    def close(self) -> None:
        """End the watch."""
        self._table.unindex()
        os.close(self.descriptor)
        self.descriptor = -1
