"""Any kernel: nothing bypasses. What the other dialects have in common is here, too."""

from __future__ import annotations

from typing import ClassVar, Final

from inopt.kernel.device import Device
from inopt.kernel.dialects.interface import NO_OPS, Dialect, Tier
from inopt.ops import OpsMask
from inopt.wire import replies
from inopt.wire.replies import Attributes, Validity
from inopt.wire.uapi import InitFlag


class Plain:
    """No bypass: a session like on any kernel.

    The class says how a dialect is recognized: ``by_name_only``: never by itself;
    ``takes_masks``: an ops_mask is taken at registration; ``proved_by_probe``: the flags that a
    kernel offers are not enough to tell, because others mean something else by them.
    """

    name: str = "none"
    tier = Tier.NONE
    init_flags: int = 0
    unwanted_flags: int = 0
    one_shot = False
    needs_privilege = False
    same_numbers = False
    by_name_only: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = False
    proved_by_probe: ClassVar[bool] = False

    def __init__(self, accepts: OpsMask = NO_OPS) -> None:
        self.accepts = accepts

    @classmethod
    def missing(cls, offered: int) -> str | None:
        """Why a kernel that offers these INIT flags does not speak this; None if it may."""
        lacking = cls.init_flags & ~offered
        if not lacking:
            return None
        bits = [bit for bit in range(64) if lacking >> bit & 1]
        return "the kernel does not offer " + ", ".join(_flag_name(bit) for bit in bits)

    @classmethod
    def speaks(cls, accepts: OpsMask) -> bool:  # noqa: ARG003
        """Whether a kernel that takes these opcodes in a mask speaks this."""
        return True

    def register(self, device: Device, descriptor: int, ops_mask: OpsMask = NO_OPS) -> int:
        """Never called: a session without bypass registers nothing."""
        raise NotImplementedError

    def release(self, device: Device, backing_id: int) -> None:
        """Never called."""
        raise NotImplementedError

    def entry(
        self,
        nodeid: int,
        generation: int,
        attributes: Attributes,
        validity: Validity,
        number: int,
        backing_id: int = 0,  # noqa: ARG002
    ) -> bytes:
        """``struct fuse_entry_out``, which names no backing id."""
        return replies.entry(nodeid, generation, attributes, validity, number)

    def negative_entry(self, validity: Validity) -> bytes:
        """``struct fuse_entry_out`` with nodeid 0."""
        return replies.negative_entry(validity.entry_seconds, validity.entry_nanoseconds)

    def open(self, handle: int, flags: int, backing_id: int) -> bytes:  # noqa: ARG002
        """``struct fuse_open_out`` without a backing id."""
        return replies.open(handle, flags)


def _flag_name(bit: int) -> str:
    name = InitFlag(1 << bit).name
    return f"INIT flag {bit}" + (f" ({name})" if name else "")


PLAIN: Final[Dialect] = Plain()
