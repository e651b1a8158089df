"""/dev/fuse: one descriptor, from which requests are read and to which replies are written.

Source: linux/fuse.h (ioctl numbers, ``struct fuse_backing_map``), fs/fuse/dev.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

from inopt.exceptions import UsageError

PATH: Final = "/dev/fuse"

_BACKING_OPEN: Final = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE: Final = 0x4004E502  # _IOW(229, 2, u32)
_PASSTHROUGH_OPEN: Final = 0x4004E57E  # _IOW(229, 126, u32), Android's
_BACKING_MAP: Final = struct.Struct("<iIQ")
_U32: Final = struct.Struct("<I")


class Device:
    """An open /dev/fuse. Raises `UsageError` if it cannot be opened."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            try:
                descriptor = os.open(PATH, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise UsageError(_advice(error)) from error
        self.descriptor = descriptor

    def backing_open(self, descriptor: int, ops_mask: int = 0) -> int:
        """Register a backing file (mainline, Linux 6.9); returns its id, > 0.

        *ops_mask* has an opcode as ``1 << (opcode - 1)``; kernels without masks want 0. Raises
        `OSError`: ``EPERM`` (not negotiated, or no CAP_SYS_ADMIN), ``ELOOP`` (stacked too deep),
        ``EISDIR`` (a directory, and no mask that makes sense of it), ``EINVAL`` (not a regular
        file; an opcode the kernel does not take), ``EBADF``, ``ENOMEM``.
        """
        # With a mutable argument the result is the ioctl's, not the buffer.
        argument = bytearray(_BACKING_MAP.pack(descriptor, 0, ops_mask))
        backing_id: int = fcntl.ioctl(self.descriptor, _BACKING_OPEN, argument)
        return backing_id

    def backing_close(self, backing_id: int) -> None:
        """Give an id back. Files open by it are not affected."""
        fcntl.ioctl(self.descriptor, _BACKING_CLOSE, bytearray(_U32.pack(backing_id)))

    def notify(self, message: bytes) -> bool:
        """Send a notification (`inopt.wire.notifications`); False if it is about nothing known.

        Raises `OSError` for anything else: ``EINVAL`` (this kernel has no such notification),
        ``ENOTDIR``, ``ENOTEMPTY``, ``EBUSY`` (of a name that was to be deleted). May wait for
        pages that requests in flight are to bring.
        """
        try:
            os.write(self.descriptor, message)
        except FileNotFoundError:
            return False
        return True

    def passthrough_open(self, descriptor: int) -> int:
        """Register an open file for one reply (Android); returns its number, > 0.

        Raises `OSError`: ``ENOTTY`` (another kernel), ``EPERM`` (not negotiated), ``EBADF`` (no
        such descriptor, or ``O_PATH``), ``EINVAL`` (not a regular file, or stacked too deep).
        """
        number: int = fcntl.ioctl(
            self.descriptor, _PASSTHROUGH_OPEN, bytearray(_U32.pack(descriptor & 0xFFFF_FFFF))
        )
        return number

    def close(self) -> None:
        """Close the descriptor; the last one of a session ends it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            way_out = "load the module with 'modprobe fuse', or give the container /dev/fuse"
        case errno.EACCES | errno.EPERM:
            way_out = "run as root, or let the device cgroup allow character device 10:229"
        case _:
            way_out = "see 'inopt doctor'"
    return f"{PATH}: cannot be opened ({error.strerror}): {way_out}"
