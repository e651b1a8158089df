"""The posting of August 2020 (RFC v7), never merged: a descriptor in the reply.

Source: the posting's ``FUSE_PASSTHROUGH`` and ``FOPEN_PASSTHROUGH``. Both bits have other meanings
today (``FUSE_SUBMOUNTS``, ``FOPEN_NOFLUSH``), so this is only ever chosen by name.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from inopt.kernel.device import Device
from inopt.kernel.dialects.interface import NO_OPS, Tier
from inopt.kernel.dialects.mainline import Mainline
from inopt.kernel.dialects.plain import Plain
from inopt.ops import OpsMask
from inopt.wire import replies, uapi

_PASSTHROUGH: Final = 1 << 27
_FOPEN_PASSTHROUGH: Final = 1 << 5
_FOPEN_KNOWN: Final = (
    uapi.FOPEN_DIRECT_IO
    | uapi.FOPEN_KEEP_CACHE
    | uapi.FOPEN_NONSEEKABLE
    | uapi.FOPEN_CACHE_DIR
    | uapi.FOPEN_STREAM
)


class RfcV7(Plain):
    """The reply to OPEN has a descriptor of whoever writes it, and a flag that says so."""

    name = "rfc-v7"
    tier = Tier.RW
    init_flags = _PASSTHROUGH
    one_shot = True
    by_name_only = True

    @classmethod
    def missing(cls, offered: int) -> str | None:
        """Why not: a kernel with mainline's bypass means something else by flag 27."""
        if offered & Mainline.init_flags:
            return "the kernel has mainline's FUSE_PASSTHROUGH"
        return super().missing(offered)

    def register(
        self,
        device: Device,  # noqa: ARG002 - the device is not told
        descriptor: int,
        ops_mask: OpsMask = NO_OPS,  # noqa: ARG002 - there is no field for it
    ) -> int:
        """A descriptor of the same open file, good until `release`; 0 means "none"."""
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 1)

    def release(self, device: Device, backing_id: int) -> None:  # noqa: ARG002
        """Close the descriptor; the kernel has the file by now, if it wanted it."""
        os.close(backing_id)

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:
        """``struct fuse_open_out``, with the descriptor if there is one."""
        flags &= _FOPEN_KNOWN
        if not backing_id:
            return replies.open(handle, flags)
        return replies.open(handle, flags | _FOPEN_PASSTHROUGH, backing_id)
