"""Opens on kernels where a registration is used up by one reply (`Dialect.one_shot`).

Each bypassed open registers a descriptor of its own there, one that is opened for what the client
may do: the kernel reads and writes by that. It happens when the reply is about to be written. So
what fails before that, or what a handler changes its mind about, has registered nothing, which is
well, since there is no way to give such a registration back. And the credentials of that moment
are those that the kernel keeps, whether it takes them when registering or from the reply.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

import structlog

from inopt.backing.attached import reason_of
from inopt.backing.caller import RegisteringIdentity
from inopt.backing.files import OpenFile
from inopt.handlers.serve.context import Context, without_direct
from inopt.kernel.device import Device
from inopt.ops import Op
from inopt.wire.bodies import Header
from inopt.wire.uapi import FOPEN_DIRECT_IO

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

OPENS: Final = frozenset({Op.OPEN, Op.CREATE, Op.TMPFILE})
_OPEN_SIZE: Final = 16  # struct fuse_open_out: handle, flags and backing id, last in each reply

# Writes a reply; returns 0, or the errno that the kernel refused it with.
Send = Callable[[Header, bytes], int]


class OneShotOpens:
    """Sends the replies to opens, and registers backing files on the way."""

    def __init__(self, context: Context, device: Device) -> None:
        self._context = context
        self._device = device
        self._identity = RegisteringIdentity()
        self._told: set[int] = set()

    def send(self, header: Header, payload: bytes, send: Send) -> None:
        """Answer an open by *send*; a bypassed one names a registration of its own."""
        handle = int.from_bytes(payload[-_OPEN_SIZE:-8], "little")
        file = self._context.files.get_or_none(handle)
        if file is None or not file.bypasses:
            send(header, payload)
            return
        # Taken out: the reply's receiver may close at once, and another thread serves that.
        descriptor, file.descriptor = file.descriptor, -1
        status = os.fstat(descriptor)

        def register() -> int:
            return self._register(descriptor, handle, header, payload, send)

        try:
            refused: int = self._identity.run(status.st_uid, register)
        except OSError as error:
            file.descriptor = descriptor
            self._tell(file, error.errno or errno.EIO)
            if error.errno == errno.EINVAL:
                self._context.attachments.refuse(status.st_dev)
            send(header, self._reply(payload, handle, self._not_bypassing(file), 0))
            return
        os.close(descriptor)
        self._context.tree.descriptors.held -= 1
        if refused == errno.EINVAL:
            # The kernel looks at the file only now (rfc-v7), and this open has failed.
            self._tell(file, refused)
            self._context.attachments.refuse(status.st_dev)

    def _register(
        self, descriptor: int, handle: int, header: Header, payload: bytes, send: Send
    ) -> int:
        """Register and send; returns what *send* does. Raises `OSError` if nothing was sent."""
        dialect = self._context.dialect
        backing_id = dialect.register(self._device, descriptor)
        try:
            return send(header, self._reply(payload, handle, 0, backing_id))
        finally:
            dialect.release(self._device, backing_id)

    def _not_bypassing(self, file: OpenFile) -> int:
        """Let the daemon serve an open after all; returns what else its reply must say."""
        file.bypasses = False
        without_direct(file.descriptor)
        attachments = self._context.attachments
        others = attachments.change(file.inode, file.descriptor, writes=False, bypasses=False)
        # Others of the inode do bypass: what they write must not be hidden by cached pages.
        return FOPEN_DIRECT_IO if others else 0

    def _reply(self, payload: bytes, handle: int, more_flags: int, backing_id: int) -> bytes:
        flags = int.from_bytes(payload[-8:-4], "little") | more_flags
        return payload[:-_OPEN_SIZE] + self._context.dialect.open(handle, flags, backing_id)

    def _tell(self, file: OpenFile, number: int) -> None:
        level = _log.debug if number in self._told else _log.warning
        self._told.add(number)
        level(
            "not bypassed: the kernel refused the backing file",
            inode=file.inode.number,
            reason=reason_of(number),
            served_by="daemon",
        )
