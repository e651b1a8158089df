"""A user's handlers under type checkers: async and plain overrides, both without complaint."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import trio

import inopt
from inopt import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    Handlers,
    RequestContext,
    SetattrFields,
    plain,
)
from inopt.handlers.reach import SessionReach


class Waits(Handlers):
    """Everything is ``async def``."""

    async def started(self, session: SessionReach) -> None:
        session.nursery.start_soon(self._work)

    async def _work(self) -> None:
        await trio.sleep(1)
        await self.session.invalidate_entry(1, b"name")

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name.startswith(b"."):
            raise FUSEError(errno.ENOENT)
        return await super().lookup(parent_inode, name, ctx)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        info = await super().open(inode, flags, ctx)
        info.bypass = ctx.uid == 0
        return info

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return (await super().read(fh, off, size)).upper()

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await super().write(fh, off, buf.lower())

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        if fields.update_size and attr.st_size > 1 << 30:
            raise OSError(errno.EFBIG, "too large")
        return await super().setattr(inode, attr, fields, fh, ctx)

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
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self.daemon.unlink(parent_inode, name, ctx)

    @plain
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        return self.daemon.create(parent_inode, name, mode, flags, ctx)


async def main() -> None:
    async with inopt.mount("/mnt", source="/srv", handlers=Waits()) as session:
        print(session.stats()["READ"])


def run() -> None:
    inopt.run(Plain(), "/mnt", source="/srv")
