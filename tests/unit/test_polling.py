"""poll(2) with handlers: what is ready, and who is woken."""

from __future__ import annotations

import errno
import select
import threading
from pathlib import Path
from typing import Any, Final

import pyfuse3
import pytest

from inopt import Handlers, PollHandle
from inopt.testing import FakeKernel, fake_mount
from inopt.wire import layouts
from inopt.wire.uapi import NotifyCode

_ROOT: Final = 1
IN, OUT, PRIORITY = select.POLLIN, select.POLLOUT, select.POLLPRI
_READY: Final = IN | OUT | select.POLLRDNORM | select.POLLWRNORM


class Ready(Handlers):
    """Says what it is told to say."""

    for_any_policy = True

    def __init__(self) -> None:
        self.ready = 0
        self.asked: list[tuple[int, int, PollHandle | None, int]] = []

    async def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: Any) -> int:
        request = self.session.request()
        assert request is not None
        self.asked.append((inode, fh, poll_handle, request.events))
        return self.ready


class ReadyPlain(Ready):
    """The same in a plain method."""

    def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: Any) -> Any:
        request = self.session.request()
        assert request is not None
        self.asked.append((inode, fh, poll_handle, request.events))
        return self.ready


async def opened(kernel: FakeKernel, name: bytes = b"file") -> tuple[int, int]:
    inode = (await kernel.lookup(_ROOT, name)).nodeid
    return inode, (await kernel.open(inode)).handle


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("file", "other"):
        (tmp_path / name).touch()
    return tmp_path


def woken(kernel: FakeKernel) -> list[int]:
    """The numbers that notifications were about."""
    return [
        layouts.NOTIFY_POLL_WAKEUP_OUT.unpack(payload)[0]
        for code, payload in kernel.notifications
        if code == NotifyCode.POLL
    ]


@pytest.mark.parametrize("handler_class", [Ready, ReadyPlain])
async def test_poll(source: Path, handler_class: type[Ready]) -> None:
    handlers = handler_class()
    async with fake_mount(handlers, source=source, policy=None) as kernel:
        inode, fh = await opened(kernel)
        handlers.ready = IN | PRIORITY
        assert await kernel.poll(fh, IN | OUT, nodeid=inode) == IN | PRIORITY
        handlers.ready = 0
        assert await kernel.poll(fh, IN, nodeid=inode, waiter=0xFFFF_FFFF_0000_0007) == 0
        assert handlers.asked[0] == (inode, fh, None, IN | OUT)
        *rest, waker, events = handlers.asked[1]
        assert (rest, events) == ([inode, fh], IN)
        assert waker is not None
        if hasattr(pyfuse3, "PollHandle"):
            assert isinstance(waker, pyfuse3.PollHandle)
        assert woken(kernel) == []
        thread = threading.Thread(target=waker.notify)  # from anywhere
        thread.start()
        thread.join()
        waker.notify()
        await kernel.statfs()
        assert woken(kernel) == [0xFFFF_FFFF_0000_0007] * 2
    waker.notify()  # after the end: nobody is there to be woken


async def test_files_that_the_policy_leaves_alone_are_always_ready(source: Path) -> None:
    policy = "version: 1\nrules: [{match: {path: file, type: file}, handle: poll}]\n"
    handlers = Ready()
    async with fake_mount(handlers, source=source, policy=policy) as kernel:
        inode, fh = await opened(kernel)
        assert await kernel.poll(fh, IN, nodeid=inode) == 0
        inode, fh = await opened(kernel, b"other")
        assert await kernel.poll(fh, _READY | PRIORITY, nodeid=inode) == _READY
        assert await kernel.poll(fh, OUT, nodeid=inode) == OUT
        assert len(handlers.asked) == 1


async def test_super_says_ready(source: Path) -> None:
    class Passes(Handlers):
        async def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: Any) -> int:
            return await super().poll(inode, fh, poll_handle, ctx)

    async with fake_mount(Passes(), source=source) as kernel:
        inode, fh = await opened(kernel)
        assert await kernel.poll(fh, IN, nodeid=inode) == _READY


async def test_without_a_method_the_kernel_is_told_not_to_ask(source: Path) -> None:
    class Else(Handlers):
        async def statfs(self, ctx: Any) -> Any:
            return await super().statfs(ctx)

    for handlers in (None, Else()):
        async with fake_mount(handlers, source=source) as kernel:
            inode, fh = await opened(kernel)
            with pytest.raises(OSError, match="not implemented") as caught:
                await kernel.poll(fh, IN, nodeid=inode)
            assert caught.value.errno == errno.ENOSYS


async def test_filesystems_of_pyfuse3_poll(source: Path) -> None:
    """A class that knows nothing of inopt, and wakes as pyfuse3's documentation says."""

    class Stock(pyfuse3.Operations):
        handle: Any = None

        async def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> Any:
            entry = pyfuse3.EntryAttributes()
            entry.st_ino = 2
            entry.st_mode = 0o100644
            return entry

        async def open(self, inode: int, flags: int, ctx: Any) -> Any:
            return pyfuse3.FileInfo(fh=5)

        async def poll(self, inode: int, fh: int, poll_handle: Any, ctx: Any) -> int:
            self.handle = poll_handle
            return int(IN if fh == 5 else 0)

    handlers = Stock()
    async with fake_mount(handlers) as kernel:
        inode, fh = await opened(kernel)
        assert await kernel.poll(fh, IN, nodeid=inode, waiter=9) == IN
        handlers.handle.notify()
        await kernel.lookup(_ROOT, b"file")
        assert woken(kernel) == [9]
