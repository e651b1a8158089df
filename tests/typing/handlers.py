"""What users write, under type checkers: overrides, what they reach, mounts, tests of their own.

Nothing here runs. `test_typing` checks it as a program outside of this repository.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

import inopt
from inopt import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    Handlers,
    InoptError,
    Lock,
    PollHandle,
    RequestContext,
    SessionReach,
    SetattrFields,
    StatvfsData,
    UsageError,
    plain,
    readdir_reply,
)
from inopt.testing import Caller, Captured, FakeKernel, capture_requests, fake_mount
from inopt.testing.fixtures import MakeMount


class Waits(Handlers):
    """Everything is ``async def``, and calls what it overrides."""

    for_any_policy = True

    def __init__(self, limit: int = 1 << 30) -> None:
        super().__init__()
        self.limit = limit
        self.seen: list[bytes] = []

    async def started(self, session: SessionReach) -> None:
        session.nursery.start_soon(self._work, 1.0)

    async def stopped(self) -> None:
        self.seen.clear()

    async def _work(self, pause: float) -> None:
        await trio.sleep(pause)
        dropped: bool = await self.session.invalidate_entry(1, b"name")
        if dropped and not await self.session.expire_entry(1, b"other"):
            await self.session.invalidate_inode(2, attributes_only=True)
        await self.session.store(2, 0, b"data")

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name.startswith(b"."):
            raise FUSEError(errno.ENOENT)
        self.seen.append(name)
        entry = await super().lookup(parent_inode, name, ctx)
        entry.entry_timeout = 0.5
        if stat.S_ISREG(entry.st_mode):
            entry.st_size *= 2
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        await super().forget(inode_list)
        print(sum(count for _, count in inode_list))

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        await super().rename(
            parent_inode_old, name_old, parent_inode_new, name_new, flags | os.O_EXCL, ctx
        )

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        info = await super().open(inode, flags, ctx)
        info.bypass = ctx.uid == 0
        info.keep_cache = info.fh > 0
        return info

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        info, entry = await super().create(parent_inode, name, mode & ~ctx.umask, flags, ctx)
        self.backing.inode_state(entry.st_ino)["made by"] = ctx.pid
        return info, entry

    async def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        return await super().tmpfile(parent_inode, mode, flags, ctx)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return (await super().read(fh, off, size)).upper()

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if off + len(buf) > self.limit:
            raise OSError(errno.EFBIG, "too large")
        return await super().write(fh, off, buf.lower())

    async def fsync(self, fh: int, datasync: bool) -> None:
        await trio.to_thread.run_sync(self.daemon.fsync, fh, datasync)

    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        return await super().lseek(fh, offset, whence) + 0

    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        await super().fallocate(fh, mode, offset, length)

    async def copy_file_range(
        self, fh_in: int, off_in: int, fh_out: int, off_out: int, length: int, flags: int
    ) -> int:
        return await super().copy_file_range(fh_in, off_in, fh_out, off_out, length, flags)

    async def ioctl(
        self, inode: int, fh: int, command: int, flags: int, data: bytes, output_size: int
    ) -> bytes:
        return await super().ioctl(inode, fh, command, flags, data, output_size)

    async def poll(
        self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: RequestContext
    ) -> int:
        if poll_handle is not None:
            poll_handle.notify()
        return select.POLLIN & await super().poll(inode, fh, poll_handle, ctx)

    async def getlk(self, fh: int, lock: Lock, ctx: RequestContext) -> Lock | None:
        found = await super().getlk(fh, lock, ctx)
        return found if found is None or found.excludes(lock) else None

    async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: RequestContext) -> None:
        if lock.type == fcntl.F_WRLCK and lock.end > 1 << 40:
            raise FUSEError(errno.ENOLCK)
        await super().setlk(fh, lock, wait, ctx)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        if fields.update_size and attr.st_size > self.limit:
            raise FUSEError(errno.EFBIG)
        return await super().setattr(inode, attr, fields, fh, ctx)

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        numbers = await super().statfs(ctx)
        numbers.f_bavail //= 2
        return numbers

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        for name, attr, next_id in self.daemon.entries(fh, start_id):
            if not readdir_reply(token, name, attr, next_id):
                return

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        names = await super().listxattr(inode, ctx)
        return [name for name in names if not name.startswith(b"user.")]


class Plain(Handlers):
    """Everything is a plain ``def``; `plain` tells type checkers that this is meant."""

    @plain
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self.daemon.lookup(parent_inode, name, ctx)

    @plain
    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        info = self.daemon.open(inode, flags, ctx)
        self.backing.open_state(info.fh)["uid"] = ctx.uid
        return FileInfo(info.fh, bypass=False)

    @plain
    def read(self, fh: int, off: int, size: int) -> bytes:
        return self.daemon.read(fh, off, size)[::-1]

    @plain
    def setlk(self, fh: int, lock: Lock, wait: bool, ctx: RequestContext) -> None:
        self.daemon.setlk(fh, lock, wait, ctx)

    @plain
    def flock(self, fh: int, operation: int, ctx: RequestContext) -> None:
        self.daemon.flock(fh, operation, ctx)

    @plain
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self.daemon.unlink(parent_inode, name, ctx)

    @plain
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        return self.daemon.create(parent_inode, name, mode, flags, ctx)


class Reaches(Plain):
    """What is below, who asks, and what the policy says; a subclass of a subclass."""

    async def release(self, fh: int) -> None:
        await super().release(fh)
        self._look(self.backing.inode_of(fh))

    def _look(self, inode: int) -> bytes | None:
        descriptor: int = self.backing.open(inode, os.O_RDONLY)
        try:
            size: int = self.backing.stat(inode).st_size
        finally:
            os.close(descriptor)
        os.close(self.backing.open_beneath(inode, b"name", os.O_WRONLY | os.O_CREAT, 0o600))
        self.backing.setxattr(inode, "user.size", str(size).encode())
        where: bytes = self.backing.location(inode)
        print(where.decode())
        return self.backing.getxattr(inode, "user.size")

    @plain
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        request = self.session.request()
        if request is not None and request.uid != ctx.uid:
            raise FUSEError(errno.EPERM)
        caller = self.session.caller(ctx)
        if 100 in caller.groups:
            self.session.stop_bypassing(inode)
        plan: dict[str, str] = self.session.plan(inode)
        print(plan["read"], self.session.stats()["mountpoint"])
        with self.backing.acting_as(ctx):
            return self.daemon.getattr(inode, ctx)


async def embedded(place: Path) -> None:
    async with inopt.mount(place, source="/srv", handlers=Waits(), tier="rw") as session:
        with capture_requests(session) as requests:
            await session.reload("mirror")
        print(session.stats()["READ"], [request.name for request in requests])
        await session.unmount()


def alone() -> int:
    try:
        inopt.run(Plain(), "/mnt", source="/srv", policy="audit", options="ro", fd_budget=100)
        inopt.run_pyfuse3(Plain(), "/mnt", source=Path("/srv"))
    except UsageError as error:
        print(error)
    except InoptError as error:
        return error.exit_code
    return 0


async def test_in_memory(tmp_path: Path) -> None:
    async with fake_mount(Waits(), source=tmp_path, bypass=True) as kernel:
        await check(kernel)


async def check(kernel: FakeKernel) -> None:
    inode: int = (await kernel.lookup(1, b"a.txt")).nodeid
    opened = await kernel.by(uid=1001).open(inode)
    data: bytes = await kernel.read(opened.handle, 0, 100, nodeid=inode)
    last: Captured = kernel.requests[-1]
    assert (data, last.name, last.route, last.errno) == (b"HELLO", "READ", "handler", 0)
    assert kernel.caller == Caller(0, 0, 1)
    with pytest.raises(OSError, match="No such file"):
        await kernel.lookup(1, b".hidden")


@pytest.fixture
def mounted(inopt_mount: MakeMount, tmp_path: Path) -> Path:
    return inopt_mount("handlers:Plain", tmp_path, policy="mirror").path
