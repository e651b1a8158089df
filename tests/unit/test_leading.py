"""Who reads requests: the trio thread while they are for async handlers, a reader thread else."""

from __future__ import annotations

import copy
import errno
import threading
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from inopt import EntryAttributes, Handlers
from inopt.ops import Op
from inopt.session.leading import Leader
from inopt.testing import FakeKernel, fake_mount
from inopt.wire import bodies
from inopt.wire.kernel_side import encode_request

_HANDLED: Final = "version: 1\nrules:\n- handle: [getattr, read]\n"


class Notes(Handlers):
    """Notes the thread of each GETATTR; READ waits for ``gate``, as long as ``waits`` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self.gate = trio.Event()
        self.waits = True
        self.reading = 0
        self.cancelled = 0

    async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        self.threads.append(threading.current_thread().name)
        return await super().getattr(inode, ctx)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        self.reading += 1
        try:
            if self.waits:
                with trio.move_on_after(240):  # a scope of its own around what waits
                    await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.reading -= 1
        return await super().read(fh, off, size)


def leader_of(kernel: FakeKernel) -> Leader:
    leader = kernel.session._loop.leader
    assert leader is not None
    return leader


async def until(condition: Any) -> None:
    with trio.fail_after(240):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await trio.sleep(0.005)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"data")
    return tmp_path


async def test_the_trio_thread_reads_what_is_for_it(source: Path) -> None:
    notes = Notes()
    async with fake_mount(notes, source=source, policy=_HANDLED) as kernel:
        leader = leader_of(kernel)
        assert not leader.leads
        for _ in range(50):
            await kernel.getattr(1)
        # The first one came by the reader thread, as may some after a pause.
        assert leader.worker.served > 25
        routes = [each.route for each in kernel.requests if each.name == "GETATTR"]
        assert routes == ["handler"] * 50
        await until(lambda: not leader.leads)  # nothing comes: given back
        assert (await kernel.lookup(1, b"file")).attributes.size == 4
        assert not leader.leads


async def test_what_is_for_others_is_passed_back(source: Path) -> None:
    notes = Notes()
    async with fake_mount(notes, source=source, policy=_HANDLED) as kernel:
        leader = leader_of(kernel)
        entry = await kernel.lookup(1, b"file")
        opened = await kernel.open(entry.nodeid, 2)
        for number in range(50):
            await kernel.getattr(entry.nodeid)
            # WRITE may take long and is the daemon's: a reader thread serves it.
            assert await kernel.write(opened.handle, number, b"x", nodeid=entry.nodeid) == 1
        await kernel.release(opened.handle, nodeid=entry.nodeid)
        assert leader.worker.counts.daemon[Op.WRITE] == 0
    assert (source / "file").read_bytes() == b"x" * 50


class _Meddling:
    """A lock; whenever the trio thread lets it go, the watch has its turn, twice."""

    def __init__(self, leader: Leader) -> None:
        self._lock = threading.Lock()
        self._leader = leader
        self._trio = threading.get_ident()
        self._meddles = False
        self.often = 0

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.get_ident() == self._trio and not self._meddles:
            self._meddles = True  # the watch takes the lock, too
            self._leader.watch()
            self._leader.watch()
            self._meddles = False
            self.often += 1


async def test_no_request_is_lost_when_the_watch_comes_between(source: Path) -> None:
    async with fake_mount(Notes(), source=source, policy=_HANDLED) as kernel:
        leader = leader_of(kernel)
        entry = await kernel.lookup(1, b"file")
        opened = await kernel.open(entry.nodeid, 2)
        meddling = _Meddling(leader)
        leader._lock = meddling  # type: ignore[assignment]
        with trio.fail_after(240):
            for number in range(50):
                await kernel.getattr(entry.nodeid)
                assert await kernel.write(opened.handle, number, b"x", nodeid=entry.nodeid) == 1
        assert meddling.often > 10
        await kernel.release(opened.handle, nodeid=entry.nodeid)


async def test_handlers_that_wait_do_not_hold_up_each_other(source: Path) -> None:
    notes = Notes()
    async with fake_mount(notes, source=source, policy=_HANDLED) as kernel:
        entry = await kernel.lookup(1, b"file")
        opened = await kernel.open(entry.nodeid)
        answers = []
        for _ in range(20):
            body = bodies.Read(opened.handle, 0, 10, 0, 0, 0)
            answers.append(await kernel.start(Op.READ, entry.nodeid, body))
            await kernel.getattr(entry.nodeid)
        await until(lambda: notes.reading == 20)
        await kernel.interrupt(answers[7])
        with pytest.raises(InterruptedError):
            await answers[7].payload()
        assert notes.cancelled == 1
        notes.gate.set()
        for number, answer in enumerate(answers):
            if number != 7:
                assert await answer.payload() == b"data"
        await kernel.release(opened.handle, nodeid=entry.nodeid)


async def test_an_interrupt_hits_nobody_else(source: Path) -> None:
    """A task that has served one request goes on to serve others: a late INTERRUPT is nothing."""
    notes = Notes()
    notes.waits = False
    async with fake_mount(notes, source=source, policy=_HANDLED) as kernel:
        entry = await kernel.lookup(1, b"file")
        opened = await kernel.open(entry.nodeid)
        for _ in range(30):
            body = bodies.Read(opened.handle, 0, 10, 0, 0, 0)
            answer = await kernel.start(Op.READ, entry.nodeid, body)
            await kernel.interrupt(answer)
            assert await answer.payload() == b"data"
        assert notes.cancelled == 0
        await kernel.release(opened.handle, nodeid=entry.nodeid)


async def test_others_are_served_while_the_trio_thread_is_held_up(source: Path) -> None:
    """The reading is taken back from a trio thread that computes, or calls what blocks."""
    begun, answered = threading.Event(), threading.Event()

    class Computes(Notes):
        holds_up = False
        answered_meanwhile = False

        async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
            if self.holds_up:
                begun.set()
                self.answered_meanwhile = answered.wait(240)
            return await super().getattr(inode, ctx)

    handlers = Computes()
    async with fake_mount(handlers, source=source, policy=_HANDLED) as kernel:
        await kernel.getattr(1)
        handlers.holds_up = True
        server = kernel.session._server
        statfs = server.table[Op.STATFS]

        def notes_when(header: Any, body: Any) -> bytes | None:
            answered.set()
            assert statfs is not None
            return statfs(header, body)

        server.table[Op.STATFS] = notes_when
        # From another thread, as this one is the one that will be held up.
        served = kernel.wire.expect(10_001)
        message = encode_request(Op.STATFS, 10_001, 1, bodies.Statfs())

        def send() -> None:
            begun.wait(240)
            kernel.wire._stdlib.send(message)

        threading.Thread(target=send, daemon=True).start()
        held_up = await kernel.start(Op.GETATTR, 1, bodies.Getattr(0, 0))
        await served.payload()
        await held_up.payload()
        assert handlers.answered_meanwhile


async def test_a_session_ends_while_the_trio_thread_reads(source: Path) -> None:
    notes = Notes()
    async with fake_mount(notes, source=source, policy=_HANDLED) as kernel:
        entry = await kernel.lookup(1, b"file")
        opened = await kernel.open(entry.nodeid)
        body = bodies.Read(opened.handle, 0, 10, 0, 0, 0)
        await kernel.start(Op.READ, entry.nodeid, body)
        await kernel.getattr(entry.nodeid)
        loop = kernel.session._loop
    assert notes.cancelled == 1
    assert not any(reader.is_alive() for reader in loop.readers)


async def test_errors_leave_the_reading_in_order(source: Path) -> None:
    class Fails(Notes):
        async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
            if len(self.threads) % 2:
                self.threads.append("")
                raise PermissionError(errno.EPERM, "no")
            return await super().getattr(inode, ctx)

    async with fake_mount(Fails(), source=source, policy=_HANDLED) as kernel:
        for number in range(20):
            if number % 2:
                with pytest.raises(PermissionError):
                    await kernel.getattr(1)
            else:
                await kernel.getattr(1)


async def test_what_is_answered_is_unpacked_when_it_is_looked_into(source: Path) -> None:
    seen: list[Any] = []

    class Looks(Handlers):
        async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
            attributes = await super().getattr(inode, ctx)
            seen.append(copy.copy(attributes))
            attributes.st_size += 100
            seen.append(attributes)
            return attributes

    (source / "file").chmod(0o640)
    policy = "version: 1\nrules:\n- handle: getattr\n"
    async with fake_mount(Looks(), source=source, policy=policy) as kernel:
        entry = await kernel.lookup(1, b"file")
        told = (await kernel.getattr(entry.nodeid)).attributes
    copied, changed = seen
    assert isinstance(changed, EntryAttributes)
    assert (copied.st_size, changed.st_size, told.size) == (4, 104, 104)
    assert (copied.st_mode, changed.st_mode, told.mode) == (0o100640,) * 3
    assert copied.st_ino == changed.st_ino == entry.nodeid
