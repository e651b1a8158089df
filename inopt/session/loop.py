"""Reader threads: read a request, answer it by its route, read the next.

A thread that blocks in read(2) costs about 8 µs of processor time a request; anything that waits
for readiness first, or makes a task for each request, several times that. A second reader slows a
single client down, so there is one, and others are only added while it is stuck in a system call.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from inopt import syscalls
from inopt.kernel.negotiate import READ_BUFFER
from inopt.session.attention import Attention
from inopt.session.leading import Leader
from inopt.session.serving import ENDED, WITHDRAWN, Server, Worker
from inopt.session.stats import Counts

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

# A signal that does nothing but end an interruptible system call of the thread it is sent to.
INTERRUPT_SIGNAL: Final = signal.SIGUSR2
_TICK: Final = 0.01  # seconds; a reader in one request for longer than this is stuck
_QUIET_TICKS: Final = 10  # without a request before the watch goes to sleep


def take_signal() -> bool:
    """Let the signal do nothing where it would end the process; False if that cannot be done."""
    if signal.getsignal(INTERRUPT_SIGNAL) is not signal.SIG_DFL:
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    signal.signal(INTERRUPT_SIGNAL, lambda *_: None)
    return True


class Reader(Worker, threading.Thread):
    """One thread that serves requests.

    ``given``: bytes of a request in ``buffer`` that another has read for this one.
    """

    def __init__(self, loop: Loop, number: int) -> None:
        threading.Thread.__init__(self, name=f"inopt-reader-{number}", daemon=True)
        Worker.__init__(self, loop.server)
        self.parked = False
        self.given = 0
        self.buffer = bytearray(READ_BUFFER)
        self.resume = threading.Event()
        self._loop = loop

    def run(self) -> None:
        """Serve until the session ends."""
        try:
            self._loop.thread_ids.add(threading.get_native_id())
            syscalls.unshare(syscalls.CLONE_FS)  # creating files sets this thread's umask
            self._read_and_serve()
        except BaseException:
            _log.exception("a reader thread failed", reader=self.name)
        finally:
            self.busy = False
            self._loop.reader_ended(self)

    def _read_and_serve(self) -> None:
        loop = self._loop
        read = Attention(loop.server.device.descriptor).read
        buffer = self.buffer
        vector = [buffer]
        while True:
            try:
                received = read(vector)
            except OSError as error:
                if error.errno in WITHDRAWN:
                    continue
                if error.errno in ENDED:
                    return
                raise
            if not received:
                return  # the other end has closed; the kernel says ENODEV instead
            if loop.watch_sleeps:
                loop.wake_watch()
            self.serve(buffer, received)
            while loop.crowded:
                if not loop.keep_reading(self):
                    return
                if not self.given:
                    break
                buffer = self.buffer
                vector = [buffer]
                received, self.given = self.given, 0
                self.serve(buffer, received)


class Loop:
    """The readers of one session, and the watch that adds some while others are stuck.

    *limit* is the largest number of readers. ``interrupt_task`` is told of every INTERRUPT, too.
    ``thread_ids``: those of all readers, as the kernel numbers them.
    *ended* is called from the last reader's thread when the kernel has ended the session.
    """

    def __init__(self, server: Server, limit: int, ended: Callable[[], None]) -> None:
        self.server = server
        server.interrupt = self._interrupt
        self.interrupt_task: Callable[[int], None] | None = None
        self.leader: Leader | None = None
        self.limit = limit
        self.readers: list[Reader] = []
        self.thread_ids: set[int] = set()
        self.crowded = False
        self.watch_sleeps = True
        self._may_signal = True
        self._ended = ended
        self._closing = False
        self._handed_over = False
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
        led = [] if self.leader is None else [self.leader.worker.counts]
        return [self.server.task_counts, *led, *(reader.counts for reader in self.readers)]

    @property
    def active(self) -> int:
        """How many readers are not parked."""
        return sum(not reader.parked for reader in self.readers)

    def _add_reader(self) -> None:
        reader = Reader(self, len(self.readers))
        self.readers.append(reader)
        reader.start()

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
                workers: list[Worker] = list(self.readers)
                if self.leader is not None:
                    self.leader.watch()
                    workers.append(self.leader.worker)
                now = [worker.served for worker in workers]
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
            if self._handed_over:
                return
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
        leader = self.leader
        if leader is not None and leader.owes:
            reader.parked = True
            reader.given, reader.buffer = leader.wait(reader.buffer)
            with self._lock:
                reader.parked = self._handed_over = False
                self.crowded = self.active > 1
            return not self._closing
        with self._lock:
            others = [other for other in self.readers if other is not reader and not other.parked]
            if not any(not other.busy for other in others):
                return True
            reader.parked = True
            self.crowded = len(others) > 1
        reader.resume.wait()
        reader.resume.clear()
        return not self._closing

    def hand_over(self) -> bool:
        """Called by a reader: whether it is the only one that reads; then it is to park."""
        with self._lock:
            if self.active != 1:
                return False
            self.crowded = self._handed_over = True
            return True

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
