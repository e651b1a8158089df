"""Locks as requests, on a kernel in memory: taken, and given back by closing."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from support.asking import (
    BYPASSED,
    EX,
    HANDLED,
    NB,
    NONE,
    READ,
    ROOT,
    SH,
    UN,
    WAYS,
    WRITE,
    asker,
    errno_of,
    none,
    read,
    write,
)
from support.gauges import Mailbox as Ready
from support.lockers import KeepsItsOwn, KeepsItsOwnPlain, Locks, PlainLocks

from inopt import FUSEError, Handlers, Lock
from inopt.backing.tree import Tree
from inopt.handlers.apart import call_function
from inopt.ops import Op
from inopt.testing import FakeKernel, fake_mount
from inopt.testing.fake import OFFER
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header
from inopt.wire.kernel_side import Entry2Reply
from inopt.wire.uapi import InitFlag


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"0123456789")
    return tmp_path


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> tuple[Handlers, str]:
    handler_class, policy = WAYS[request.param]
    return handler_class(), policy


@pytest.fixture
def outside(source: Path) -> Iterator[Callable[[int, int, int], int]]:
    """Takes an open file's lock underneath: kind, start, length; returns an errno."""
    descriptor = os.open(source / "file", os.O_RDWR)

    def take(kind: int, start: int, length: int) -> int:
        record = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
        try:
            fcntl.fcntl(descriptor, 37, record)
        except OSError as error:
            return error.errno or -1
        return 0

    yield take
    os.close(descriptor)


async def test_owners_exclude_each_other(source: Path, way: tuple[Handlers, str]) -> None:
    async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
        ask = await asker(kernel)
        one, other = await ask.open(), await ask.open()
        assert await ask.take(one, write(1, 0, 10)) == 0
        assert await ask.take(one, write(1, 5, 10)) == 0  # one's own are no hindrance
        assert await ask.take(other, read(2, 14, 1)) == errno.EAGAIN
        assert await ask.take(other, read(2, 15, 1)) == 0
        found = await kernel.getlk(other, read(2), nodeid=ask.inode)
        assert found is not None
        assert (found.type, found.pid) == (WRITE, 1)
        assert await kernel.getlk(one, read(1), nodeid=ask.inode) is None
        assert await kernel.getlk(other, write(2, 20, 5), nodeid=ask.inode) is None
        assert await ask.take(one, none(1, 5, 1)) == 0
        assert await ask.take(other, write(2, 5, 1)) == 0
        assert await ask.flock(one, SH | NB) == 0
        assert await ask.flock(other, SH | NB) == 0
        assert await ask.flock(other, EX | NB) == errno.EAGAIN
        assert await ask.flock(one, UN) == 0
        assert await ask.flock(other, EX | NB) == 0
        routes = {each.route for each in kernel.requests if "LK" in each.name}
        assert routes == {"daemon" if way[1] == BYPASSED else "handler"}


@pytest.mark.parametrize("name", ["async", "plain", "daemon"])
async def test_they_are_real(
    source: Path, name: str, outside: Callable[[int, int, int], int]
) -> None:
    handler_class, policy = WAYS[name]
    async with fake_mount(handler_class(), source=source, policy=policy) as kernel:
        ask = await asker(kernel)
        handle = await ask.open()
        assert await ask.take(handle, write(1, 0, 5)) == 0
        assert outside(READ, 4, 1) == errno.EAGAIN
        assert outside(WRITE, 5, 5) == 0
        assert await ask.take(handle, read(1, 9, 1)) == errno.EAGAIN
        found = await kernel.getlk(handle, read(1, 0, 0), nodeid=ask.inode)
        assert found == Lock(WRITE, 5, 5, 0, 0)  # of an open file: nobody tells whose
        with (source / "file").open("rb") as other:
            assert await ask.flock(handle, EX | NB) == 0
            assert await errno_of_sync(lambda: fcntl.flock(other, SH | NB)) == errno.EAGAIN
            assert await ask.flock(handle, UN) == 0
            fcntl.flock(other, SH | NB)


async def errno_of_sync(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


async def test_closing_gives_back(source: Path, way: tuple[Handlers, str]) -> None:
    async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
        ask = await asker(kernel)
        one, second, other = await ask.open(), await ask.open(os.O_RDONLY), await ask.open()
        assert await ask.take(one, write(1, 0, 5)) == 0
        assert await ask.take(one, write(11, 5, 5)) == 0  # the open file's
        assert await ask.flock(one, EX) == 0
        # Any descriptor of the file, closed by the process, ends its locks, and no others.
        await ask.close(second, 1)
        assert await ask.take(other, write(2, 0, 5)) == 0
        assert await ask.take(other, write(2, 5, 5)) == errno.EAGAIN
        assert await ask.flock(other, SH | NB) == errno.EAGAIN
        assert await ask.take(one, write(1, 10, 1)) == 0
        await ask.flush(one, 3)  # a process that has no locks
        assert await ask.take(other, write(2, 10, 1)) == errno.EAGAIN
        await kernel.release(one, nodeid=ask.inode)
        assert await ask.take(other, write(2)) == 0
        assert await ask.flock(other, EX | NB) == 0
        await ask.close(other, 2)
        assert ask.claims() == 0


@pytest.mark.parametrize("plain", [False, True])
async def test_handlers_hear_of_what_closing_gives_back(source: Path, plain: bool) -> None:
    handlers = KeepsItsOwnPlain() if plain else KeepsItsOwn()
    async with fake_mount(handlers, source=source, policy=HANDLED) as kernel:
        ask = await asker(kernel)
        one = await ask.open()
        await ask.take(one, write(1, 0, 5))
        await ask.take(one, write(11, 5, 5))
        await ask.flock(one, SH)
        told = handlers.told
        told.clear()
        await ask.flush(one, 2)
        assert told == []
        await ask.flush(one, 1)
        assert told == [("setlk", NONE, 0, 0)]
        await ask.flush(one, 1)
        assert len(told) == 1
        await kernel.release(one, nodeid=ask.inode)
        assert told == [("setlk", NONE, 0, 0)] * 2 + [("flock", UN)]
        assert handlers.held == {ask.inode: {}}


async def test_handlers_that_fail_to_unlock(source: Path) -> None:
    """What the daemon holds for them is free nevertheless."""

    class Fails(Locks):
        async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> None:
            if lock.type == NONE:
                raise ZeroDivisionError
            await super().setlk(fh, lock, wait, ctx)

        async def flush(self, fh: int) -> None:
            raise FUSEError(errno.EIO)

        async def release(self, fh: int) -> None:
            raise FUSEError(errno.EIO)

    policy = "version: 1\nrules: [{handle: [locks, flush, release]}]\n"
    async with fake_mount(Fails(), source=source, policy=policy) as kernel:
        ask = await asker(kernel)
        one, other = await ask.open(), await ask.open()
        await ask.take(one, write(1))
        assert await errno_of(kernel.flush(one, nodeid=ask.inode, lock_owner=1)) == errno.EIO
        assert await ask.take(other, write(2)) == 0
        await ask.take(other, none(2, 0, 5))
        assert await errno_of(kernel.release(other, nodeid=ask.inode)) == errno.EIO
        assert ask.claims() == 0
        assert await ask.take(one, write(1)) == 0


async def test_a_flush_that_is_interrupted_gives_back(
    source: Path, way: tuple[Handlers, str]
) -> None:
    """Whoever is killed closes its files with a signal pending."""
    async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
        ask = await asker(kernel)
        one, other = await ask.open(), await ask.open()
        for _ in range(20):
            assert await ask.take(one, write(1)) == 0
            answer = await kernel.start(Op.FLUSH, ask.inode, bodies.Flush(one, 1))
            await kernel.interrupt(answer)
            await errno_of(answer.payload())
            assert await ask.take(other, write(2)) == 0
            await ask.take(other, none(2))


async def test_a_plain_flush_is_served_though_it_is_interrupted(source: Path) -> None:
    class Counts(PlainLocks):
        flushed = 0

        def flush(self, fh: int) -> Any:
            self.flushed += 1

    handlers = Counts()
    policy = "version: 1\nrules: [{handle: [locks, flush]}]\n"
    async with fake_mount(handlers, source=source, policy=policy) as kernel:
        ask = await asker(kernel)
        handle = await ask.open()
        for number in range(20):
            assert await ask.take(handle, write(1)) == 0
            answer = await kernel.start(Op.FLUSH, ask.inode, bodies.Flush(handle, 1))
            await kernel.interrupt(answer)
            await errno_of(answer.payload())
            assert handlers.flushed == number + 1


async def test_what_a_reader_has_begun_is_not_cancelled(source: Path) -> None:
    """As where somebody dies, and so closes files: then a signal is pending all the time."""
    tree = Tree(str(source), 256)
    asked: list[int] = []

    def function(header: Header, _body: object) -> bytes:
        asked.append(header.unique)
        return b"done"

    try:
        with trio.CancelScope() as scope:
            scope.cancel()
            header = Header(0, Op.FLUSH, 8, 2, 0, 0, 1, 0)
            assert await call_function(tree, function, header, None) == b"done"
        assert asked == [0]  # by its number, a task is known already
    finally:
        tree.close()


# --- what is negotiated ------------------------------------------------------------------------


def negotiated(kernel: FakeKernel) -> tuple[bool, bool]:
    terms = kernel.session.terms
    return terms.has(InitFlag.POSIX_LOCKS), terms.has(InitFlag.FLOCK_LOCKS)


async def test_what_the_class_overrides_is_negotiated(source: Path) -> None:
    class Asks(Handlers):
        async def getlk(self, fh: int, lock: Lock, ctx: Any) -> Lock | None:
            return await super().getlk(fh, lock, ctx)

    class Whole(Handlers):
        async def flock(self, fh: int, operation: int, ctx: Any) -> None:
            await super().flock(fh, operation, ctx)

    class Neither(Handlers):
        async def flush(self, fh: int) -> None:
            await super().flush(fh)

    for handlers, expected in (
        (Asks(), (True, False)),
        (Whole(), (False, True)),
        (Neither(), (False, False)),
        (Locks(), (True, True)),
    ):
        async with fake_mount(handlers, source=source) as kernel:
            assert negotiated(kernel) == expected
    async with fake_mount(Locks(), source=source, offer=OFFER & ~InitFlag.POSIX_LOCKS) as kernel:
        assert negotiated(kernel) == (False, True)
    async with fake_mount(source=source) as kernel:
        assert negotiated(kernel) == (False, False)
        ask = await asker(kernel)
        assert await ask.take(await ask.open(), write(1)) == errno.ENOSYS


async def test_flush_comes_only_for_locks_of_processes(source: Path) -> None:
    class Whole(Handlers):
        async def flock(self, fh: int, operation: int, ctx: Any) -> None:
            await super().flock(fh, operation, ctx)

    for handlers, flushes in ((Locks(), True), (Whole(), False)):
        async with fake_mount(handlers, source=source) as kernel:
            ask = await asker(kernel)
            opened = await kernel.open(ask.inode)
            needs = kernel.session._context.tree.flushes_at_close or flushes
            assert bool(opened.open_flags & uapi.FOPEN_NOFLUSH) is not needs
            found = await errno_of(kernel.flush(opened.handle, nodeid=ask.inode, lock_owner=1))
            assert found == (0 if needs else errno.ENOSYS)


@pytest.mark.parametrize(
    ("handlers", "opens"), [(Locks(), False), (Ready(), False), (Handlers(), True)]
)
async def test_the_kernel_does_not_open_by_itself_what_is_locked_or_polled_by_handle(
    source: Path, handlers: Handlers, opens: bool
) -> None:
    """Tier inode of the first posting: without OPEN there is no handle, and no RELEASE."""
    accepts = (Op.READ, Op.WRITE, Op.GETATTR, Op.STATX, Op.OPEN)
    async with fake_mount(
        handlers, source=source, policy="version: 1\n", bypass="ino-v1", accepts=accepts
    ) as kernel:
        entry = await kernel.lookup(ROOT, b"file")
        assert isinstance(entry, Entry2Reply)
        assert (Op.OPEN in kernel.masks[entry.backing_id]) is opens
        assert Op.GETATTR in kernel.masks[entry.backing_id]


async def test_descriptors_for_locks_are_counted(source: Path) -> None:
    async with fake_mount(Locks(), source=source) as kernel:
        ask = await asker(kernel)
        handle = await ask.open()
        descriptors = kernel.session._context.tree.descriptors
        before, limit = descriptors.held, descriptors.limit
        for owner in range(1, 6):
            assert await ask.take(handle, read(owner)) == 0
        assert descriptors.held == before + 5
        descriptors.limit = 0
        assert await ask.take(handle, read(7)) == errno.ENOLCK
        descriptors.limit = limit
        for owner in range(1, 6):
            await ask.flush(handle, owner)
        assert descriptors.held == before
        assert ask.claims() == 0
