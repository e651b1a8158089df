"""Flags of chattr(1) over layers: what is immutable, or may only be appended to, stays so.

A copy in the upper layer cannot have these two flags itself: nothing could be copied up beneath an
immutable directory any more. As the kernel's overlayfs does it, they are kept as an attribute
(``protattr``), and it is up to who serves the overlay that they do what they say.

Source: ovl_copy_fileattr(), ovl_set_protattr() and ovl_check_protattr() of fs/overlayfs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from inopt.backing.inodes import Inode
from inopt.layers.facts import Place
from inopt.layers.format import Format, beneath
from inopt.layers.standing import standing_of
from inopt.syscalls import (
    FS_IOC_FSGETXATTR,
    FS_IOC_FSSETXATTR,
    FS_IOC_GETFLAGS,
    FS_IOC_SETFLAGS,
)
from inopt.wire.replies import Attributes

IMMUTABLE: Final = 0x10
"""``FS_IMMUTABLE_FL``, and ``STATX_ATTR_IMMUTABLE``."""
APPEND: Final = 0x20
"""``FS_APPEND_FL``, and ``STATX_ATTR_APPEND``."""
_BOTH: Final = IMMUTABLE | APPEND
_LETTERS: Final = {b"a": APPEND, b"i": IMMUTABLE}
_OTHERS: Final = 0x08 | 0x80  # FS_SYNC_FL, FS_NOATIME_FL: the copy has these itself
# Which bit stands for which flag in what an ioctl(2) command reads or writes: inode flags, or a
# struct fsxattr (linux/fs.h). Other commands are about other things.
_PLAIN: Final = {IMMUTABLE: IMMUTABLE, APPEND: APPEND}
_EXTENDED: Final = {IMMUTABLE: 0x08, APPEND: 0x10}
_BITS: Final = {
    FS_IOC_GETFLAGS: _PLAIN,
    FS_IOC_SETFLAGS: _PLAIN,
    FS_IOC_FSGETXATTR: _EXTENDED,
    FS_IOC_FSSETXATTR: _EXTENDED,
}
_NONE: Final = (errno.ENODATA, errno.EOPNOTSUPP)
_FLAGS: Final = struct.Struct("<I")


def protection_of(attributes: Attributes) -> int:
    """Which of the two flags an inode has itself."""
    return attributes.attributes & _BOTH


def require_permitted(protection: int, *, appends: bool = False) -> None:
    """Raise ``EPERM`` for a change that flags forbid.

    *appends*: one that adds to what is there, as append-only files and directories permit.
    """
    if protection & IMMUTABLE or (protection and not appends):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


class Protection:
    """The flags of the inodes of one tree. *descriptor* gives one of an inode."""

    def __init__(self, marks: Format, descriptor: Callable[[Inode], int]) -> None:
        self._marks = marks
        self._descriptor = descriptor

    def of(self, inode: Inode) -> int:
        """Which flags protect *inode*, beside those that its file in the upper layer has itself."""
        standing = standing_of(inode)
        if standing.protection < 0:
            standing.protection = _decoded(
                self._marks.read(self._marks.protattr, self._descriptor(inode))
            )
        return standing.protection

    def of_name(self, upper: int, name: bytes) -> int:
        """The same, of a name in a directory of the upper layer."""
        if not self._marks.has(self._marks.protattr, upper, name):
            return 0
        return _decoded(self._marks.read(self._marks.protattr, upper, name))

    def copy(self, source: int, protection: int, copy: Place) -> None:
        """Give a *copy* the flags of its original.

        *source*: a descriptor of the original, open for reading; *protection*: what protects it.
        """
        if protection:
            self._mark(copy, protection)
        wanted = _read_flags(source) & _OTHERS
        if not wanted:
            return
        path = copy if isinstance(copy, bytes) else beneath(copy)
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a filesystem that has no such flags
                flags = _FLAGS.pack(_read_flags(target) | wanted)
                fcntl.ioctl(target, FS_IOC_SETFLAGS, flags)
        finally:
            os.close(target)

    def show(self, inode: Inode, command: int, argument: bytearray) -> None:
        """Add the flags that an inode has to what its file has said of its own."""
        (flags,) = _FLAGS.unpack_from(argument)
        for flag, bit in _BITS.get(command, {}).items():
            if self.of(inode) & flag:
                flags |= bit
        _FLAGS.pack_into(argument, 0, flags)

    def keep(self, inode: Inode, command: int, argument: bytearray) -> None:
        """Take from the flags that an inode, in the upper layer, is to have those kept here."""
        (flags,) = _FLAGS.unpack_from(argument)
        protection = 0
        for flag, bit in _BITS.get(command, {}).items():
            if flags & bit:
                protection |= flag
                flags &= ~bit
        if protection != self.of(inode):
            self._mark(beneath(self._descriptor(inode)), protection)
            standing_of(inode).protection = protection
        _FLAGS.pack_into(argument, 0, flags)

    def _mark(self, place: Place, protection: int) -> None:
        if protection:
            letters = (letter for letter, flag in _LETTERS.items() if protection & flag)
            os.setxattr(place, self._marks.protattr, b"".join(letters))
            return
        try:
            os.removexattr(place, self._marks.protattr)
        except OSError as error:
            if error.errno not in _NONE:
                raise


def _decoded(letters: bytes | None) -> int:
    return sum(flag for letter, flag in _LETTERS.items() if letter in (letters or b""))


def _read_flags(descriptor: int) -> int:
    argument = bytearray(8)
    try:
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, argument)
    except OSError:
        return 0  # a filesystem that has none
    return int(_FLAGS.unpack_from(argument)[0])
