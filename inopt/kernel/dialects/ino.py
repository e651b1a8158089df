"""The inode-operations postings of 2026: an ops_mask, attached to an inode by its entry reply.

Source: the postings' ``FUSE_PASSTHROUGH_INO``, ``struct fuse_backing_map`` with ``ops_mask``,
``struct fuse_entry2_out``. INIT flag 43 is ``FUSE_HAS_IO_URING_BUFPOOL`` in Linux 7.3, so it is the
masks that a kernel takes that tell.
"""

from __future__ import annotations

from typing import Final

from inopt.kernel.device import Device
from inopt.kernel.dialects.interface import NO_OPS, Tier
from inopt.kernel.dialects.mainline import Mainline
from inopt.ops import Op, OpsMask
from inopt.wire import replies
from inopt.wire.replies import Attributes, Validity
from inopt.wire.uapi import InitFlag

_PASSTHROUGH_INO: Final = 1 << 43
# Of no effect in a mask: that opens bypass is told by their replies.
_BY_OPEN: Final = OpsMask.of(Op.READ, Op.WRITE)


class InoV2(Mainline):
    """The second posting (May 2026): OPEN is not in masks; every entry is a ``fuse_entry2_out``."""

    name = "ino-v2"
    tier = Tier.INODE
    init_flags = Mainline.init_flags | _PASSTHROUGH_INO
    # An inode that is met through READDIRPLUS has no backing until it is looked up once more.
    unwanted_flags = int(InitFlag.DO_READDIRPLUS | InitFlag.READDIRPLUS_AUTO)
    same_numbers = True
    takes_masks = True
    proved_by_probe = True

    @classmethod
    def speaks(cls, accepts: OpsMask) -> bool:
        """Whether masks are taken at all, without OPEN."""
        return bool(accepts - _BY_OPEN) and Op.OPEN not in accepts

    def register(self, device: Device, descriptor: int, ops_mask: OpsMask = NO_OPS) -> int:
        """BACKING_OPEN with a mask; an ``O_PATH`` descriptor will do."""
        return device.backing_open(descriptor, int(ops_mask))

    def entry(
        self,
        nodeid: int,
        generation: int,
        attributes: Attributes,
        validity: Validity,
        number: int,
        backing_id: int = 0,
    ) -> bytes:
        """``struct fuse_entry2_out``."""
        return replies.entry2(nodeid, generation, attributes, validity, number, backing_id)

    def negative_entry(self, validity: Validity) -> bytes:
        """``struct fuse_entry2_out`` with nodeid 0."""
        return replies.negative_entry2(validity.entry_seconds, validity.entry_nanoseconds)


class InoV1(InoV2):
    """The first posting (April 2026): OPEN is in masks, too, and both structures are taken."""

    name = "ino-v1"

    @classmethod
    def speaks(cls, accepts: OpsMask) -> bool:
        """Whether masks may have OPEN."""
        return Op.OPEN in accepts

    def entry(
        self,
        nodeid: int,
        generation: int,
        attributes: Attributes,
        validity: Validity,
        number: int,
        backing_id: int = 0,
    ) -> bytes:
        """``struct fuse_entry2_out`` where there is a backing id to name."""
        if backing_id:
            return super().entry(nodeid, generation, attributes, validity, number, backing_id)
        return replies.entry(nodeid, generation, attributes, validity, number)

    def negative_entry(self, validity: Validity) -> bytes:
        """``struct fuse_entry_out`` with nodeid 0."""
        return replies.negative_entry(validity.entry_seconds, validity.entry_nanoseconds)
