"""The opcodes of open directories.

Each open directory has a backing descriptor of its own, so its offsets, and what a listing shows
of entries added or removed meanwhile, are the backing filesystem's. (OPENDIR could be answered
once with ``ENOSYS`` to save a request for each listing; but then the kernel caches listings and
trusts their modification time, which misses a change underneath within one clock tick. Where
nothing is changed underneath, it is told to cache them: of what it changes itself it knows.)
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from inopt.backing.files import DirectoryEntry, OpenDirectory
from inopt.handlers.failures import fail
from inopt.handlers.serve.context import Context
from inopt.handlers.serve.data import synchronize
from inopt.handlers.serve.looking import is_known
from inopt.wire import bodies
from inopt.wire.bodies import Header
from inopt.wire.directory import DOTS, DirectoryPage
from inopt.wire.uapi import FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE

_LARGEST_PAGE: Final = 64 << 10
_NO_ENTRY: Final = bytes(128)


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
    if body.flags & os.O_DIRECT:
        # The kernel would say so after opening; one that opens the backing directory says EIO.
        fail(errno.EINVAL)
    flags = os.O_RDONLY | os.O_DIRECTORY | (context.open_flags | body.flags) & os.O_NOATIME
    directory = context.names.open_directory(inode, flags)
    backing_id = 0
    attached = context.attachments.attached
    if attached is None:
        directory.open(tree)
    else:
        plan = context.placement.plan(inode)
        backing_id = attached.for_listing(inode, plan.mask)
        if not backing_id and not attached.lists(inode):
            directory.open(tree)
    keeps = context.names.alone and not context.placement.policy.hides
    reply_flags = FOPEN_CACHE_DIR if keeps else 0
    if keeps and context.names.keeps_listing(inode):
        reply_flags |= FOPEN_KEEP_CACHE
    return context.dialect.open(context.directories.add(directory), reply_flags, backing_id)


def readdir(context: Context, _header: Header, body: bodies.Read) -> bytes:
    """READDIR."""
    return _list(context, body, _add)


def readdirplus(context: Context, header: Header, body: bodies.Read) -> bytes:
    """READDIRPLUS: each entry is a lookup, too."""
    directory = context.directories.get(body.handle)
    if context.tree.watch is not None:
        context.tree.watch.approach(directory.inode)
    if not body.offset:
        # A handler that lists (its requests have no number) is to get all of it.
        by_name = bool(header.unique) and directory.tells_numbers
        directory.names_only = None if by_name else False
        directory.reader = context.readers.begin(header.pid) if by_name else None
    return _list(context, body, partial(_add_plus, context, header))


def _list(
    context: Context,
    body: bodies.Read,
    add: Callable[[OpenDirectory, DirectoryPage, DirectoryEntry], bool],
) -> bytes:
    """A page of entries from the request's offset on, as many as *add* finds room for."""
    directory = context.directories.get(body.handle)
    placement = context.placement
    hides = placement.policy.hides
    directory.open(context.tree)
    room = _room()
    try:
        room.page.reset(body.size)
        directory.seek(body.offset)
        for entry in directory.entries(room.entries):
            shown = not hides or placement.shows(directory.inode, entry[3])
            if shown and not add(directory, room.page, entry):
                break
        return bytes(room.page.view())
    finally:
        _rooms.append(room)


def _add(directory: OpenDirectory, page: DirectoryPage, entry: DirectoryEntry) -> bool:
    number, offset, kind, name = entry
    return page.add(directory.number(name, number), offset, kind, name)


def _add_plus(
    context: Context,
    header: Header,
    directory: OpenDirectory,
    page: DirectoryPage,
    entry: DirectoryEntry,
) -> bool:
    number, offset, kind, name = entry
    # Before the lookup is counted: the kernel forgets only what it has been told of.
    if not page.fits(len(name), plus=True):
        return False
    payload = _NO_ENTRY
    if directory.names_only is None:
        directory.names_only = is_known(directory, context.lifetime)
    reader = directory.reader
    if directory.names_only or name in DOTS or (reader is not None and reader.leaves_out(kind)):
        number = directory.number(name, number)
    else:
        # Gone, or not to be looked at: the kernel gets the name alone and asks when it must.
        try:
            inode, attributes = context.names.listed(directory, name)
            payload = context.listed(directory.inode, name, header, inode, attributes)
            number = inode.number
        except OSError:
            pass
    return page.add_plus(payload, number, offset, kind, name)


def releasedir(context: Context, _header: Header, body: bodies.Release) -> bytes:
    """RELEASEDIR."""
    context.close_directory(body.handle)
    return b""


def fsyncdir(context: Context, _header: Header, body: bodies.Fsync) -> bytes:
    """FSYNCDIR."""
    with context.directories.get(body.handle).current(context.tree) as descriptor:
        synchronize(descriptor, body)
    return b""
