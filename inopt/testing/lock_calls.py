"""Locks and poll(2) of the fake kernel."""

from __future__ import annotations

import fcntl
from typing import Final, Protocol

from inopt.backing.ranges import LAST_BYTE
from inopt.handlers.types import Lock, lock_of
from inopt.ops import Op
from inopt.wire import bodies, kernel_side, layouts, uapi

_KINDS: Final = {
    fcntl.LOCK_SH: fcntl.F_RDLCK,
    fcntl.LOCK_EX: fcntl.F_WRLCK,
    fcntl.LOCK_UN: fcntl.F_UNLCK,
}


class _Asking(Protocol):
    """What the methods here need of a `FakeKernel`."""

    async def call(self, opcode: Op, nodeid: int, body: bodies.Body) -> bytes: ...


def _body(handle: int, lock: Lock) -> bodies.Lock:
    return bodies.Lock(handle, lock.owner, lock.start, lock.end, lock.type, lock.pid, 0)


class LockCalls:
    """What programs ask by fcntl(2), flock(2) and poll(2)."""

    async def getlk(self: _Asking, handle: int, lock: Lock, *, nodeid: int) -> Lock | None:
        """GETLK: what keeps the owner of *lock* from getting it."""
        payload = await self.call(Op.GETLK, nodeid, _body(handle, lock))
        found = kernel_side.decode_lock(payload)
        if found.type == fcntl.F_UNLCK:
            return None
        return lock_of(bodies.Lock(handle, 0, found.start, found.end, found.type, found.pid, 0))

    async def setlk(
        self: _Asking, handle: int, lock: Lock, *, nodeid: int, wait: bool = False
    ) -> None:
        """SETLK, or SETLKW for who waits: the answer comes when there is one."""
        await self.call(Op.SETLKW if wait else Op.SETLK, nodeid, _body(handle, lock))

    async def flock(
        self: _Asking, handle: int, operation: int, *, nodeid: int, owner: int = 1
    ) -> None:
        """SETLK of a whole file as flock(2) makes it, or SETLKW without ``LOCK_NB``."""
        opcode = Op.SETLK if operation & fcntl.LOCK_NB else Op.SETLKW
        kind = _KINDS[operation & ~fcntl.LOCK_NB]
        body = bodies.Lock(handle, owner, 0, LAST_BYTE, kind, 1, uapi.LOCK_FLOCK)
        await self.call(opcode, nodeid, body)

    async def poll(
        self: _Asking, handle: int, events: int, *, nodeid: int, waiter: int | None = None
    ) -> int:
        """POLL; returns the events that are there. *waiter*: a number for who is to be woken."""
        flags = 0 if waiter is None else uapi.POLL_SCHEDULE_NOTIFY
        payload = await self.call(Op.POLL, nodeid, bodies.Poll(handle, waiter or 0, flags, events))
        return kernel_side.decode_number(layouts.POLL_OUT, payload)
