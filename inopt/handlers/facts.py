"""Facts that a policy decides by: extended attributes, and what a new inode will have."""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Final

from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.policy.facts import ReadXattr

_DEFAULT_ACL: Final = "system.posix_acl_default"
_ACL_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id; after 4 bytes of version
_ACL_USER, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x01, 0x04, 0x10, 0x20


class NewInode:
    """The attributes of an inode that is about to be made."""

    __slots__ = ("gid", "mode", "size", "uid")

    def __init__(self, mode: int, uid: int, gid: int) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = 0


def xattr(path: bytes, name: str) -> bytes | None:
    """An extended attribute; None where there is none."""
    try:
        return os.getxattr(path, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def no_xattr(_name: str) -> bytes | None:
    """Of what has none, such as an inode that is not made yet."""
    return None


def xattr_beneath(directory: int, name: bytes) -> ReadXattr:
    """Reads an extended attribute of a name beneath a directory's descriptor."""

    def read(attribute: str) -> bytes | None:
        try:
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        except OSError:
            return None
        try:
            return xattr(b"/proc/self/fd/%d" % descriptor, attribute)
        finally:
            os.close(descriptor)

    return read


def _permitted(acl: bytes, mode: int) -> int:
    """What a default ACL leaves of the permissions in *mode* (acl(5), object creation)."""
    by_tag = {tag: allowed for tag, allowed, _ in _ACL_ENTRY.iter_unpack(acl[4:])}
    group = by_tag.get(_ACL_MASK, by_tag.get(_ACL_GROUP, 7))
    return mode & int(by_tag.get(_ACL_USER, 7) << 6 | group << 3 | by_tag.get(_ACL_OTHER, 7))


def inherit(tree: Tree, parent: Inode, mode: int, new: NewInode) -> None:
    """What *new* gets from its directory: a group, and by a default ACL its permissions."""
    above = tree.attributes(parent)
    acl = None if stat.S_ISLNK(mode) else xattr(tree.path(parent), _DEFAULT_ACL)
    if acl is not None:
        new.mode = mode & ~0o777 | _permitted(acl, mode)
    if above.mode & stat.S_ISGID:
        new.gid = above.gid
        if stat.S_ISDIR(mode):
            new.mode |= stat.S_ISGID
