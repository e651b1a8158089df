"""One request from its bytes to its answer: decode it, ask the gate, serve it by its route, reply.

Whose thread that happens in is `inopt.session.loop`'s and `inopt.session.leading`'s business.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from inopt.handlers.failures import DeniedError
from inopt.handlers.gates import Gate, Substitute
from inopt.handlers.serve import Context, Serve, undo
from inopt.handlers.serve.once import OPENS, OneShotOpens
from inopt.kernel.device import Device
from inopt.ops import NO_REPLY, OPCODE_LIMIT, Op, op_name
from inopt.session.stats import Counts
from inopt.wire import replies, requests
from inopt.wire.bodies import Header, Interrupt
from inopt.wire.requests import WireError

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

WITHDRAWN: Final = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
ENDED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.EBADF})
_LARGEST_ERRNO: Final = 511
_COPIED: Final = 8192  # up to so many bytes, joining header and payload beats writev(2)


class Observer(Protocol):
    """Who is told of requests: see `inopt.testing.capture_requests`. Called by many threads."""

    def began(self, header: Header, body: Any, route: str) -> None:
        """A request is about to be served; one that is denied does not begin."""
        ...

    def ended(self, header: Header, body: Any, route: str, number: int) -> None:
        """It is answered, with an errno or 0. *body* is None if a task does so."""
        ...


class Server:
    """What all that serve requests of one session have in common.

    *table* has the function that serves each opcode. ``gates`` is what the policy says to a
    request first, and may be replaced at any time. ``observer``, if there is one, is told of
    every request. ``opens`` sends the replies to opens where they need more than to be written.
    ``interrupt`` is called with the unique of a request whose caller got a signal.
    """

    def __init__(
        self,
        device: Device,
        decoder: requests.Decoder,
        context: Context,
        table: list[Serve | None],
    ) -> None:
        self.device = device
        self.decoder = decoder
        self.context = context
        self.table = table
        self.gates: list[Gate | None] = [None] * OPCODE_LIMIT
        self.observer: Observer | None = None
        self.opens = OneShotOpens(context, device) if context.dialect.one_shot else None
        self.interrupt: Callable[[int], None] | None = None
        self.task_counts = Counts()

    def send(self, header: Header, payload: bytes) -> None:
        """Answer a request. What the kernel does not take is taken back."""
        if self.opens is not None and header.opcode in OPENS:
            self.opens.send(header, payload, self._write)
        else:
            self._write(header, payload)

    def _write(self, header: Header, payload: bytes) -> int:
        """Returns 0, or the errno with which the kernel has refused it."""
        descriptor = self.device.descriptor
        try:
            if len(payload) <= _COPIED:
                os.write(descriptor, replies.message(header.unique, payload))
            else:
                head = replies.header(header.unique, len(payload))
                os.writev(descriptor, (head, payload))
        except OSError as error:
            if payload:
                undo(self.context, header.opcode, payload)
            _tell(header, len(payload), error)
            return error.errno or errno.EIO
        return 0

    def send_error(self, header: Header, number: int) -> None:
        """Answer a request with an errno."""
        if not 0 < number <= _LARGEST_ERRNO:
            number = errno.EIO
        try:
            os.write(self.device.descriptor, replies.error(header.unique, number))
        except OSError as error:
            _tell(header, 0, error)

    def reply(self, header: Header, payload: bytes) -> None:
        """Answer a request that a task has served."""
        if self.observer is not None:
            self.observer.ended(header, None, "handler", 0)
        self.send(header, payload)

    def refuse(self, header: Header, number: int) -> None:
        """Answer a request that a task could not serve."""
        if self.observer is not None:
            self.observer.ended(header, None, "handler", number)
        self.task_counts.errors[header.opcode] += 1
        if header.opcode not in NO_REPLY:
            self.send_error(header, number)

    def special(self, header: Header, body: object) -> bytes | None:
        """Answer INTERRUPT and DESTROY; all else that nobody serves is ``ENOSYS``."""
        if header.opcode == Op.INTERRUPT and isinstance(body, Interrupt):
            if self.interrupt is not None:
                self.interrupt(body.unique)
            return None
        if header.opcode == Op.DESTROY:
            return b""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class Worker:
    """Who serves one request after the other. ``epoch`` and ``busy`` are for the descriptor cache.

    ``served`` counts requests; ``unique`` and ``opcode`` are the present one's, or the last one's.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.counts = Counts()
        self.busy = False
        self.epoch = 0
        self.served = 0
        self.unique = 0
        self.opcode = 0
        server.context.tree.descriptors.workers.append(self)

    def serve(self, buffer: bytearray, received: int) -> None:
        """Serve the request of *received* bytes in *buffer*; a task may answer it later."""
        cache = self.server.context.tree.descriptors
        self.epoch = cache.epoch
        self.busy = True
        self._answer(buffer, received)
        self.busy = False
        self.served += 1
        if cache.retired:
            cache.close_retired(self)

    def _answer(self, buffer: bytearray, received: int) -> None:
        server = self.server
        try:
            header = requests.decode_header(buffer, received)
        except WireError as error:
            # Without a header there is nobody to answer; the kernel has never sent such a thing.
            _log.error("not a request", error=str(error))
            return
        opcode = header.opcode
        self.opcode = opcode
        self.unique = header.unique
        payload: bytes | None
        body: Any = None
        counted = self.counts.daemon
        try:
            body = server.decoder.decode(header, buffer)
            serve = server.table[opcode]
            gate = server.gates[opcode]
            if gate is not None:
                handler = gate(header, body)
                if handler is not None:
                    serve = handler
                    if not isinstance(handler, Substitute):
                        counted = self.counts.handler
            if server.observer is not None:
                server.observer.began(header, body, self._route(counted))
            payload = server.special(header, body) if serve is None else serve(header, body)
        except DeniedError as error:
            self._fail(header, body, error.errno or errno.EACCES, self.counts.denied)
            return
        except OSError as error:
            self._fail(header, body, error.errno or errno.EIO, counted)
            return
        except WireError as error:
            _log.warning("request refused", opcode=op_name(opcode), error=str(error))
            self._fail(header, body, error.errno, counted)
            return
        except Exception:
            _log.exception("request failed", opcode=op_name(opcode), nodeid=header.nodeid)
            self._fail(header, body, errno.EIO, counted)
            return
        counted[opcode] += 1
        if server.observer is not None and (payload is not None or opcode in NO_REPLY):
            server.observer.ended(header, body, self._route(counted), 0)
        if payload is not None:
            server.send(header, payload)

    def _route(self, counted: list[int]) -> str:
        if counted is self.counts.daemon:
            return "daemon"
        return "handler" if counted is self.counts.handler else "denied"

    def _fail(self, header: Header, body: Any, number: int, counted: list[int]) -> None:
        opcode = header.opcode
        if self.server.observer is not None:
            self.server.observer.ended(header, body, self._route(counted), number)
        if opcode < len(counted):
            counted[opcode] += 1
            if counted is not self.counts.denied:
                self.counts.errors[opcode] += 1
        if opcode not in NO_REPLY:
            self.server.send_error(header, number)


def _tell(header: Header, length: int, error: OSError) -> None:
    if error.errno not in WITHDRAWN and error.errno not in ENDED:
        _log.error(
            "the kernel refused a reply",
            opcode=op_name(header.opcode),
            nodeid=header.nodeid,
            length=length,
            error=error.strerror,
        )
