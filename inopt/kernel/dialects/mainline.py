"""Linux 6.9 and later: read/write bypass by a registered backing file."""

from __future__ import annotations

from typing import Final

from inopt.kernel.device import Device
from inopt.kernel.dialects.interface import NO_OPS, Dialect, Tier
from inopt.kernel.dialects.plain import Plain
from inopt.ops import OpsMask
from inopt.wire import replies, uapi


class Mainline(Plain):
    """Ioctl BACKING_OPEN, and ``FOPEN_PASSTHROUGH`` in the OPEN reply.

    INIT flag 37 means the same in every kernel that has it.
    """

    name = "mainline"
    tier = Tier.RW
    init_flags = int(uapi.InitFlag.PASSTHROUGH)
    needs_privilege = True

    def register(
        self,
        device: Device,
        descriptor: int,
        ops_mask: OpsMask = NO_OPS,  # noqa: ARG002 - there is no field for it
    ) -> int:
        """BACKING_OPEN."""
        return device.backing_open(descriptor)

    def release(self, device: Device, backing_id: int) -> None:
        """BACKING_CLOSE."""
        device.backing_close(backing_id)

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:
        """``struct fuse_open_out``, with the backing id if there is one."""
        if not backing_id:
            return replies.open(handle, flags)
        # KEEP_CACHE beside PASSTHROUGH is an error: there is no page cache to keep.
        flags = flags & ~uapi.FOPEN_KEEP_CACHE | uapi.FOPEN_PASSTHROUGH
        return replies.open(handle, flags, backing_id)


MAINLINE: Final[Dialect] = Mainline()
