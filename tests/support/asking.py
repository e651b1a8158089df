"""Locks asked of a kernel in memory: each way of serving them, and who asks."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Awaitable
from typing import Final

from inopt import Handlers, Lock
from inopt.backing.locks import Locks as RealLocks
from inopt.testing import FakeKernel
from support.lockers import KeepsItsOwn, KeepsItsOwnPlain, Locks, PlainLocks

READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
ROOT: Final = 1
HANDLED: Final = "version: 1\nrules: [{handle: locks}]\n"
BYPASSED: Final = "version: 1\nrules: [{match: {path: '*.none', type: file}, handle: locks}]\n"
# Each way in which locks are served: a class, and a policy.
WAYS: Final[dict[str, tuple[type[Handlers], str]]] = {
    "async": (Locks, HANDLED),
    "plain": (PlainLocks, HANDLED),
    "daemon": (Locks, BYPASSED),
    "own": (KeepsItsOwn, HANDLED),
    "own-plain": (KeepsItsOwnPlain, HANDLED),
}


def write(owner: int, start: int = 0, length: int = 0) -> Lock:
    return Lock(WRITE, start, length, owner, owner)


def read(owner: int, start: int = 0, length: int = 0) -> Lock:
    return Lock(READ, start, length, owner, owner)


def none(owner: int, start: int = 0, length: int = 0) -> Lock:
    return Lock(NONE, start, length, owner, owner)


class Asker:
    """Locks of one file through a kernel, by opens of their own."""

    def __init__(self, kernel: FakeKernel, inode: int) -> None:
        self.kernel = kernel
        self.inode = inode

    async def open(self, flags: int = os.O_RDWR) -> int:
        return (await self.kernel.open(self.inode, flags)).handle

    async def take(self, handle: int, lock: Lock, *, wait: bool = False) -> int:
        """The errno that taking a lock is answered with."""
        return await errno_of(self.kernel.setlk(handle, lock, nodeid=self.inode, wait=wait))

    async def flock(self, handle: int, operation: int) -> int:
        return await errno_of(self.kernel.flock(handle, operation, nodeid=self.inode))

    async def close(self, handle: int, owner: int) -> None:
        """What the kernel says when a process closes the only descriptor of an open file."""
        await self.flush(handle, owner)
        await self.kernel.release(handle, nodeid=self.inode)

    async def flush(self, handle: int, owner: int) -> None:
        """FLUSH, which need not have anything to do."""
        assert await errno_of(self.kernel.flush(handle, nodeid=self.inode, lock_owner=owner)) in (
            0,
            errno.ENOSYS,
        )

    def claims(self) -> int:
        """How many owners the daemon holds a description for."""
        locks = self.kernel.session._context.locks
        assert isinstance(locks, RealLocks)
        return len(locks)


async def asker(kernel: FakeKernel) -> Asker:
    return Asker(kernel, (await kernel.lookup(ROOT, b"file")).nodeid)


async def errno_of(call: Awaitable[object]) -> int:
    try:
        await call
    except OSError as error:
        return error.errno or -1
    return 0
