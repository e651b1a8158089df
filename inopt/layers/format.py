"""The overlay format on disk: what marks a layer's files, as the kernel's overlayfs does it.

Sources: Documentation/filesystems/overlayfs.rst and fs/overlayfs/overlayfs.h of Linux 6.18.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import Any, Final

from inopt import syscalls
from inopt.backing.inodes import inode_number_of

_NO_ATTRIBUTE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM})
# Of an origin: version, magic, length of all, flags, type of the file handle; then uuid, handle.
_ORIGIN: Final = struct.Struct("<BBBBB16s")
_ORIGIN_MAGIC: Final = 0xFB
_BIG_ENDIAN, _ANY_ENDIAN = 1, 2
_HANDLE: Final = struct.Struct("<Ii")  # struct file_handle: bytes, type; then the handle
_FS_IOC_GETFSUUID: Final = 0x80111500  # linux/fs.h, Linux 6.9


def beneath(directory: int, name: bytes = b"") -> bytes:
    """A path to *name* in the directory of a descriptor, or to what the descriptor itself is."""
    return b"/proc/self/fd/%d/%s" % (directory, name) if name else b"/proc/self/fd/%d" % directory


class Format:
    """The names of the marks; *user*: those that need no privilege (``userxattr``)."""

    __slots__ = (
        "_asks_beneath", "escaped", "impure", "metacopy", "nlink", "opaque", "origin", "prefix",
        "protattr", "redirect", "whiteout",
    )  # fmt: skip

    def __init__(self, *, user: bool = False) -> None:
        self.prefix = "user.overlay." if user else "trusted.overlay."
        # What the layers of an overlay have of their own that is itself a layer somewhere else.
        self.escaped = self.prefix + "overlay."
        self.opaque = self.prefix + "opaque"
        self.redirect = self.prefix + "redirect"
        self.origin = self.prefix + "origin"
        self.metacopy = self.prefix + "metacopy"
        self.impure = self.prefix + "impure"
        self.nlink = self.prefix + "nlink"
        self.protattr = self.prefix + "protattr"
        self.whiteout = self.prefix + "whiteout"
        self._asks_beneath = True

    def read(self, mark: str, descriptor: int, name: bytes = b"") -> bytes | None:
        """The value of a mark of what `beneath` leads to; None where there is none."""
        try:
            return os.getxattr(beneath(descriptor, name), mark, follow_symlinks=not name)
        except OSError as error:
            if error.errno in _NO_ATTRIBUTE:
                return None
            raise

    def has(self, mark: str, directory: int, name: bytes) -> bool:
        """Whether *name* in a directory has a mark. It costs less than to `read` it."""
        if self._asks_beneath:
            try:
                return syscalls.has_xattr(directory, name, mark.encode())
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EPERM):
                    raise
                self._asks_beneath = False  # Linux 6.12 and earlier, or a filter of system calls
        return self.read(mark, directory, name) is not None

    def opaqueness(self, directory: int, name: bytes = b"") -> bytes:
        """``y``: nothing below a directory shows; ``x``: it may have xattr whiteouts."""
        return self.read(self.opaque, directory, name) or b""

    def shown(self, name: str) -> str | None:
        """What an extended attribute of a layer is called in the overlay; None: it is a mark."""
        if not name.startswith(self.prefix):
            return name
        if name.startswith(self.escaped):
            return self.prefix + name[len(self.escaped) :]
        return None

    def stored(self, name: str) -> str:
        """What an extended attribute that the overlay shows is called in its layers."""
        return self.escaped + name[len(self.prefix) :] if name.startswith(self.prefix) else name


def is_whiteout(status: Any) -> bool:
    """Whether an inode says that a name is no more: a character device 0:0.

    *status*: `inopt.wire.replies.Attributes`.
    """
    return bool(stat.S_ISCHR(status.mode) and not status.rdev_major and not status.rdev_minor)


def make_whiteout(directory: int, name: bytes) -> None:
    """Say in a layer that *name* is no more. Raises `OSError`, ``EEXIST`` if something has it."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def filesystem_uuid(descriptor: int) -> bytes:
    """The 16 bytes by which origins tell filesystems apart; zeros where it has none to tell."""
    answer = bytearray(17)
    try:
        fcntl.ioctl(descriptor, _FS_IOC_GETFSUUID, answer)
    except OSError:
        return bytes(16)
    return bytes(answer[1:17]) if answer[0] == 16 else bytes(16)


def encode_origin(handle: bytes, uuid: bytes) -> bytes:
    """The value that says which lower inode a copy was made of.

    *handle*: of the lower inode, as `inopt.syscalls.name_to_handle` returns it; *uuid*: of its
    filesystem.
    """
    length, kind = _HANDLE.unpack_from(handle)
    data = handle[_HANDLE.size : _HANDLE.size + length]
    return _ORIGIN.pack(0, _ORIGIN_MAGIC, _ORIGIN.size + length, 0, kind & 0xFF, uuid) + data


def decode_origin(value: bytes) -> tuple[bytes, bytes] | None:
    """The file handle and the filesystem's uuid in an origin; None for one that says nothing."""
    if len(value) < _ORIGIN.size:
        return None
    version, magic, length, flags, kind, uuid = _ORIGIN.unpack_from(value)
    native = not flags & _BIG_ENDIAN or flags & _ANY_ENDIAN
    if version or magic != _ORIGIN_MAGIC or length != len(value) or not native:
        return None
    data = value[_ORIGIN.size :]
    return _HANDLE.pack(len(data), kind) + data, uuid


def origin_number(value: bytes | None, uuid: bytes) -> int:
    """The inode number that an origin on the filesystem *uuid* tells; -1 if it tells none."""
    decoded = decode_origin(value) if value else None
    if decoded is None or decoded[1] != uuid:
        return -1
    return inode_number_of(decoded[0])
