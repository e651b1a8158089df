"""Who waits for a lock, on a kernel in memory, and how that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.asking import (
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
    Asker,
    asker,
    errno_of,
    none,
    read,
    write,
)
from support.lockers import Locks

from inopt import FUSEError, Handlers, Lock
from inopt.handlers import locking
from inopt.handlers.calling import Request
from inopt.handlers.tasks import Job, Tasks
from inopt.ops import Op
from inopt.testing import fake_mount
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header


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
    with trio.fail_after(240):
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
            assert trio.current_time() - began < 10
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
    async with fake_mount(Locks(), source=source, policy=HANDLED) as kernel:
        ask = await asker(kernel)
        handle = await ask.open()
        outside(WRITE, 0, 0)
        answer = await waits(ask, handle, write(1))
        outside(NONE, 0, 0)
        began = trio.current_time()
        assert await errno_of(answer.payload()) == 0
        assert trio.current_time() - began < 10


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
    with trio.fail_after(240):
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
        second = Asker(kernel, (await kernel.lookup(ROOT, b"second")).nodeid)
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
