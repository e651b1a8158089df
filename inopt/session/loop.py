"""Reader threads: read a request, answer it by its route, read the next.

A thread that blocks in read(2) costs about 8 µs of processor time a request; anything that waits
for readiness first, or makes a task for each request, several times that. A second reader slows a
single client down, so there is one, and others are only added while it is stuck in a system call.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from inopt import syscalls
from inopt.handlers.failures import DeniedError
from inopt.handlers.gate import Gate, Substitute
from inopt.handlers.serve import Context, Serve, undo
from inopt.kernel.device import Device
from inopt.kernel.negotiate import READ_BUFFER
from inopt.ops import NO_REPLY, OPCODE_LIMIT, Op, op_name
from inopt.session.stats import Counts
from inopt.wire import replies, requests
from inopt.wire.bodies import Header, Interrupt
from inopt.wire.requests import WireError

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

# A signal that does nothing but end an interruptible system call of the thread it is sent to.
INTERRUPT_SIGNAL: Final = signal.SIGUSR2
_TICK: Final = 0.01  # seconds; a reader in one request for longer than this is stuck
_QUIET_TICKS: Final = 10  # without a request before the watch goes to sleep
_WITHDRAWN: Final = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
_ENDED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.EBADF})
_LARGEST_ERRNO: Final = 511
_COPIED: Final = 8192  # up to so many bytes, joining header and payload beats writev(2)


def take_signal() -> bool:
    """Let the signal do nothing where it would end the process; False if that cannot be done."""
    if signal.getsignal(INTERRUPT_SIGNAL) is not signal.SIG_DFL:
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    signal.signal(INTERRUPT_SIGNAL, lambda *_: None)
    return True


class Observer(Protocol):
    """Who is told of requests: see `inopt.testing.capture_requests`. Called by many threads."""

    def began(self, header: Header, body: Any, route: str) -> None:
        """A request is about to be served; one that is denied does not begin."""
        ...

    def ended(self, header: Header, body: Any, route: str, number: int) -> None:
        """It is answered, with an errno or 0. *body* is None if a task does so."""
        ...


class Reader(threading.Thread):
    """One thread that serves requests. ``epoch`` and ``busy`` are for the descriptor cache."""

    def __init__(self, loop: Loop, number: int) -> None:
        super().__init__(name=f"inopt-reader-{number}", daemon=True)
        self.counts = Counts()
        self.busy = False
        self.parked = False
        self.epoch = 0
        self.served = 0
        self.unique = 0
        self.opcode = 0
        self.resume = threading.Event()
        self._loop = loop

    def run(self) -> None:
        """Serve until the session ends."""
        try:
            syscalls.unshare(syscalls.CLONE_FS)  # creating files sets this thread's umask
            self._serve()
        except BaseException:
            _log.exception("a reader thread failed", reader=self.name)
        finally:
            self.busy = False
            self._loop.reader_ended(self)

    def _serve(self) -> None:
        loop = self._loop
        descriptor = loop.device.descriptor
        buffer = bytearray(READ_BUFFER)
        vector = [buffer]
        cache = loop.context.tree.descriptors
        readv = os.readv
        while True:
            try:
                received = readv(descriptor, vector)
            except OSError as error:
                if error.errno in _WITHDRAWN:
                    continue
                if error.errno in _ENDED:
                    return
                raise
            if not received:
                return  # the other end has closed; the kernel says ENODEV instead
            self.epoch = cache.epoch
            self.busy = True
            if loop.watch_sleeps:
                loop.wake_watch()
            self._answer(buffer, received)
            self.busy = False
            self.served += 1
            if cache.retired:
                cache.close_retired(self)
            if loop.crowded and not loop.keep_reading(self):
                return

    def _answer(self, buffer: bytearray, received: int) -> None:
        loop = self._loop
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
            body = loop.decoder.decode(header, buffer)
            serve = loop.table[opcode]
            gate = loop.gates[opcode]
            if gate is not None:
                handler = gate(header, body)
                if handler is not None:
                    serve = handler
                    if not isinstance(handler, Substitute):
                        counted = self.counts.handler
            if loop.observer is not None:
                loop.observer.began(header, body, self._route(counted))
            payload = loop.special(header, body) if serve is None else serve(header, body)
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
        if loop.observer is not None and (payload is not None or opcode in NO_REPLY):
            loop.observer.ended(header, body, self._route(counted), 0)
        if payload is not None:
            loop.send(header, payload)

    def _route(self, counted: list[int]) -> str:
        if counted is self.counts.daemon:
            return "daemon"
        return "handler" if counted is self.counts.handler else "denied"

    def _fail(self, header: Header, body: Any, number: int, counted: list[int]) -> None:
        opcode = header.opcode
        if self._loop.observer is not None:
            self._loop.observer.ended(header, body, self._route(counted), number)
        if opcode < len(counted):
            counted[opcode] += 1
            if counted is not self.counts.denied:
                self.counts.errors[opcode] += 1
        if opcode not in NO_REPLY:
            self._loop.send_error(header, number)


def _tell(header: Header, length: int, error: OSError) -> None:
    if error.errno not in _WITHDRAWN and error.errno not in _ENDED:
        _log.error(
            "the kernel refused a reply",
            opcode=op_name(header.opcode),
            nodeid=header.nodeid,
            length=length,
            error=error.strerror,
        )


class Loop:
    """The readers of one session, and the watch that adds some while others are stuck.

    *table* has the function that serves each opcode; *limit* is the largest number of readers.
    ``gates`` is what the policy says to a request first, and may be replaced at any time.
    ``observer``, if there is one, is told of every request.
    *ended* is called from the last reader's thread when the kernel has ended the session.
    """

    def __init__(
        self,
        device: Device,
        decoder: requests.Decoder,
        context: Context,
        table: list[Serve | None],
        limit: int,
        ended: Callable[[], None],
    ) -> None:
        self.device = device
        self.decoder = decoder
        self.context = context
        self.table = table
        self.gates: list[Gate | None] = [None] * OPCODE_LIMIT
        self.observer: Observer | None = None
        self.interrupt_task: Callable[[int], None] | None = None
        self.task_counts = Counts()
        self.limit = limit
        self.readers: list[Reader] = []
        self.crowded = False
        self.watch_sleeps = True
        self._may_signal = True
        self._ended = ended
        self._closing = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watch = threading.Thread(target=self._watch_readers, name="inopt-watch", daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._may_signal = take_signal()
        self._add_reader()
        self._watch.start()

    @property
    def counts(self) -> list[Counts]:
        """The counts of the tasks, and of all readers that there have been."""
        return [self.task_counts, *(reader.counts for reader in self.readers)]

    @property
    def active(self) -> int:
        """How many readers are not parked."""
        return sum(not reader.parked for reader in self.readers)

    def _add_reader(self) -> None:
        reader = Reader(self, len(self.readers))
        self.readers.append(reader)
        self.context.tree.descriptors.workers.append(reader)
        reader.start()

    # --- answers -------------------------------------------------------------------------------

    def send(self, header: Header, payload: bytes) -> None:
        """Answer a request. What the kernel does not take is taken back."""
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

    # --- requests that are about the session ---------------------------------------------------

    def special(self, header: Header, body: object) -> bytes | None:
        """Answer INTERRUPT and DESTROY; all else that nobody serves is ``ENOSYS``."""
        if header.opcode == Op.INTERRUPT and isinstance(body, Interrupt):
            self._interrupt(body.unique)
            return None
        if header.opcode == Op.DESTROY:
            return b""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _interrupt(self, unique: int) -> None:
        if self.interrupt_task is not None:
            self.interrupt_task(unique)
        for reader in self.readers if self._may_signal else ():
            if reader.busy and reader.unique == unique and reader.ident is not None:
                signal.pthread_kill(reader.ident, INTERRUPT_SIGNAL)

    # --- how many read -------------------------------------------------------------------------

    def wake_watch(self) -> None:
        """Called with the first request after a quiet time."""
        self.watch_sleeps = False
        self._wake.set()

    def _watch_readers(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            before: list[int] = []
            quiet = 0
            while quiet < _QUIET_TICKS and not self._closing:
                time.sleep(_TICK)
                now = [reader.served for reader in self.readers]
                busy = [reader.busy and not reader.parked for reader in self.readers]
                stuck = [
                    is_busy and was == served
                    for is_busy, was, served in zip(busy, before, now, strict=False)
                ]
                if any(stuck) and self._all_busy():
                    self._help()
                quiet = quiet + 1 if now == before and not any(busy) else 0
                before = now
            self.watch_sleeps = True

    def _all_busy(self) -> bool:
        return all(reader.busy or reader.parked for reader in self.readers)

    def _help(self) -> None:
        with self._lock:
            self.crowded = True
            for reader in self.readers:
                if reader.parked:
                    reader.parked = False
                    reader.resume.set()
                    return
            if len(self.readers) < self.limit:
                self._add_reader()

    def keep_reading(self, reader: Reader) -> bool:
        """Called by *reader* between requests while there are several: park it if another reads.

        Returns False when the session has ended meanwhile.
        """
        with self._lock:
            others = [other for other in self.readers if other is not reader and not other.parked]
            if not any(not other.busy for other in others):
                return True
            reader.parked = True
            self.crowded = len(others) > 1
        reader.resume.wait()
        reader.resume.clear()
        return not self._closing

    def reader_ended(self, reader: Reader) -> None:
        """Called by *reader* as the last thing it does; all others end with it."""
        with self._lock:
            first, self._closing = not self._closing, True
            reader.parked = True
            for other in self.readers:
                other.resume.set()
            self._wake.set()
        if first:
            self._ended()

    def join(self, seconds: float) -> bool:
        """Wait until no reader runs; False if one is stuck for longer than *seconds*."""
        deadline = time.monotonic() + seconds
        for reader in self.readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        return not any(reader.is_alive() for reader in self.readers)
