"""Locks that come as requests, and who waits for them.

No method waits for a lock: it answers ``EAGAIN``. The request of somebody who waits (SETLKW) is
then kept by a trio task, and asked again when locks of the inode have been given back, and now and
then, because others hold locks underneath of which nobody hears. So it never keeps a reader, an
interrupt ends it like any task, and so does the end of the session.
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import pyfuse3
import trio

from inopt.backing.locks import Locks, Waiting
from inopt.handlers.adapt import CALLS, FLOCK, Call, errno_of
from inopt.handlers.answers import Answers
from inopt.handlers.apart import answer_later, call_function
from inopt.handlers.calling import current
from inopt.handlers.closing import Closing, Method
from inopt.handlers.running import function_of, overrides
from inopt.handlers.serve import Serve
from inopt.handlers.serve.locks import range_of
from inopt.handlers.tasks import Tasks
from inopt.ops import Op
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header

# Seconds between two attempts while nobody tells of anything given back.
_SHORTEST: Final = 0.005
_LONGEST: Final = 0.25


class Locking:
    """The locks of one mount as requests. Made where trio runs."""

    def __init__(self, locks: Locks, answers: Answers, tasks: Tasks) -> None:
        self._locks = locks
        self._answers = answers
        self._tasks = tasks
        self._token = trio.lowlevel.current_trio_token()
        self._waiters: dict[int, set[trio.Event]] = {}
        self._closing = Closing(locks, answers, tasks)
        self._handlers: pyfuse3.Operations | None = None
        locks.released = self._released

    def guard(self, table: list[Serve | None]) -> None:
        """Let the daemon's own functions wait, and give back what was locked."""
        setlk = table[Op.SETLK]
        assert setlk is not None  # noqa: S101 - the daemon serves it
        table[Op.SETLK] = table[Op.SETLKW] = self._patient(setlk)
        self._closing.guard(table)

    def adopt(self, table: list[Serve | None], handlers: pyfuse3.Operations | None) -> None:
        """The same for the functions of *handlers*, in the place of other ones until now."""
        ranges, whole = _own(handlers, "setlk"), _own(handlers, "flock")
        if handlers is not self._handlers:
            self._handlers = handlers
            self._closing.adopt(ranges, whole)
        if handlers is None:
            return
        table[Op.SETLK] = table[Op.SETLKW] = _by_kind(
            self._function(ranges, self._closing.note_range, CALLS[Op.SETLK]),
            self._function(whole, self._closing.note_whole, FLOCK),
        )
        self._closing.guard(table, _own(handlers, "flush"), _own(handlers, "release"))

    def _function(
        self, method: Method | None, note: Callable[..., None], call: Call
    ) -> Serve | None:
        """The function that serves locks by *method*, and notes what it has done."""
        if method is None:
            return None
        method = _noting(method, note)
        if inspect.iscoroutinefunction(method):
            method = self._patient_method(method)
            return function_of(method, call, self._answers, self._tasks)
        return self._patient(function_of(method, call, self._answers, self._tasks))

    # --- waiting -------------------------------------------------------------------------------

    def _may_wait(self, header: Header) -> bool:
        """Whether a request that is answered ``EAGAIN`` now is worth another attempt."""
        return header.opcode == Op.SETLKW or self._closing.is_under_way(header.nodeid)

    def _patient(self, function: Serve) -> Serve:
        """*function*, which never waits, for those who do."""
        tree = self._answers.context.tree

        def serve(header: Header, body: bodies.Lock) -> bytes | None:
            may_wait = self._may_wait(header)
            try:
                return function(header, body)
            except OSError as error:
                if error.errno != errno.EAGAIN or not may_wait:
                    raise
            again = partial(call_function, tree, function, header, body)
            answer_later(
                self._tasks, header, body, lambda: self._until_granted(again, header, body)
            )
            return None

        return serve

    def _patient_method(self, method: Method) -> Method:
        """The same for an async method."""

        async def repeated(*arguments: Any) -> Any:
            request = current.get()
            assert request is not None  # noqa: S101 - a task serves it
            attempt = partial(method, *arguments)
            return await self._until_granted(attempt, request.header, request.body)

        return repeated

    async def _until_granted(
        self, attempt: Callable[[], Awaitable[Any]], header: Header, body: bodies.Lock
    ) -> Any:
        """What *attempt* returns once it does not answer ``EAGAIN`` any more."""
        waiting = Waiting(header.nodeid, body.owner, range_of(body), header.pid)
        waiters = self._waiters.setdefault(header.nodeid, set())
        pause = _SHORTEST
        released = trio.Event()
        try:
            while True:
                # Before the attempt: what is given back meanwhile counts.
                waiters.add(released)
                may_wait = self._may_wait(header)
                try:
                    return await attempt()
                except Exception as error:
                    if errno_of(error) != errno.EAGAIN or not may_wait:
                        raise
                if header.opcode == Op.SETLKW and not body.flags & uapi.LOCK_FLOCK:
                    self._locks.wait(waiting)
                with trio.move_on_after(pause):
                    await released.wait()
                waiters.discard(released)
                pause = _SHORTEST if released.is_set() else min(2 * pause, _LONGEST)
                released = trio.Event()
        finally:
            waiters.discard(released)
            if not waiters and self._waiters.get(header.nodeid) is waiters:
                del self._waiters[header.nodeid]
            self._locks.wait_no_more(waiting)

    def _released(self, nodeid: int) -> None:
        """Whoever waits for a lock on an inode may get it now; called by any thread."""
        if nodeid in self._waiters:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake, nodeid)

    def _wake(self, nodeid: int) -> None:
        for released in self._waiters.get(nodeid, ()):
            released.set()


def _own(handlers: pyfuse3.Operations | None, name: str) -> Method | None:
    """A method of the handlers, None if their class does not override it."""
    if handlers is None or not overrides(type(handlers), name):
        return None
    method: Method = getattr(handlers, name)
    return method


def _by_kind(ranges: Serve | None, whole: Serve | None) -> Serve | None:
    """One function for both kinds of locks. What nobody overrides does not come here."""
    if ranges is None or whole is None:
        return ranges or whole

    def serve(header: Header, body: bodies.Lock) -> bytes | None:
        return (whole if body.flags & uapi.LOCK_FLOCK else ranges)(header, body)

    return serve


def _noting(method: Method, note: Callable[..., None]) -> Method:
    """*method*, and *note* with the same arguments when it has returned."""

    def noted(*arguments: Any) -> Any:
        result = method(*arguments)
        note(*arguments)
        return result

    async def noted_later(*arguments: Any) -> Any:
        result = await method(*arguments)
        note(*arguments)
        return result

    return noted_later if inspect.iscoroutinefunction(method) else noted
