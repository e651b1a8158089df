"""What closing a file gives back: locks.

The kernel does not unlock at close(2), it tells who has closed what: FLUSH for the locks of a
process, RELEASE for those of an open file. What the daemon holds for them goes then, whatever a
handler does; handlers that have granted a lock are asked to take it back. The order is the kernel's
own: after the flush, before the release (filp_flush(), __fput()).
"""

from __future__ import annotations

import fcntl
import inspect
from collections.abc import Callable
from threading import Lock as Mutex
from typing import Any, Final

import structlog
import trio

from inopt.backing.locks import Locks
from inopt.backing.ranges import LAST_BYTE
from inopt.handlers.adapt import CALLS
from inopt.handlers.answers import Answers
from inopt.handlers.apart import answer_later, call_function, call_method
from inopt.handlers.calling import current
from inopt.handlers.running import function_of
from inopt.handlers.serve import Serve
from inopt.handlers.tasks import Tasks
from inopt.handlers.types import Lock, context_of
from inopt.ops import Op
from inopt.wire import bodies
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_PATIENCE: Final = 10.0  # seconds for a handler to take a lock back, though nobody waits any more

Method = Callable[..., Any]


class Closing:
    """How the locks of one mount end."""

    def __init__(self, locks: Locks, answers: Answers, tasks: Tasks) -> None:
        self._locks = locks
        self._answers = answers
        self._context = answers.context
        self._tasks = tasks
        self._setlk: Method | None = None
        self._flock: Method | None = None
        self._granted = _Granted()

    def adopt(self, setlk: Method | None, flock: Method | None) -> None:
        """Other handlers grant locks from now on, by these methods; what others have is theirs."""
        self._setlk, self._flock = setlk, flock
        self._granted = _Granted()

    # --- what has been granted -----------------------------------------------------------------

    def _nodeid_of(self, handle: int) -> int:
        return self._context.files.get(handle).inode.nodeid

    def note_range(self, handle: int, lock: Lock, *_: Any) -> None:
        """A handler has done what `setlk` asks for."""
        nodeid = self._nodeid_of(handle)
        if lock.type != fcntl.F_UNLCK:
            self._granted.add(nodeid, lock.owner, handle)
        elif lock.start == 0 and lock.end == LAST_BYTE:
            self._granted.pop(nodeid, lock.owner)
        if lock.type != fcntl.F_WRLCK:
            self._locks.released(nodeid)

    def note_whole(self, handle: int, operation: int, *_: Any) -> None:
        """A handler has done what `flock` asks for."""
        wanted = operation & ~fcntl.LOCK_NB
        if wanted == fcntl.LOCK_UN:
            self._granted.flocked.discard(handle)
        else:
            self._granted.flocked.add(handle)
        if wanted != fcntl.LOCK_EX:
            self._locks.released(self._nodeid_of(handle))

    # --- closing -------------------------------------------------------------------------------

    def guard(
        self, table: list[Serve | None], flush: Method | None = None, release: Method | None = None
    ) -> None:
        """Let FLUSH and RELEASE give back what was locked.

        *flush* and *release* are the methods by which *table* serves them, None for the daemon's.
        """
        flushing, releasing = table[Op.FLUSH], table[Op.RELEASE]
        if flushing is not None and self._locks.posix:
            if inspect.iscoroutinefunction(flush):
                table[Op.FLUSH] = self._flushing_async(flush)
            else:
                table[Op.FLUSH] = self._flushing(flushing)
        if releasing is not None:
            table[Op.RELEASE] = self._releasing(releasing, release)

    def _flushing(self, function: Serve) -> Serve:
        """FLUSH: a process that has closed a file has no locks on it any more."""

        async def later(header: Header, body: bodies.Flush) -> bytes | None:
            try:
                return await call_function(self._context.tree, function, header, body)
            finally:
                await self._end(header, body.lock_owner, body.handle)

        def serve(header: Header, body: bodies.Flush) -> bytes | None:
            if self._granted.has(header.nodeid, body.lock_owner):
                answer_later(self._tasks, header, body, lambda: later(header, body))
                return None
            try:
                return function(header, body)
            finally:
                self._locks.drop(header.nodeid, body.lock_owner)

        return serve

    def _flushing_async(self, method: Method) -> Serve:
        async def flush(handle: int) -> Any:
            request = current.get()
            assert request is not None  # noqa: S101 - a task serves it
            try:
                return await method(handle)
            finally:
                await self._end(request.header, request.body.lock_owner, handle)

        return function_of(flush, CALLS[Op.FLUSH], self._answers, self._tasks)

    def _releasing(self, function: Serve, method: Method | None) -> Serve:
        """RELEASE: what an open file had locked is free."""

        async def later(header: Header, body: bodies.Release) -> bytes | None:
            handle = body.handle
            try:
                for owner in self._granted.owners_by(header.nodeid, handle):
                    await self._end(header, owner, handle)
                if handle in self._granted.flocked:
                    self._granted.flocked.discard(handle)
                    unlock = fcntl.LOCK_UN | fcntl.LOCK_NB
                    await self._take_back(self._flock, header, handle, unlock)
                self._drop_open(header, body)
            finally:
                self._granted.end_ends(header.nodeid)
                self._locks.released(header.nodeid)
            if inspect.iscoroutinefunction(method):
                return self._answers.nothing(header, body, await method(handle))
            return await call_function(self._context.tree, function, header, body)

        def serve(header: Header, body: bodies.Release) -> bytes | None:
            if self._granted.has_by(header.nodeid, body.handle):
                self._granted.end_begins(header.nodeid)
                answer_later(self._tasks, header, body, lambda: later(header, body))
                return None
            self._drop_open(header, body)
            return function(header, body)

        return serve

    def _drop_open(self, header: Header, body: bodies.Release) -> None:
        file = self._context.files.get_or_none(body.handle)
        self._locks.drop_open(header.nodeid, body.handle, file)

    def is_under_way(self, nodeid: int) -> bool:
        """Whether locks of an inode are about to be free: close(2) does not wait for that.

        The kernel has told of it before it tells of what its caller does next.
        """
        return nodeid in self._granted.ending

    async def _end(self, header: Header, owner: int, handle: int) -> None:
        """An owner gives everything back: to the handlers that have granted it, and here."""
        try:
            if self._granted.pop(header.nodeid, owner):
                everything = Lock(fcntl.F_UNLCK, 0, 0, header.pid, owner)
                await self._take_back(self._setlk, header, handle, everything, False)
        finally:
            self._locks.drop(header.nodeid, owner)

    async def _take_back(
        self, method: Method | None, header: Header, handle: int, *arguments: Any
    ) -> None:
        if method is not None:
            try:
                with trio.move_on_after(_PATIENCE, shield=True):
                    await call_method(method, handle, *arguments, context_of(header))
            except Exception:
                _log.exception("unlocking failed", method=method.__name__, nodeid=header.nodeid)
        self._locks.released(header.nodeid)


class _Granted:
    """The owners of locks that handlers have granted, and the opens by which they got them.

    ``flocked``: the opens that have a lock by flock(2) from a handler. ``ending``: the inodes of
    which opens are being closed, and how many.
    """

    def __init__(self) -> None:
        self._handles: dict[int, dict[int, set[int]]] = {}
        self._mutex = Mutex()
        self.flocked: set[int] = set()
        self.ending: dict[int, int] = {}

    def end_begins(self, nodeid: int) -> None:
        """An open of an inode is being closed."""
        with self._mutex:
            self.ending[nodeid] = self.ending.get(nodeid, 0) + 1

    def end_ends(self, nodeid: int) -> None:
        """Its locks are free."""
        with self._mutex:
            left = self.ending.pop(nodeid, 0) - 1
            if left > 0:
                self.ending[nodeid] = left

    def add(self, nodeid: int, owner: int, handle: int) -> None:
        """An owner has got a lock on an inode by an open."""
        with self._mutex:
            self._handles.setdefault(nodeid, {}).setdefault(owner, set()).add(handle)

    def has(self, nodeid: int, owner: int) -> bool:
        """Whether an owner may have locks on an inode."""
        return owner in self._handles.get(nodeid, ())

    def has_by(self, nodeid: int, handle: int) -> bool:
        """Whether an open may have locks, or have led to some."""
        return handle in self.flocked or bool(self.owners_by(nodeid, handle))

    def owners_by(self, nodeid: int, handle: int) -> list[int]:
        """Those who have locked an inode by an open."""
        if nodeid not in self._handles:
            return []
        with self._mutex:
            owners = self._handles.get(nodeid, {})
            return [owner for owner, handles in owners.items() if handle in handles]

    def pop(self, nodeid: int, owner: int) -> bool:
        """An owner has no locks on an inode any more; whether it may have had some."""
        with self._mutex:
            owners = self._handles.get(nodeid, {})
            found = owners.pop(owner, None) is not None
            if found and not owners:
                del self._handles[nodeid]
            return found
