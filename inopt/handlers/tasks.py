"""Handlers that are ``async def``: each request is a trio task, answered when it ends.

The reader that got the request goes on reading. An INTERRUPT cancels the task; a handler that
takes longer than the timeout is named in the log.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog
import trio

from inopt.handlers.adapt import errno_of
from inopt.handlers.calling import Request, current
from inopt.ops import Op, op_name
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_EARLY: Final = 64


class Replies(Protocol):
    """Where a task's answer goes."""

    def reply(self, header: Header, payload: bytes) -> None:
        """Answer a request with success."""
        ...

    def refuse(self, header: Header, number: int) -> None:
        """Answer a request with an errno."""
        ...


class Lead(Protocol):
    """What may see to a job better than a task of its own would."""

    def take(self, job: Job) -> bool:
        """Whether it does; called where the request was read."""
        ...


def _nothing() -> None:
    return


class Guard(NamedTuple):
    """What a job waits for, and what then must be true still: ``check`` raises `OSError`."""

    turn: trio.Lock
    check: Callable[[], None]


class Job(msgspec.Struct):
    """One request on its way through a handler. ``failed`` is called if it comes to nothing."""

    request: Request
    method: Callable[..., Awaitable[Any]]
    arguments: tuple[Any, ...]
    answer: Callable[[Any], bytes | None]
    failed: Callable[[], None] = _nothing
    guard: Guard | None = None


class _Pending(msgspec.Struct):
    """A request that a handler is serving since *began*."""

    header: Header
    began: float
    told: float
    scope: trio.CancelScope | None


class Tasks:
    """The tasks of one mount; they live in *nursery*.

    *timeout* is in seconds, None for none: who serves a request for longer is named in the log.
    """

    def __init__(self, nursery: trio.Nursery, timeout: float | None = None) -> None:
        self._nursery = nursery
        self.timeout = timeout
        self._token = trio.lowlevel.current_trio_token()
        self._pending: dict[int, _Pending] = {}
        # Interrupts of requests that are not tasks: some become one a moment later.
        self._early: deque[int] = deque(maxlen=_EARLY)
        self.replies: Replies | None = None
        self.lead: Lead | None = None
        if timeout is not None:
            nursery.start_soon(self._watch, timeout)

    def begin(self, header: Header, scope: trio.CancelScope | None = None) -> None:
        """A request is served from now on; called by any thread."""
        now = time.monotonic()
        # FORGET has no unique, is never interrupted, and may be going on many times.
        if header.unique:
            self._pending[header.unique] = _Pending(header, now, now, scope)

    def end(self, header: Header) -> None:
        """It is served no more."""
        self._pending.pop(header.unique, None)

    def start(self, job: Job) -> None:
        """Begin a job; called by any thread."""
        try:
            if self.lead is None or not self.lead.take(job):
                self._token.run_sync_soon(self.spawn, job)
        except trio.RunFinishedError:
            raise OSError(errno.ENOTCONN, "the session has ended") from None

    def interrupt(self, unique: int) -> None:
        """Whoever waits for request *unique* has got a signal; called by any thread."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cancel, unique)

    def _cancel(self, unique: int) -> None:
        pending = self._pending.get(unique)
        if pending is None or pending.scope is None:
            self._early.append(unique)
        else:
            pending.scope.cancel()

    def spawn(self, job: Job) -> None:
        """Begin a job in a task of its own; called in the trio thread."""
        self._nursery.start_soon(self._run_alone, job)

    async def _run_alone(self, job: Job) -> None:
        with trio.CancelScope() as scope:
            if job.request.header.unique in self._early:
                scope.cancel()
            await self.run(job, scope)

    async def run(self, job: Job, scope: trio.CancelScope) -> None:
        """Do a job here and now, within *scope*, which is cancelled if it is interrupted."""
        header = job.request.header
        self.begin(header, scope)
        replies = self.replies
        assert replies is not None  # noqa: S101 - set before anything is read
        token = current.set(job.request)
        try:
            if job.guard is None:
                payload = job.answer(await job.method(*job.arguments))
            else:
                async with job.guard.turn:
                    job.guard.check()
                    payload = job.answer(await job.method(*job.arguments))
        except Exception as error:
            job.failed()
            number = errno_of(error)
            if number is None:
                _log.exception(
                    "request failed", opcode=op_name(header.opcode), nodeid=header.nodeid
                )
            replies.refuse(header, number or errno.EIO)
        except BaseException:
            job.failed()
            if scope.cancel_called:
                replies.refuse(header, errno.EINTR)
            raise
        else:
            if payload is not None:
                replies.reply(header, payload)
        finally:
            current.reset(token)
            self.end(header)

    async def _watch(self, seconds: float) -> None:
        while True:
            await trio.sleep(seconds / 4)
            now = time.monotonic()
            for pending in list(self._pending.values()):
                # Who waits for a lock may do so for long.
                if now - pending.told < seconds or pending.header.opcode == Op.SETLKW:
                    continue
                pending.told = now
                _log.warning(
                    "a handler does not answer",
                    opcode=op_name(pending.header.opcode),
                    nodeid=pending.header.nodeid,
                    pid=pending.header.pid,
                    seconds=round(now - pending.began, 1),
                )
