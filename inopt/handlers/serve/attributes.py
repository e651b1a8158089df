"""The opcodes of attributes: of inodes, and of the filesystem."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from inopt import syscalls
from inopt.backing.caller import acting_as, groups_of
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.handlers.serve.context import Context
from inopt.handlers.serve.data import truncate
from inopt.wire import bodies, replies, uapi
from inopt.wire.bodies import Header
from inopt.wire.replies import Attributes

if TYPE_CHECKING:
    import pyfuse3

_UNCHANGED: Final = -1
_CHANGES: Final = (
    uapi.FATTR_MODE
    | uapi.FATTR_UID
    | uapi.FATTR_GID
    | uapi.FATTR_SIZE
    | uapi.FATTR_ATIME
    | uapi.FATTR_MTIME
    | uapi.FATTR_CTIME
)
_OTHER_CHANGES: Final = uapi.FATTR_MODE | uapi.FATTR_UID | uapi.FATTR_GID | uapi.FATTR_SIZE
_TOUCH: Final = uapi.FATTR_ATIME | uapi.FATTR_MTIME | uapi.FATTR_ATIME_NOW | uapi.FATTR_MTIME_NOW


def _attributes(context: Context, inode: Inode, handle: int | None) -> Attributes:
    """The attributes of an inode, by the descriptor of an open file if there is one.

    Not if another file has taken that one's place: they are those of its name, however asked for.
    """
    if handle is not None and (inode.layers is None or not inode.layers.replaced):
        try:
            file = context.files.get(handle)
        except OSError:
            pass  # a directory's handle, of another table
        else:
            if file.descriptor >= 0 and file.inode is inode:
                return attributes_of(file.descriptor)
    return context.tree.attributes(inode)


def getattr_(context: Context, header: Header, body: bodies.Getattr) -> bytes:
    """GETATTR."""
    inode = context.tree.table.get(header.nodeid)
    handle = body.handle if body.flags & uapi.GETATTR_FH else None
    return _told(context, inode, _attributes(context, inode, handle))


def _told(context: Context, inode: Inode, attributes: Attributes) -> bytes:
    """The payload that answers GETATTR and SETATTR."""
    return replies.attr(attributes, context.validity_of(inode, attributes), inode.number)


def statx(context: Context, header: Header, body: bodies.Statx) -> bytes:
    """STATX: like GETATTR, with the time of birth."""
    inode = context.tree.table.get(header.nodeid)
    handle = body.handle if body.getattr_flags & uapi.GETATTR_FH else None
    attributes = _attributes(context, inode, handle)
    return replies.statx(attributes, context.validity_of(inode, attributes), 0, inode.number)


def setattr_(context: Context, header: Header, body: bodies.Setattr) -> bytes:
    """SETATTR: owner, mode, size and times, in the order in which one could undo another."""
    tree = context.tree
    inode = tree.table.get(header.nodeid)
    valid = body.valid
    if valid & _CHANGES:
        tree.require_permitted(inode, appends=_only_touches(valid))
    tree.prepare_change(inode)
    if valid & _CHANGES == uapi.FATTR_SIZE:
        _truncate(context, header, body, inode)
        return unchanged(context, header, body)
    # One for all that follows: to open an inode costs as much as to change it.
    descriptor = tree.descriptor(inode)
    path = b"/proc/self/fd/%d" % descriptor
    if valid & (uapi.FATTR_UID | uapi.FATTR_GID):
        _change_owner(
            path,
            header,
            body.uid if valid & uapi.FATTR_UID else _UNCHANGED,
            body.gid if valid & uapi.FATTR_GID else _UNCHANGED,
        )
    if valid & uapi.FATTR_MODE:
        os.chmod(path, body.mode & 0o7777)
    if valid & uapi.FATTR_SIZE:
        _truncate(context, header, body, inode)
    if valid & (uapi.FATTR_ATIME | uapi.FATTR_MTIME):
        _set_times(descriptor, body)
    if not valid & _CHANGES:
        # What is left of chown(path, -1, -1): set-id bits go, and the change time moves. The
        # kernel also sends this before a write that is to remove privileges. That the writer
        # need not own the file does no harm: the WRITE removes them, too.
        with suppress(PermissionError), acting_as(header.uid, header.gid, _groups(header)):
            os.chown(path, _UNCHANGED, _UNCHANGED)
    return _told(context, inode, tree.attributes(inode, descriptor))


def _only_touches(valid: int) -> bool:
    """Whether nothing is set but both times, to the present one."""
    return valid & _TOUCH == _TOUCH and not valid & _OTHER_CHANGES


def unchanged(context: Context, header: Header, body: bodies.Setattr) -> bytes:
    """Answer SETATTR with the attributes as they are."""
    inode = context.tree.table.get(header.nodeid)
    handle = body.handle if body.valid & uapi.FATTR_FH else None
    return _told(context, inode, _attributes(context, inode, handle))


def _change_owner(path: bytes, header: Header, user: int, group: int) -> None:
    """chown(2) as the caller, whose groups decide whether the set-group-id bit stays.

    A caller that may do so although it is not the owner (by a capability) is let through: the
    kernel has checked.
    """
    if header.uid:
        with suppress(PermissionError), acting_as(header.uid, header.gid, _groups(header)):
            os.chown(path, user, group)
            return
    os.chown(path, user, group)


def _groups(header: Header) -> tuple[int, ...]:
    return groups_of(header.pid) if header.uid else ()


def _truncate(context: Context, header: Header, body: bodies.Setattr, inode: Inode) -> None:
    """Set the size as the caller, whose privileges decide about set-id bits and quota."""
    if body.valid & uapi.FATTR_FH:
        truncate(context.files.get(body.handle).fileno(context.tree), header, body.size)
        return
    descriptor = context.tree.open(inode, os.O_WRONLY)
    try:
        truncate(descriptor, header, body.size)
    finally:
        os.close(descriptor)


def _set_times(descriptor: int, body: bodies.Setattr) -> None:
    valid = body.valid
    access = modification = (0, syscalls.UTIME_OMIT)
    if valid & uapi.FATTR_ATIME_NOW:
        access = (0, syscalls.UTIME_NOW)
    elif valid & uapi.FATTR_ATIME:
        access = (body.atime_seconds, body.atime_nanoseconds)
    if valid & uapi.FATTR_MTIME_NOW:
        modification = (0, syscalls.UTIME_NOW)
    elif valid & uapi.FATTR_MTIME:
        modification = (body.mtime_seconds, body.mtime_nanoseconds)
    syscalls.set_times(descriptor, *access, *modification)


def readlink(context: Context, header: Header, _body: bodies.Readlink) -> bytes:
    """READLINK: the target as it is; following it is the kernel's business."""
    tree = context.tree
    return os.readlink(b"", dir_fd=tree.descriptor(tree.table.get(header.nodeid)))


def statfs(context: Context, header: Header, _body: bodies.Statfs) -> bytes:
    """STATFS."""
    tree = context.tree
    return statfs_reply(os.statvfs(tree.holder(tree.table.get(header.nodeid), b"")))


def statfs_reply(status: os.statvfs_result | pyfuse3.StatvfsData) -> bytes:
    """The payload that tells the numbers of a filesystem."""
    return replies.statfs(
        status.f_blocks,
        status.f_bfree,
        status.f_bavail,
        status.f_files,
        status.f_ffree,
        status.f_bsize,
        status.f_namemax,
        status.f_frsize,
    )
