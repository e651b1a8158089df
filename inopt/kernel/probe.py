"""What can this kernel do? Asked on a private session that is mounted nowhere.

``fsopen("fuse")`` and ``FSCONFIG_CMD_CREATE`` start a session whose INIT arrives on the device;
closing both descriptors ends it (Linux 5.2; measured on 6.18). Nothing is guessed from one INIT
flag, since flags have had different meanings: flag 43 is ``FUSE_PASSTHROUGH_INO`` where masks are
taken, and ``FUSE_HAS_IO_URING_BUFPOOL`` in Linux 7.3.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from inopt import syscalls
from inopt.kernel.abilities import Abilities, candidates
from inopt.kernel.device import Device
from inopt.kernel.dialects import NO_OPS, Dialect, Plain
from inopt.kernel.negotiate import READ_BUFFER, Wishes, terms_in
from inopt.ops import OpsMask
from inopt.wire import replies, requests
from inopt.wire.bodies import Init
from inopt.wire.uapi import HIGHEST_MINOR

_SET_STRING: Final = 1
_CREATE: Final = 6


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

    With *backing*, a descriptor of a regular file that is open for reading, ``bypass_error`` is
    about that file in a session of *max_stack_depth* (1 or 2): ``ELOOP`` says that its filesystem
    is stacked deeper. Raises `UsageError` without /dev/fuse, `OSError` from fsopen(2).
    """
    return ask(private_session, backing, max_stack_depth)


@contextmanager
def private_session() -> Iterator[Device]:
    """A session that is mounted nowhere; its INIT waits to be read."""
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
            yield device
        finally:
            os.close(context)
    finally:
        device.close()


def ask(
    sessions: Callable[[], AbstractContextManager[Device]],
    backing: int = -1,
    max_stack_depth: int = 1,
) -> Abilities:
    """What is behind *sessions*, each call of which begins a new one.

    The dialects that the offered flags allow are tried, the best first: one session for all that
    are negotiated alike.
    """
    wishes = Wishes(max_stack_depth=max_stack_depth)
    tried: set[int] = set()
    found = None
    while True:
        with sessions() as device:
            unique, offer = read_init(device)
            kinds = [kind for kind in candidates(offer.flags) if kind.init_flags not in tried]
            if not kinds:
                break
            tried.add(kinds[0].init_flags)
            alike = [kind for kind in kinds if kind.init_flags == kinds[0].init_flags]
            terms = terms_in(alike[0](), offer, wishes)
            os.write(device.descriptor, replies.message(unique, terms.reply))
            answer = _answer(device, offer, alike, backing)
            if answer.can_bypass:
                return answer
            # What the last one, the most common, says is what most can do something about.
            found = answer
    return found or Abilities(offer.major, offer.minor, offer.flags, errno.ENOTTY)


def _answer(device: Device, offer: Init, alike: list[type[Plain]], backing: int) -> Abilities:
    """Which of the dialects *alike* the kernel speaks, on a session that was negotiated so."""
    accepts = OpsMask()
    error = _register(alike[0](), device, backing)
    if error == 0 and alike[0].takes_masks:
        accepts = accepted(alike[0](), device)
    for kind in alike:
        if error == 0 and kind.speaks(accepts):
            return Abilities(offer.major, offer.minor, offer.flags, 0, kind.name, accepts)
    return Abilities(offer.major, offer.minor, offer.flags, error or errno.EINVAL)


def accepted(dialect: Dialect, device: Device) -> OpsMask:
    """The opcodes that the kernel takes in a mask, each asked for alone.

    ``EINVAL`` says that a bit is not known: the descriptor is looked at after the mask.
    """
    taken = 0
    for bit in range(64):
        mask = OpsMask(1 << bit)
        if _register(dialect, device, -1, mask) == 0:
            taken |= int(mask)
    return OpsMask(taken)


def _register(dialect: Dialect, device: Device, backing: int, mask: OpsMask = NO_OPS) -> int:
    """Try to register *backing*; 0 for success, or the errno.

    -1 is no descriptor, which is what is looked at last: ``EBADF`` means that all the rest is
    right.
    """
    try:
        dialect.release(device, dialect.register(device, backing, mask))
    except OSError as error:
        if backing < 0 and error.errno == errno.EBADF:
            return 0
        return error.errno or errno.EIO
    return 0
