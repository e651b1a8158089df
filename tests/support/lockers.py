"""Handlers of locks: that pass them on, that refuse them, and that keep them by themselves."""

from __future__ import annotations

import errno
import fcntl
from typing import Any

from inopt import FUSEError, Handlers, Lock


class Locks(Handlers):
    """As the daemon does it."""

    for_any_policy = True

    async def getlk(self, fh: int, lock: Lock, ctx: Any) -> Lock | None:
        return await super().getlk(fh, lock, ctx)

    async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> None:
        await super().setlk(fh, lock, wait, ctx)

    async def flock(self, fh: int, operation: int, ctx: Any) -> None:
        await super().flock(fh, operation, ctx)


class PlainLocks(Handlers):
    """The same in plain methods."""

    for_any_policy = True

    def getlk(self, fh: int, lock: Lock, ctx: Any) -> Any:
        return self.daemon.getlk(fh, lock, ctx)

    def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> Any:
        self.daemon.setlk(fh, lock, wait, ctx)

    def flock(self, fh: int, operation: int, ctx: Any) -> Any:
        self.daemon.flock(fh, operation, ctx)


class Refuses(Locks):
    """Nobody locks the first ten bytes for writing, nor a whole file."""

    async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> None:
        if lock.type == fcntl.F_WRLCK and lock.start < 10:
            raise FUSEError(errno.EACCES)
        await super().setlk(fh, lock, wait, ctx)

    async def flock(self, fh: int, operation: int, ctx: Any) -> None:
        if operation & ~fcntl.LOCK_NB == fcntl.LOCK_EX:
            raise FUSEError(errno.EWOULDBLOCK)
        await super().flock(fh, operation, ctx)


class KeepsItsOwn(Handlers):
    """Locks that nobody underneath knows of. ``told``: all that was done."""

    for_any_policy = True

    def __init__(self) -> None:
        self.held: dict[int, dict[int, list[Lock]]] = {}
        self.whole: dict[int, dict[int, int]] = {}
        self.told: list[tuple[Any, ...]] = []

    async def getlk(self, fh: int, lock: Lock, ctx: Any) -> Lock | None:
        return self._against(fh, lock)

    def _against(self, fh: int, lock: Lock) -> Lock | None:
        owners = self.held.get(self.backing.inode_of(fh), {}).values()
        return next((each for held in owners for each in held if lock.excludes(each)), None)

    async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> None:
        unlocks = lock.type == fcntl.F_UNLCK
        if not unlocks and self._against(fh, lock):
            raise FUSEError(errno.EAGAIN)
        owners = self.held.setdefault(self.backing.inode_of(fh), {})
        own = owners.setdefault(lock.owner, [])
        own[:] = [left for each in own for left in _without(each, lock)]
        own += [] if unlocks else [lock]
        own.sort(key=lambda each: each.start)
        if not own:
            del owners[lock.owner]
        self.told.append(("setlk", lock.type, lock.start, lock.length))

    async def flock(self, fh: int, operation: int, ctx: Any) -> None:
        held = self.whole.setdefault(self.backing.inode_of(fh), {})
        wanted = operation & ~fcntl.LOCK_NB
        held.pop(fh, None)
        if wanted != fcntl.LOCK_UN:
            if held and fcntl.LOCK_EX in (wanted, *held.values()):
                raise FUSEError(errno.EAGAIN)
            held[fh] = wanted
        self.told.append(("flock", wanted))


class KeepsItsOwnPlain(KeepsItsOwn):
    """The same in plain methods."""

    def getlk(self, fh: int, lock: Lock, ctx: Any) -> Any:
        return _run(super().getlk(fh, lock, ctx))

    def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> Any:
        return _run(super().setlk(fh, lock, wait, ctx))

    def flock(self, fh: int, operation: int, ctx: Any) -> Any:
        return _run(super().flock(fh, operation, ctx))


def _run(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def _without(held: Lock, lock: Lock) -> list[Lock]:
    """What is left of a lock, and how, when its owner locks or unlocks another range."""
    if lock.end < held.start or held.end < lock.start:
        return [held]
    left = []
    if held.start < lock.start:
        before = lock.start - held.start
        left.append(Lock(held.type, held.start, before, held.pid, held.owner))
    if lock.end < held.end:
        length = held.end - lock.end if held.length else 0
        left.append(Lock(held.type, lock.end + 1, length, held.pid, held.owner))
    return left
