"""What a copy takes along: bytes without the holes, owner, mode, times, extended attributes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from inopt import syscalls
from inopt.layers.format import beneath
from inopt.wire.replies import Attributes

_FICLONE: Final = 0x40049409  # linux/fs.h
_PIECE: Final = 64 << 20
_BUFFER: Final = 1 << 20
# Filesystems say by these that they cannot copy by themselves.
_NOT_BY_ITSELF: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ETXTBSY}
)
_CAPABILITY: Final = "security.capability"


def copy_bytes(source: int, target: int, size: int) -> None:
    """Copy *size* bytes of a file, sharing blocks or at least leaving holes where that works."""
    if not size:
        return
    if _share(source, target):
        return
    os.ftruncate(target, size)
    start = 0
    while start < size:
        try:
            start = os.lseek(source, start, os.SEEK_DATA)
            end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole up to the end
            if error.errno != errno.EINVAL:
                raise
            end = size
        _copy_piece(source, target, start, end)
        start = end


def _share(source: int, target: int) -> bool:
    """Let two files share their blocks; False where the filesystem cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def _copy_piece(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = syscalls.copy_file_range(
                source, start, target, start, min(end - start, _PIECE)
            )
        except OSError as error:
            if error.errno not in _NOT_BY_ITSELF:
                raise
            copied = _copy_by_hand(source, target, start, end)
        if not copied:
            return  # the file has become shorter meanwhile
        start += copied


def _copy_by_hand(source: int, target: int, start: int, end: int) -> int:
    data = os.pread(source, min(end - start, _BUFFER), start)
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], start + written)
    return written


def copy_facts(
    source: int,
    attributes: Attributes,
    target: int,
    name: bytes,
    shown: Callable[[str], bool],
) -> None:
    """Give a copy the owner, extended attributes and mode of its original.

    *source*: a descriptor of that; *target* and *name*: as `beneath` takes them; *shown*: which
    extended attributes go along. Times come last: see `copy_times`.
    """
    path, follow = beneath(target, name), not name
    os.chown(path, attributes.uid, attributes.gid, follow_symlinks=follow)
    _copy_xattrs(beneath(source), path, shown, follow=follow)
    if not stat.S_ISLNK(attributes.mode):
        os.chmod(path, attributes.mode & 0o7777)


def _copy_xattrs(source: bytes, path: bytes, shown: Callable[[str], bool], *, follow: bool) -> None:
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        raise
    for name in names:
        if not shown(name):
            continue
        try:
            value = os.getxattr(source, name)
        except OSError as error:
            if error.errno == errno.ENODATA:
                continue
            raise
        try:
            os.setxattr(path, name, value, follow_symlinks=follow)
        except OSError as error:
            # As the kernel does: what protects a file has to come along, the rest if it can.
            needed = name == _CAPABILITY or name.startswith("system.posix_acl_")
            if needed or error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def copy_times(attributes: Attributes, directory: int, name: bytes = b"") -> None:
    """Give a copy the times of its original."""
    os.utime(
        beneath(directory, name),
        ns=(
            attributes.atime_seconds * 10**9 + attributes.atime_nanoseconds,
            attributes.mtime_seconds * 10**9 + attributes.mtime_nanoseconds,
        ),
        follow_symlinks=not name,
    )
