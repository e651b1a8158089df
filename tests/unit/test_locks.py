"""Locks as requests, on a kernel in memory: taken, waited for, and given back by closing."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing
from support.lockers import KeepsItsOwn, KeepsItsOwnPlain, Locks, PlainLocks

from inopt import FUSEError, Handlers, Lock
from inopt.backing.locks import Locks as RealLocks
from inopt.handlers import locking
from inopt.handlers.daemon import Request
from inopt.handlers.tasks import Job, Tasks
from inopt.ops import Op
from inopt.testing import FakeKernel, fake_mount
from inopt.testing.fake import OFFER
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header
from inopt.wire.uapi import InitFlag

READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
_ROOT: Final = 1
_HANDLED: Final = "version: 1\nrules: [{handle: locks}]\n"
_BYPASSED: Final = "version: 1\nrules: [{match: {path: '*.none', type: file}, handle: locks}]\n"
# Each way in which locks are served: a class, and a policy.
WAYS: Final[dict[str, tuple[type[Handlers], str]]] = {
    "async": (Locks, _HANDLED),
    "plain": (PlainLocks, _HANDLED),
    "daemon": (Locks, _BYPASSED),
    "own": (KeepsItsOwn, _HANDLED),
    "own-plain": (KeepsItsOwnPlain, _HANDLED),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"0123456789")
    return tmp_path


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> tuple[Handlers, str]:
    handler_class, policy = WAYS[request.param]
    return handler_class(), policy


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
    return Asker(kernel, (await kernel.lookup(_ROOT, b"file")).nodeid)


async def errno_of(call: Awaitable[object]) -> int:
    try:
        await call
    except OSError as error:
        return error.errno or -1
    return 0


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
        assert routes == {"daemon" if way[1] == _BYPASSED else "handler"}


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
    async with fake_mount(handlers, source=source, policy=_HANDLED) as kernel:
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


# --- waiting -----------------------------------------------------------------------------------


class Answered:
    """Where tasks send their answers."""

    def __init__(self) -> None:
        self.errnos: list[int] = []

    def reply(self, header: Header, payload: bytes) -> None:
        self.errnos.append(0)

    def refuse(self, header: Header, number: int) -> None:
        self.errnos.append(number)


async def test_an_interrupt_that_overtakes_its_request() -> None:
    """A request becomes a task only when it has to wait; another reader may be quicker."""
    answered = Answered()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            tasks.replies = answered
            tasks.interrupt(8)
            await trio.testing.wait_all_tasks_blocked()
            for unique in (8, 10):
                header = Header(0, Op.SETLKW, unique, 2, 0, 0, 1, 0)

                async def wait() -> bytes:
                    await trio.sleep(0.01)
                    return b""

                tasks.start(Job(Request(header, None, 0, []), wait, (), lambda payload: payload))
            while len(answered.errnos) < 2:  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.01)
    assert sorted(answered.errnos) == [0, errno.EINTR]


async def waits(ask: Asker, handle: int, lock: Lock) -> Any:
    """A request that waits, as it should."""
    body = bodies.Lock(handle, lock.owner, lock.start, lock.end, lock.type, lock.pid, 0)
    answer = await ask.kernel.start(Op.SETLKW, ask.inode, body)
    await trio.sleep(0.05)
    assert not answer.has_come
    return answer


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is not asked again unless something has been given back."""
    monkeypatch.setattr(locking, "_SHORTEST", 60.0)
    monkeypatch.setattr(locking, "_LONGEST", 60.0)


@pytest.mark.usefixtures("only_told")
async def test_waiting_ends_with_what_is_given_back(
    source: Path, way: tuple[Handlers, str]
) -> None:
    async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
        ask = await asker(kernel)
        one, other = await ask.open(), await ask.open()

        async def gives_back(action: Callable[[], Awaitable[object]]) -> None:
            assert await ask.take(one, write(1)) == 0
            answer = await waits(ask, other, write(2))
            began = trio.current_time()
            await action()
            assert await errno_of(answer.payload()) == 0
            assert trio.current_time() - began < 2
            assert await ask.take(other, none(2)) == 0

        await gives_back(lambda: ask.take(one, none(1)))
        await gives_back(lambda: ask.flush(one, 1))
        assert await ask.take(one, write(1)) == 0
        answer = await waits(ask, other, read(2))
        assert await ask.take(one, read(1)) == 0
        assert await errno_of(answer.payload()) == 0
        await ask.take(other, none(2))
        assert await ask.take(one, write(1)) == 0
        answer = await waits(ask, other, write(2))
        await kernel.release(one, nodeid=ask.inode)
        assert await errno_of(answer.payload()) == 0


@pytest.mark.usefixtures("only_told")
async def test_waiting_for_a_whole_file(source: Path, way: tuple[Handlers, str]) -> None:
    async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
        ask = await asker(kernel)
        one, other = await ask.open(), await ask.open()
        assert await ask.flock(one, EX) == 0
        body = bodies.Lock(other, 2, 0, (1 << 63) - 1, READ, 2, uapi.LOCK_FLOCK)
        answer = await kernel.start(Op.SETLKW, ask.inode, body)
        await trio.sleep(0.05)
        assert not answer.has_come
        assert await ask.flock(one, SH) == 0
        assert await errno_of(answer.payload()) == 0


async def test_waiting_for_who_locks_underneath(
    source: Path, outside: Callable[[int, int, int], int]
) -> None:
    async with fake_mount(Locks(), source=source, policy=_HANDLED) as kernel:
        ask = await asker(kernel)
        handle = await ask.open()
        outside(WRITE, 0, 0)
        answer = await waits(ask, handle, write(1))
        outside(NONE, 0, 0)
        began = trio.current_time()
        assert await errno_of(answer.payload()) == 0
        assert trio.current_time() - began < 1


async def test_interrupts_end_waiting(source: Path, way: tuple[Handlers, str]) -> None:
    async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
        ask = await asker(kernel)
        one, other = await ask.open(), await ask.open()
        assert await ask.take(one, write(1)) == 0
        answer = await waits(ask, other, write(2))
        await kernel.interrupt(answer)
        assert await errno_of(answer.payload()) == errno.EINTR
        # At once, when the request may not even be a task.
        for _ in range(20):
            body = bodies.Lock(other, 2, 0, 0, WRITE, 2, 0)
            answer = await kernel.start(Op.SETLKW, ask.inode, body)
            await kernel.interrupt(answer)
            assert await errno_of(answer.payload()) == errno.EINTR
        assert await ask.take(one, none(1)) == 0
        assert await ask.take(other, write(2)) == 0


async def test_the_end_of_the_session_ends_waiting(source: Path, way: tuple[Handlers, str]) -> None:
    with trio.fail_after(20):
        async with fake_mount(way[0], source=source, policy=way[1]) as kernel:
            ask = await asker(kernel)
            one, other = await ask.open(), await ask.open()
            assert await ask.take(one, write(1)) == 0
            await waits(ask, other, write(2))


@pytest.mark.parametrize("name", ["async", "plain", "daemon"])
async def test_deadlocks_are_found(source: Path, name: str) -> None:
    (source / "second").touch()
    handler_class, policy = WAYS[name]
    async with fake_mount(handler_class(), source=source, policy=policy) as kernel:
        ask = await asker(kernel)
        second = Asker(kernel, (await kernel.lookup(_ROOT, b"second")).nodeid)
        handles = [await ask.open() for _ in range(3)]
        others = [await second.open() for _ in range(3)]
        # 1 has the first file, 2 its tail, 3 the second file; 1 waits for 2, and 2 for 3.
        assert await ask.take(handles[0], write(1, 0, 5)) == 0
        assert await ask.take(handles[1], write(2, 5, 5)) == 0
        assert await second.take(others[2], write(3)) == 0
        first = await waits(ask, handles[0], write(1, 5, 1))
        last = await waits(second, others[1], write(2))
        assert await ask.take(handles[2], write(3, 0, 1), wait=True) == errno.EDEADLK
        # Whoever is told of it may give way.
        assert await second.take(others[2], none(3)) == 0
        assert await errno_of(last.payload()) == 0
        assert await ask.take(handles[1], none(2)) == 0
        assert await errno_of(first.payload()) == 0


async def test_eagain_to_who_waits_is_no_answer(source: Path) -> None:
    """The method is asked again, and what it says otherwise is the answer."""

    class Counts(Locks):
        asked = 0

        async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: Any) -> None:
            self.asked += 1
            assert wait
            if self.asked < 4:
                raise BlockingIOError(errno.EAGAIN, "not yet")
            raise FUSEError(errno.EACCES)

    handlers = Counts()
    async with fake_mount(handlers, source=source) as kernel:
        ask = await asker(kernel)
        handle = await ask.open()
        assert await ask.take(handle, write(1), wait=True) == errno.EACCES
        assert handlers.asked == 4


# --- a release that is under way ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["own", "own-plain", "async", "plain"])
async def test_who_comes_after_a_close_finds_its_locks_free(source: Path, name: str) -> None:
    """close(2) does not wait for RELEASE, but what its caller does next comes after it."""
    handler_class, policy = WAYS[name]
    async with fake_mount(handler_class(), source=source, policy=policy) as kernel:
        ask = await asker(kernel)
        other = await ask.open()
        for _ in range(50):
            one = await ask.open()
            assert await ask.take(one, write(11)) == 0
            assert await ask.flock(one, EX | NB) == 0
            release = await kernel.start(Op.RELEASE, ask.inode, bodies.Release(one, 0, 0, 0))
            assert await ask.take(other, write(2)) == 0
            assert await ask.flock(other, EX | NB) == 0
            await release.payload()
            await ask.take(other, none(2))
            await ask.flock(other, UN)


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
