"""Open files and directories by the handle that the kernel was given for them."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

from inopt import syscalls
from inopt.backing.inodes import FOREIGN, Inode
from inopt.backing.tree import Tree

# What a reopened descriptor must not repeat, or what only matters to whoever opened the file.
_ONCE: Final = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY | os.O_DIRECT | os.O_APPEND


_NAME_OFFSET: Final = 19  # of the name in linux_dirent64

# Inode number, offset of the entry behind it, type (DT_*), name.
DirectoryEntry: TypeAlias = tuple[int, int, int, bytes]
DT_UNKNOWN: Final = 0
DT_CHR: Final = stat.S_IFCHR >> 12
DT_DIR: Final = stat.S_IFDIR >> 12
DT_REG: Final = stat.S_IFREG >> 12


def may_store(flags: int) -> bool:
    """Whether a mapping of what is opened with *flags* of open(2) may change the file."""
    return flags & os.O_ACCMODE == os.O_RDWR


class OpenFile:
    """One open of a regular file.

    ``descriptor`` is -1 while nothing needs one: a bypassed open costs the daemon none.
    ``bypasses``: the kernel reads and writes by itself.
    ``groups`` are those with which its opener changes the file (`caller.groups_for`);
    ``reply_flags`` are the ``FOPEN_*`` flags it was answered with; ``user`` is the state of a
    user's handler. ``opener`` is who opened it, where requests do not tell who writes (pyfuse3).
    ``flocked``: it has a lock by flock(2).
    """

    __slots__ = (
        "bypasses",
        "descriptor",
        "flags",
        "flocked",
        "groups",
        "inode",
        "opener",
        "reply_flags",
        "user",
    )

    def __init__(
        self, inode: Inode, flags: int, descriptor: int, groups: tuple[int, ...] = ()
    ) -> None:
        self.inode = inode
        self.flags = flags
        self.descriptor = descriptor
        self.groups = groups
        self.bypasses = False
        self.reply_flags = 0
        self.user: Any = None
        self.opener: Any = None
        self.flocked = False

    @property
    def stores(self) -> bool:
        """Whether a mapping of it may change the file."""
        return may_store(self.flags)

    def fileno(self, tree: Tree) -> int:
        """A descriptor of the backing file with this open's access mode."""
        if self.descriptor < 0:
            self.descriptor = tree.open(self.inode, self.flags & ~_ONCE)
            tree.descriptors.held += 1
        return self.descriptor

    def any_fileno(self, tree: Tree) -> int:
        """A descriptor of the backing file for what needs no particular access mode (fsync).

        An open outlives what would forbid it now: the file may have become immutable since.
        """
        try:
            return self.fileno(tree)
        except OSError:
            self.descriptor = tree.open(self.inode, os.O_RDONLY)
            tree.descriptors.held += 1
            return self.descriptor

    def reopen(self, tree: Tree) -> None:
        """Go on with the file that the inode leads to now, unless the kernel has the earlier one.

        The earlier descriptor may be in use by another thread for the moment.
        """
        if self.descriptor >= 0 and not self.bypasses:
            earlier = self.descriptor
            self.descriptor = tree.open(self.inode, self.flags & ~_ONCE)
            tree.descriptors.retire(earlier)

    def close(self, tree: Tree) -> None:
        """Close the descriptor, if there is one."""
        if self.descriptor >= 0:
            tree.descriptors.held -= 1
            os.close(self.descriptor)
            self.descriptor = -1


class OpenDirectory:
    """One open directory: a backing descriptor of its own, so offsets are the backing's.

    Entries read from the backing directory but not yet sent are kept for the next request that
    goes on at their offset; any other offset (rewinddir, seekdir) reads afresh. ``names_only``:
    what is listed is not looked up as well; None until that is decided. ``reader``: who lists it,
    which belongs to `inopt.handlers.serve.looking`.
    """

    __slots__ = (
        "_entries",
        "_flags",
        "_next",
        "_position",
        "descriptor",
        "inode",
        "names_only",
        "reader",
    )

    def __init__(self, inode: Inode, flags: int) -> None:
        self.inode = inode
        self.descriptor = -1
        self.names_only: bool | None = None
        self.reader: Any = None
        self._flags = flags
        self._entries: list[DirectoryEntry] = []
        self._next = 0
        self._position = 0

    def open(self, tree: Tree) -> None:
        """Open the descriptor, if it is not yet. Raises `OSError`."""
        if self.descriptor >= 0:
            return
        tree.descriptors.hold()
        try:
            self.descriptor = tree.open(self.inode, self._flags)
        except BaseException:
            tree.descriptors.held -= 1
            raise

    @contextmanager
    def current(self, tree: Tree) -> Iterator[int]:
        """A descriptor of the directory for other things than to list it. Raises `OSError`."""
        self.open(tree)
        yield self.descriptor

    def seek(self, offset: int) -> None:
        """Go to *offset*, one that an entry came with, or 0."""
        if offset == 0 or offset != self._position:
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            self._entries.clear()
            self._next = 0
            self._position = offset

    def entries(self, buffer: ctypes.Array[ctypes.c_char]) -> Iterator[DirectoryEntry]:
        """The entries from where it is on: (inode number, offset of the one behind it, type, name).

        An entry is gone past when the next one is asked for. *buffer* is used for getdents64(2)
        when none is at hand.
        """
        while True:
            if self._next == len(self._entries):
                self._entries = read_entries(self.descriptor, buffer)
                self._next = 0
                if not self._entries:
                    return
            entry = self._entries[self._next]
            yield entry
            self._position = entry[1]
            self._next += 1

    @property
    def tells_numbers(self) -> bool:
        """Whether the inode numbers that it lists are those that lookups tell."""
        return self.inode.nodeid < FOREIGN

    @property
    def at_hand(self) -> int:
        """How many entries have been read at once."""
        return len(self._entries)

    def number(self, name: bytes, number: int) -> int:
        """What the inode number of an entry is told to be; *number*: what was read."""
        del name
        return number

    def close(self, tree: Tree) -> None:
        """Close the descriptor, if it is open."""
        if self.descriptor >= 0:
            tree.descriptors.held -= 1
            os.close(self.descriptor)


def read_entries(descriptor: int, buffer: ctypes.Array[ctypes.c_char]) -> list[DirectoryEntry]:
    """The next entries of an open directory, none at its end; *buffer*: for getdents64(2)."""
    return _parse(buffer, syscalls.getdents(descriptor, buffer))


def _parse(buffer: ctypes.Array[ctypes.c_char], filled: int) -> list[DirectoryEntry]:
    entries: list[DirectoryEntry] = []
    append = entries.append
    data = ctypes.string_at(buffer, filled)
    unpack, find = syscalls.DIRENT64.unpack_from, data.index
    start = 0
    while start < filled:
        inode, offset, length, kind = unpack(data, start)
        name = start + _NAME_OFFSET
        append((inode, offset, kind, data[name : find(0, name)]))
        start += length
    return entries


Opened = TypeVar("Opened", OpenFile, OpenDirectory)


class Handles(Generic[Opened]):
    """A table of open things by handle: a number that is never used twice."""

    __slots__ = ("_numbers", "_opened")

    def __init__(self) -> None:
        self._opened: dict[int, Opened] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._opened)

    def add(self, opened: Opened) -> int:
        """Keep *opened*; returns its handle."""
        handle = next(self._numbers)
        self._opened[handle] = opened
        return handle

    def get(self, handle: int) -> Opened:
        """What *handle* names. Raises `OSError` ``EBADF`` for a handle that is not open."""
        try:
            return self._opened[handle]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def get_or_none(self, handle: int) -> Opened | None:
        """What *handle* names, None for a handle that is not open."""
        return self._opened.get(handle)

    def of(self, inode: Inode) -> list[Opened]:
        """All that is open of *inode*."""
        return [opened for opened in list(self._opened.values()) if opened.inode is inode]

    def remove(self, handle: int) -> Opened | None:
        """Take *handle* out of the table."""
        return self._opened.pop(handle, None)

    def clear(self) -> list[Opened]:
        """Take everything out."""
        opened = list(self._opened.values())
        self._opened.clear()
        return opened
