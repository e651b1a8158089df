"""How one kernel generation spells passthrough: one small class each, behind one interface.

Nothing else in inopt knows how a backing file is registered or named in a reply.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

from inopt.kernel.device import Device
from inopt.wire import replies, uapi
from inopt.wire.replies import Attributes, Validity


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
    """What differs between kernel generations."""

    name: str
    tier: Tier
    init_flags: int

    def register(self, device: Device, descriptor: int) -> int:
        """Register the file behind *descriptor*; returns its backing id, > 0."""
        ...

    def release(self, device: Device, backing_id: int) -> None:
        """Give a backing id back."""
        ...

    def entry(
        self, nodeid: int, generation: int, attributes: Attributes, validity: Validity, number: int
    ) -> bytes:
        """The payload of an entry reply; *number* is the ``st_ino`` to report."""
        ...

    def negative_entry(self, validity: Validity) -> bytes:
        """The payload of an entry reply that says a name does not exist."""
        ...

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:
        """The payload of an OPEN reply; a *backing_id* of 0 is an open that does not bypass."""
        ...


class Plain:
    """Any kernel: nothing bypasses."""

    name = "none"
    tier = Tier.NONE
    init_flags = 0

    def register(self, device: Device, descriptor: int) -> int:
        """Never called: a session without bypass registers nothing."""
        raise NotImplementedError

    def release(self, device: Device, backing_id: int) -> None:
        """Never called."""
        raise NotImplementedError

    def entry(
        self, nodeid: int, generation: int, attributes: Attributes, validity: Validity, number: int
    ) -> bytes:
        """``struct fuse_entry_out``."""
        return replies.entry(nodeid, generation, attributes, validity, number)

    def negative_entry(self, validity: Validity) -> bytes:
        """``struct fuse_entry_out`` with nodeid 0."""
        return replies.negative_entry(validity.entry_seconds, validity.entry_nanoseconds)

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:  # noqa: ARG002
        """``struct fuse_open_out`` without a backing id."""
        return replies.open(handle, flags)


class Mainline(Plain):
    """Linux 6.9 and later: ioctl BACKING_OPEN, and ``FOPEN_PASSTHROUGH`` in the OPEN reply."""

    name = "mainline"
    tier = Tier.RW
    init_flags = int(uapi.InitFlag.PASSTHROUGH)

    def register(self, device: Device, descriptor: int) -> int:
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


PLAIN: Final[Dialect] = Plain()
MAINLINE: Final[Dialect] = Mainline()
