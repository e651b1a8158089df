"""Android's common kernels 5.4 to 6.1, and ports of their patch: read/write bypass.

Source: Android's include/uapi/linux/fuse.h (``FUSE_PASSTHROUGH``,
``FUSE_DEV_IOC_PASSTHROUGH_OPEN``, ``fuse_open_out.passthrough_fh``).
"""

from __future__ import annotations

from typing import Final

from inopt.kernel.device import Device
from inopt.kernel.dialects.interface import NO_OPS, Tier
from inopt.kernel.dialects.mainline import Mainline
from inopt.kernel.dialects.plain import Plain
from inopt.ops import OpsMask
from inopt.wire import replies

_PASSTHROUGH: Final = 1 << 31


class Android(Plain):
    """INIT flag 31, and a number in the OPEN reply that one ioctl gives for one reply."""

    name = "android"
    tier = Tier.RW
    init_flags = _PASSTHROUGH
    one_shot = True
    # Elsewhere the flag is a reserved one: only the ioctl tells.
    proved_by_probe = True

    @classmethod
    def missing(cls, offered: int) -> str | None:
        """Why not: a kernel with mainline's bypass means something else by flag 31."""
        if offered & Mainline.init_flags:
            return "the kernel has mainline's FUSE_PASSTHROUGH"
        return super().missing(offered)

    def register(
        self,
        device: Device,
        descriptor: int,
        ops_mask: OpsMask = NO_OPS,  # noqa: ARG002 - there is no field for it
    ) -> int:
        """PASSTHROUGH_OPEN; *descriptor* is opened as the client's, and may be closed then."""
        return device.passthrough_open(descriptor)

    def release(self, device: Device, backing_id: int) -> None:
        """Nothing: the reply has used it up, and there is no other way."""

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:
        """``struct fuse_open_out`` with ``passthrough_fh``; no flag tells of it."""
        return replies.open(handle, flags, backing_id)
