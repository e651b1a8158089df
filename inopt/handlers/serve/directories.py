"""The opcodes of open directories.

Each open directory has a backing descriptor of its own, so its offsets, and what a listing shows
of entries added or removed meanwhile, are the backing filesystem's. (OPENDIR could be answered
once with ``ENOSYS`` to save a request for each listing; but then the kernel caches listings and
trusts their modification time, which misses a change within one clock tick.)
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from inopt.backing.files import OpenDirectory
from inopt.handlers.serve.context import Context
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header
from inopt.wire.directory import DirectoryPage

_LARGEST_PAGE: Final = 64 << 10
_NO_ENTRY: Final = bytes(128)
_DOTS: Final = (b".", b"..")


class _Room:
    """Memory for one listing at a time: what getdents64 fills, and the page of the reply."""

    __slots__ = ("entries", "page")

    def __init__(self) -> None:
        self.entries = ctypes.create_string_buffer(_LARGEST_PAGE)
        self.page = DirectoryPage(_LARGEST_PAGE)


_rooms: list[_Room] = []


def _room() -> _Room:
    try:
        return _rooms.pop()
    except IndexError:
        return _Room()


def opendir(context: Context, header: Header, body: bodies.Open) -> bytes:
    """OPENDIR."""
    tree = context.tree
    inode = tree.table.get(header.nodeid)
    flags = os.O_RDONLY | os.O_DIRECTORY | (context.open_flags | body.flags) & os.O_NOATIME
    tree.descriptors.hold()
    try:
        descriptor = tree.open(inode, flags)
    except BaseException:
        tree.descriptors.held -= 1
        raise
    handle = context.directories.add(OpenDirectory(inode, descriptor))
    return context.dialect.open(handle, 0, 0)


def readdir(context: Context, _header: Header, body: bodies.Read) -> bytes:
    """READDIR."""
    directory = context.directories.get(body.handle)
    room = _room()
    page, entries = room.page, room.entries
    page.reset(body.size)
    directory.seek(body.offset)
    while (entry := directory.peek(entries)) is not None:
        inode, offset, kind, name = entry
        if not page.add(inode, offset, kind, name):
            break
        directory.advance()
    payload = bytes(page.view())
    _rooms.append(room)
    return payload


def readdirplus(context: Context, _header: Header, body: bodies.Read) -> bytes:
    """READDIRPLUS: each entry is a lookup, too."""
    directory = context.directories.get(body.handle)
    room = _room()
    page, entries = room.page, room.entries
    page.reset(body.size)
    directory.seek(body.offset)
    while (entry := directory.peek(entries)) is not None:
        number, offset, kind, name = entry
        if not page.fits(len(name), plus=True):
            break
        payload = _NO_ENTRY
        if name not in _DOTS:
            payload, number = _look_up(context, directory, name, number)
        page.add_plus(payload, number, offset, kind, name)
        directory.advance()
    answer = bytes(page.view())
    _rooms.append(room)
    return answer


def _look_up(
    context: Context, directory: OpenDirectory, name: bytes, number: int
) -> tuple[bytes, int]:
    try:
        inode, attributes = context.tree.resolve_at(directory.descriptor, name)
    except OSError:
        # Gone, or not to be looked at: the kernel gets the name alone and asks when it must.
        return _NO_ENTRY, number
    return context.entry(inode, attributes), inode.number


def releasedir(context: Context, _header: Header, body: bodies.Release) -> bytes:
    """RELEASEDIR."""
    context.close_directory(body.handle)
    return b""


def fsyncdir(context: Context, _header: Header, body: bodies.Fsync) -> bytes:
    """FSYNCDIR."""
    descriptor = context.directories.get(body.handle).descriptor
    if body.fsync_flags & uapi.FSYNC_FDATASYNC:
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)
    return b""
