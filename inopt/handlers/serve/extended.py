"""Extended attributes, ACLs among them, and the few ioctls that mean something for a file."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from inopt.backing.caller import acting_as
from inopt.backing.inodes import Inode
from inopt.handlers.failures import fail
from inopt.handlers.serve.context import Context, require_room
from inopt.syscalls import (
    FS_IOC_FSGETXATTR,
    FS_IOC_FSSETXATTR,
    FS_IOC_GETFLAGS,
    FS_IOC_SETFLAGS,
)
from inopt.wire import bodies, replies, uapi
from inopt.wire.bodies import Header

_ACL_PREFIX: Final = b"system.posix_acl_"
_TRUSTED_PREFIX: Final = "trusted."

# linux/fs.h; the kernel's client sends GETFLAGS and SETFLAGS with 4 bytes though they say 8.
_FS_IOC_GETVERSION: Final = 0x80087601
_FS_IOC_GETFSLABEL: Final = 0x81009431
_FS_IOC_GETFSUUID: Final = 0x80111500
_FS_IOC32_GETFLAGS: Final = 0x80046601
_FS_IOC32_SETFLAGS: Final = 0x40046602
_READING: Final = {
    FS_IOC_GETFLAGS: FS_IOC_GETFLAGS,
    _FS_IOC32_GETFLAGS: FS_IOC_GETFLAGS,
    FS_IOC_FSGETXATTR: FS_IOC_FSGETXATTR,
    _FS_IOC_GETVERSION: _FS_IOC_GETVERSION,
    _FS_IOC_GETFSLABEL: _FS_IOC_GETFSLABEL,
    _FS_IOC_GETFSUUID: _FS_IOC_GETFSUUID,
}
_WRITING: Final = {
    FS_IOC_SETFLAGS: FS_IOC_SETFLAGS,
    _FS_IOC32_SETFLAGS: FS_IOC_SETFLAGS,
    FS_IOC_FSSETXATTR: FS_IOC_FSSETXATTR,
}
_LARGEST_ARGUMENT: Final = 256  # a label


def is_acl(name: bytes) -> bool:
    """Whether an extended attribute is an ACL, by which the kernel checks permissions."""
    return name.startswith(_ACL_PREFIX)


def changes_flags(command: int) -> bool:
    """Whether an ioctl command sets inode flags or a project id."""
    return command in _WRITING


def getxattr(context: Context, header: Header, body: bodies.Getxattr) -> bytes:
    """GETXATTR; a size of 0 asks how long the value is."""
    tree = context.tree
    value = os.getxattr(tree.path(tree.table.get(header.nodeid)), tree.stored(body.name))
    if not body.size:
        return replies.xattr_size(len(value))
    require_room(len(value), body.size)
    return value


def listxattr(context: Context, header: Header, body: bodies.Listxattr) -> bytes:
    """LISTXATTR; ``trusted.`` names are root's alone, as xattr(7) has it."""
    tree = context.tree
    names = os.listxattr(tree.path(tree.table.get(header.nodeid)))
    listed = b"".join(
        os.fsencode(name) + b"\0"
        for name in map(tree.shown, names)
        if name is not None and (header.uid == 0 or not name.startswith(_TRUSTED_PREFIX))
    )
    if not body.size:
        return replies.xattr_size(len(listed))
    require_room(len(listed), body.size)
    return listed


def setxattr(context: Context, header: Header, body: bodies.Setxattr) -> bytes:
    """SETXATTR. The kernel has checked who may, except for ACLs on kernels before 6.2."""
    tree = context.tree
    inode = tree.table.get(header.nodeid)
    _require_owner_for_acl(context, header, inode, body.name)
    name = tree.stored(body.name)
    tree.require_permitted(inode)
    tree.prepare_change(inode)
    path = tree.path(inode)
    if body.setxattr_flags & uapi.SETXATTR_ACL_KILL_SGID:
        # The caller is not in the file's group: done as the caller, the bit goes.
        with acting_as(header.uid, header.gid):
            os.setxattr(path, name, body.value, body.flags)
    else:
        os.setxattr(path, name, body.value, body.flags)
    return b""


def removexattr(context: Context, header: Header, body: bodies.Removexattr) -> bytes:
    """REMOVEXATTR."""
    tree = context.tree
    inode = tree.table.get(header.nodeid)
    _require_owner_for_acl(context, header, inode, body.name)
    name = tree.stored(body.name)
    tree.require_permitted(inode)
    tree.prepare_removal(inode, name)
    os.removexattr(tree.path(inode), name)
    return b""


def _require_owner_for_acl(context: Context, header: Header, inode: Inode, name: bytes) -> None:
    if not is_acl(name) or header.uid == 0:
        return
    if context.tree.attributes(inode).uid != header.uid:
        fail(errno.EPERM)


def ioctl(context: Context, header: Header, body: bodies.Ioctl) -> bytes:
    """IOCTL: inode flags (chattr), project ids, which filesystem it is; others are ``ENOTTY``.

    Many programs ask each file they open whether it is a terminal, so that answer costs nothing.
    """
    reading = _READING.get(body.command)
    writing = _WRITING.get(body.command)
    command = reading or writing
    if command is None:
        fail(errno.ENOTTY)
    tree = context.tree
    inode = tree.table.get(header.nodeid)
    argument = bytearray(_LARGEST_ARGUMENT)
    given = min(len(body.data), _LARGEST_ARGUMENT)
    argument[:given] = body.data[:given]
    if writing is not None:
        tree.prepare_change(inode)
        tree.keep_flags(inode, command, argument)
    if body.flags & uapi.IOCTL_DIR:
        with context.directories.get(body.handle).current(tree) as descriptor:
            fcntl.ioctl(descriptor, command, argument)
    else:
        fcntl.ioctl(context.files.get(body.handle).any_fileno(tree), command, argument)
    if writing is not None:
        context.invalidate(header.nodeid)  # the change time has moved
        return replies.ioctl(0)
    tree.show_flags(inode, command, argument)
    return replies.ioctl(0, data=bytes(argument[: body.output_size]))
