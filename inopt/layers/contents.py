"""What files contain: whether two are alike, and a copy that shares what it can.

Holes are skipped (lseek(2) ``SEEK_DATA``). Progress is told in bytes, as often as they are many.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from inopt import syscalls

Told: TypeAlias = Callable[[int], object]
"""Is called with a number of bytes that are done."""

_PIECE: Final = 1 << 20
_COPY_PIECE: Final = 64 << 20
_FICLONE: Final = 0x40049409  # linux/fs.h
# What is said of two filesystems, or of one that cannot, whatever the files are.
_NEVER_SHARED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV})
_NO_COPY_RANGE: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ETXTBSY}
)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file of *size* bytes has data: begin and end of each piece. Raises `OSError`."""
    position = 0
    while position < size:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno != errno.EINVAL:
                raise
            begin, end = position, size  # a filesystem that does not tell
        else:
            end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        if begin >= size:
            return
        yield begin, end
        position = end


def are_alike(one: int, other: int, size: int, told: Told) -> bool:
    """Whether two files of *size* bytes have the same contents. Raises `OSError`."""
    position = 0
    while position < size:
        # Where neither has data, both have zeros.
        starts = [next(_from(file, position, size), size) for file in (one, other)]
        told(min(starts) - position)
        position = min(starts)
        piece = min(_PIECE, size - position)
        if piece and os.pread(one, piece, position) != os.pread(other, piece, position):
            return False
        position += piece
        told(piece)
    return True


def _from(descriptor: int, position: int, size: int) -> Iterator[int]:
    try:
        yield min(os.lseek(descriptor, position, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno != errno.ENXIO:
            yield position


def copy_contents(
    source: int, target: int, size: int, told: Told, *, may_share: bool = True
) -> bool:
    """Fill the empty file *target* with what *source* has: shared, or copied without its holes.

    Returns whether files of these two filesystems may share anything; where they may not
    (*may_share*), it is not tried. Raises `OSError`.
    """
    if may_share:
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            may_share = error.errno not in _NEVER_SHARED
        else:
            told(size)
            return True
    in_kernel = True
    for begin, end in data_ranges(source, size):
        in_kernel = _copy_range(source, target, begin, end, told, in_kernel=in_kernel)
    if os.fstat(target).st_size < size:
        os.ftruncate(target, size)  # it ends with a hole
    return may_share


def _copy_range(
    source: int, target: int, begin: int, end: int, told: Told, *, in_kernel: bool
) -> bool:
    """Copy one range; whether the kernel has done it, which is not asked again where it cannot."""
    position = begin
    while position < end:
        copied = 0
        if in_kernel:
            piece = min(_COPY_PIECE, end - position)
            try:
                copied = syscalls.copy_file_range(source, position, target, position, piece)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno not in _NO_COPY_RANGE:
                    raise
                in_kernel = False
        if not copied:
            # Some filesystems say that there is nothing to copy when they mean that they cannot.
            block = os.pread(source, min(_PIECE, end - position), position)
            if not block:
                return in_kernel  # it has become shorter
            copied = os.pwrite(target, block, position)
        position += copied
        told(copied)
    return in_kernel
