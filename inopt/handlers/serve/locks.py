"""The opcodes of locks: fcntl(2) and flock(2), on the backing file. None of them waits."""

from __future__ import annotations

import errno
import fcntl
from typing import Final

from inopt.backing.locks import Locks
from inopt.backing.ranges import Range
from inopt.handlers.failures import fail
from inopt.handlers.serve.context import Context
from inopt.wire import bodies, replies, uapi
from inopt.wire.bodies import Header

OPERATIONS: Final = {
    fcntl.F_RDLCK: fcntl.LOCK_SH,
    fcntl.F_WRLCK: fcntl.LOCK_EX,
    fcntl.F_UNLCK: fcntl.LOCK_UN,
}
"""flock(2) comes as a lock of a kind; these are its own words."""


def _locks(context: Context) -> Locks:
    if context.locks is None:
        fail(errno.ENOSYS)
    return context.locks


def range_of(body: bodies.Lock) -> Range:
    """What a request is about."""
    return Range(body.type, body.start, body.end)


def getlk(context: Context, _header: Header, body: bodies.Lock) -> bytes:
    """GETLK: a lock that is in the way, or that there is none."""
    file = context.files.get(body.handle)
    found = _locks(context).conflict(file, body.owner, range_of(body))
    if found is None:
        return replies.lock(body.start, body.end, fcntl.F_UNLCK, 0)
    return replies.lock(found.range.start, found.range.end, found.range.kind, found.pid)


def setlk(context: Context, _header: Header, body: bodies.Lock) -> bytes:
    """SETLK and SETLKW: ``EAGAIN`` while somebody else has the lock."""
    locks = _locks(context)
    file = context.files.get(body.handle)
    if body.flags & uapi.LOCK_FLOCK:
        locks.flock(file, OPERATIONS[body.type])
    else:
        locks.set(file, body.handle, body.owner, range_of(body), body.pid)
    return b""
