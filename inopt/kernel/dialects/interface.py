"""What a dialect is: everything in which kernel generations differ about the bypass."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from inopt.kernel.device import Device
from inopt.ops import OpsMask
from inopt.wire.replies import Attributes, Validity

NO_OPS = OpsMask()


class Tier(IntEnum):
    """What of the bypass a session has; each includes the ones before."""

    NONE = 0
    RW = 1
    INODE = 2

    @property
    def label(self) -> str:
        """The name in policies, options and reports."""
        return self.name.lower()


class Dialect(Protocol):
    """How one kernel generation spells the bypass.

    ``init_flags`` are negotiated, ``unwanted_flags`` are left out even where the kernel offers
    them. ``accepts``: the opcodes that the running kernel takes in an ops_mask, as the probe has
    found; nothing in a dialect without masks. ``one_shot``: a registration is used up by one reply
    to OPEN or CREATE, it needs a descriptor opened for what the client may do, and opens of one
    inode with and without bypass may mix. ``needs_privilege``: registering takes CAP_SYS_ADMIN in
    the initial user namespace. ``same_numbers``: the kernel takes a backing file for an inode of
    the same number only.
    """

    name: str
    tier: Tier
    init_flags: int
    unwanted_flags: int
    accepts: OpsMask
    one_shot: bool
    needs_privilege: bool
    same_numbers: bool

    def register(self, device: Device, descriptor: int, ops_mask: OpsMask = NO_OPS) -> int:
        """Register the file behind *descriptor*; returns its backing id, > 0.

        *ops_mask*: what the kernel is to serve by itself from the entry reply on that names the
        id. Raises `OSError`, see `Device`.
        """
        ...

    def release(self, device: Device, backing_id: int) -> None:
        """Give a backing id back; for a one-shot one, when the reply that names it is written."""
        ...

    def entry(
        self,
        nodeid: int,
        generation: int,
        attributes: Attributes,
        validity: Validity,
        number: int,
        backing_id: int = 0,
    ) -> bytes:
        """The payload of an entry reply; *number* is the ``st_ino`` to report.

        A *backing_id* above 0 is attached to the inode for its life in the kernel.
        """
        ...

    def negative_entry(self, validity: Validity) -> bytes:
        """The payload of an entry reply that says a name does not exist."""
        ...

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:
        """The payload of an OPEN, OPENDIR or CREATE reply; 0 is an open that does not bypass.

        *flags* are ``FOPEN_*`` of mainline, as far as they are not about the bypass.
        """
        ...
