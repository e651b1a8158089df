"""What a backing inode is: its attributes, its key of this moment, its file handle."""

from __future__ import annotations

import errno
import os
from typing import Final

from inopt import syscalls
from inopt.backing.inodes import Key, inode_number_of
from inopt.wire.replies import Attributes

HANDLE_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_BTIME: Final = syscalls.STATX_BTIME


def attributes_of(descriptor: int, name: bytes = b"") -> Attributes:
    """The attributes of an open inode, or of a name beneath it (a link is not followed)."""
    fields = syscalls.statx(descriptor, name)
    return Attributes(fields[0] & _BTIME != 0, *fields[1:])


def key_of(attributes: Attributes) -> Key:
    """What tells a backing inode from all others of this moment."""
    return (
        attributes.mount_id,
        attributes.dev_major,
        attributes.dev_minor,
        attributes.inode,
    )


def identify(directory: int, name: bytes) -> tuple[bytes, Attributes] | None:
    """The file handle and the attributes of a name; None where only a descriptor can tell.

    The name may be given to another inode between the two calls. So the handle comes first, and
    counts only if it tells its inode number and that is the one of the attributes: then the worst
    is a handle of an inode that is gone, which answers ``ESTALE`` when it is used.
    """
    try:
        handle, fields = syscalls.name_to_handle_and_statx(directory, name)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    attributes = Attributes(fields[0] & _BTIME != 0, *fields[1:])
    return (handle, attributes) if inode_number_of(handle) == attributes.inode else None
