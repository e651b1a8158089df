"""The trio thread reads requests by itself while it is what serves them.

A request for an ``async def`` handler that a reader thread has got must be passed to the trio
thread: it has to be woken, and that costs more than most handlers do. So with the first such
request the reader passes on the reading, too, and parks. From then on the trio thread reads, runs
the handler in the task that has read, and gives the reading back with the first request that is
not for it, when nothing has come for a while, and when it is held up.

A handler that has to wait goes on in the task that has read its request; another one reads then.
"""

from __future__ import annotations

import os
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Final

import trio

from inopt.handlers.tasks import Job, Tasks
from inopt.kernel.negotiate import READ_BUFFER
from inopt.ops import Op
from inopt.session.attention import Attention
from inopt.session.serving import WITHDRAWN, Server, Worker

# What the daemon answers at once, where the backing tree is in this machine: it is not worth
# waking another thread for.
QUICK: Final = frozenset(
    {
        Op.LOOKUP, Op.FORGET, Op.BATCH_FORGET, Op.GETATTR, Op.STATX, Op.READLINK, Op.ACCESS,
        Op.OPEN, Op.OPENDIR, Op.FLUSH, Op.RELEASE, Op.RELEASEDIR, Op.GETXATTR, Op.LISTXATTR,
    }
)  # fmt: skip
_OF_TASKS: Final = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})
_IN_A_ROW: Final = 16  # requests that are served before other tasks have their turn
_ENDED: Final = 0
_NOTHING: Final = -1


class Leader:
    """The reading of one session in its trio thread, which makes this object.

    ``leads``: it reads, and no reader thread does. ``owes``: a reader thread waits to have the
    reading back, or is about to. ``opcodes``: those that are served here. *hand_over* tells
    whether the thread that asks is the only reader, and if so makes it `wait` next.
    """

    def __init__(
        self, server: Server, tasks: Tasks, nursery: trio.Nursery, hand_over: Callable[[], bool]
    ) -> None:
        self.worker = Worker(server)
        self.leads = False
        self.owes = False
        self.opcodes: frozenset[int] = frozenset()
        self.buffer = bytearray(READ_BUFFER)
        self._tasks = tasks
        self._nursery = nursery
        self._hand_over = hand_over
        self._descriptor = server.device.descriptor
        self._attention = Attention(self._descriptor)
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._context = copy_context()
        self._lock = threading.Lock()
        self._returned = threading.Event()
        self._given = 0
        self._job: Job | None = None
        self._has_task = False
        self._is_settled = True
        self._served_before = 0

    def serves(self, opcodes: frozenset[int], plain: frozenset[int]) -> None:
        """From now on these opcodes are for handlers that are async, or quickly answered.

        But not those that *plain* methods serve, which may take their time.
        """
        self.opcodes = (opcodes | _OF_TASKS) - plain

    # --- called by reader threads and the watch ------------------------------------------------

    def take(self, job: Job) -> bool:
        """Whether *job*, of a request just read, is seen to here; called where it was read."""
        if threading.get_ident() == self._thread:
            self._job = job
            return True
        # A trio thread that is held up, or has not even noticed the last time, is no help.
        if self.leads or self.worker.busy or not self._is_settled or not self._hand_over():
            return False
        self._is_settled = False
        self._served_before = -1
        self._given = 0
        self._returned.clear()
        os.set_blocking(self._descriptor, False)
        self.leads = self.owes = True
        self._token.run_sync_soon(self._begin, job)
        return True

    def wait(self, buffer: bytearray) -> tuple[int, bytearray]:
        """Wait until the reading is given back to this reader thread.

        Returns how many bytes of a request that it is to serve there are, and in which buffer;
        *buffer*, or another one in exchange.
        """
        self._returned.wait()
        self.owes = False
        if self._given:
            buffer, self.buffer = self.buffer, buffer
        return self._given, buffer

    def watch(self) -> None:
        """Called again and again: take the reading back if nothing is served any more."""
        if self.leads and self.worker.served == self._served_before:
            self._give_back()
        self._served_before = self.worker.served

    def _give_back(self) -> None:
        with self._lock:
            if self.leads:
                self._return(0)

    def _return(self, received: int) -> None:
        """Give the reading back, with a request of so many bytes in the buffer; under the lock."""
        self.leads = False
        os.set_blocking(self._descriptor, True)
        self._given = received
        self._returned.set()

    # --- in the trio thread --------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        self._is_settled = True
        self._tasks.spawn(job)
        # One that has not noticed yet that it had to stop goes on instead.
        if not self._has_task:
            self._start()

    def _start(self) -> None:
        self._has_task = True
        self._context.copy().run(self._nursery.start_soon, self._lead)

    async def _lead(self) -> None:
        try:
            # A handler that has to wait makes this task its own, and the scope with it.
            with trio.CancelScope() as scope:
                while await self._read_and_serve(scope):
                    pass
        except BaseException:  # cancelled, at the end of the session
            self._stop_reading()
            raise

    def _stop_reading(self) -> None:
        self._has_task = False
        self._give_back()

    async def _read_and_serve(self, scope: trio.CancelScope) -> bool:
        """Serve until there is nothing left, or wait for more; False if this task is to end."""
        for _ in range(_IN_A_ROW):
            received = self._read()
            if received == _NOTHING:
                asleep = time.monotonic()
                await trio.lowlevel.wait_readable(self._descriptor)
                self._attention.woken(asleep)
                return True
            if received == _ENDED:
                self._stop_reading()
                return False
            self.worker.serve(self.buffer, received)
            job, self._job = self._job, None
            if job is not None and await self._finish(job, scope):
                return False
        await trio.lowlevel.cancel_shielded_checkpoint()
        return True

    def _read(self) -> int:
        # Under the lock, so that nobody makes the descriptor a blocking one meanwhile; and a
        # request that is not for here is passed on before the watch can take the reading back
        # without it.
        with self._lock:
            if not self.leads:
                return _ENDED
            try:
                received = self._attention.read_now([self.buffer])
            except OSError as error:
                return _NOTHING if error.errno in WITHDRAWN else _ENDED
            if received and int.from_bytes(self.buffer[4:8], "little") not in self.opcodes:
                self._return(received)
                return _ENDED
            return received

    async def _finish(self, job: Job, scope: trio.CancelScope) -> bool:
        """Run a handler in this task; whether it had to wait, so that another one reads now."""
        coroutine = self._tasks.run(job, scope)
        try:
            trap = coroutine.send(None)
        except StopIteration:
            return False
        self._start()
        await _rest(coroutine, trap)
        return True


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], trap: Any) -> Generator[Any, Any, None]:
    """What is left of a coroutine that has come to *trap*, which its event loop is to see."""
    while True:
        try:
            try:
                sent = yield trap
            except BaseException as error:
                trap = coroutine.throw(error)
            else:
                trap = coroutine.send(sent)
        except StopIteration:
            return
