"""What can this kernel do? Asked on a private session that is mounted nowhere.

``fsopen("fuse")`` and ``FSCONFIG_CMD_CREATE`` start a session whose INIT arrives on the device;
closing both descriptors ends it (Linux 5.2; measured on 6.18).
"""

from __future__ import annotations

import errno
import os
from typing import Final

import msgspec

from inopt import syscalls
from inopt.kernel.device import Device
from inopt.kernel.negotiate import READ_BUFFER, Wishes, negotiate
from inopt.wire import replies, requests
from inopt.wire.bodies import Init
from inopt.wire.uapi import HIGHEST_MINOR, InitFlag

_SET_STRING: Final = 1
_CREATE: Final = 6


class Abilities(msgspec.Struct, frozen=True):
    """What the running kernel offers.

    ``bypass_error`` is 0 if backing files can be registered, else the errno that says why not
    (``EPERM``: CAP_SYS_ADMIN is missing; ``ENOTTY``: the kernel does not know how).
    """

    major: int
    minor: int
    flags: int
    bypass_error: int

    @property
    def can_bypass(self) -> bool:
        """Whether the rw tier works here."""
        return self.bypass_error == 0

    def flag_names(self) -> list[str]:
        """The INIT flags offered, by their names in linux/fuse.h; unknown ones as bit numbers."""
        names = []
        for bit in range(64):
            if self.flags >> bit & 1:
                try:
                    names.append(InitFlag(1 << bit).name or f"bit {bit}")
                except ValueError:
                    names.append(f"bit {bit}")
        return names


def read_init(device: Device) -> tuple[int, Init]:
    """Read the first request of a session; returns its ``unique`` and the kernel's offer."""
    buffer = bytearray(READ_BUFFER)
    received = os.readv(device.descriptor, [buffer])
    header = requests.decode_header(buffer, received)
    body = requests.Decoder(HIGHEST_MINOR).decode(header, buffer)
    if not isinstance(body, Init):
        raise requests.WireError(errno.EPROTO, f"expected INIT, got opcode {header.opcode}")
    return header.unique, body


def probe(backing: int = -1, max_stack_depth: int = 1) -> Abilities:
    """Ask the running kernel.

    With *backing*, a descriptor of a regular file, ``bypass_error`` is about that file in a
    session of *max_stack_depth* (1 or 2): ``ELOOP`` says that its filesystem is stacked deeper.
    Raises `UsageError` without /dev/fuse, `OSError` from fsopen(2).
    """
    device = Device()
    try:
        context = syscalls.fsopen(b"fuse")
        try:
            for key, value in (
                (b"source", b"inopt-probe"),
                (b"fd", str(device.descriptor).encode()),
                (b"rootmode", b"40000"),
                (b"user_id", b"0"),
                (b"group_id", b"0"),
            ):
                syscalls.fsconfig(context, _SET_STRING, key, value)
            syscalls.fsconfig(context, _CREATE, None, None)
            return _ask(device, backing, max_stack_depth)
        finally:
            os.close(context)
    finally:
        device.close()


def _ask(device: Device, backing: int, max_stack_depth: int) -> Abilities:
    unique, offer = read_init(device)
    wishes = Wishes(max_stack_depth=max_stack_depth)
    terms = negotiate(offer, wishes, privileged=True)
    os.write(device.descriptor, replies.message(unique, terms.reply))
    bypass_error = 0
    try:
        device.backing_open(backing)
    except OSError as error:
        # The descriptor is looked at last: EBADF means that all the rest is right.
        if backing >= 0 or error.errno != errno.EBADF:
            bypass_error = error.errno or errno.EIO
    return Abilities(offer.major, offer.minor, offer.flags, bypass_error)
