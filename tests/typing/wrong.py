"""Mistakes that type checkers are to find, each where the comment says so.

A comment names mypy's code for it and pyright's; one without a mistake is an error in itself.
"""

from __future__ import annotations

from typing import Any

import inopt
from inopt import EntryAttributes, FileInfo, FUSEError, Handlers, RequestContext, plain
from inopt.testing import fake_mount


class Answers(Handlers):
    """Methods that answer with the wrong thing."""

    async def read(self, fh: int, off: int, size: int) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return ""

    async def write(self, fh: int, off: int, buf: bytes) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        await super().write(fh, off, buf)

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return super().getattr(inode, ctx)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return 3

    async def create(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> FileInfo:
        return FileInfo(3)


class Asked(Handlers):
    """Methods that are not what the session calls."""

    async def read(self, fh: int, off: int) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return b""

    async def lookup(self, parent_inode: int, name: str, ctx: RequestContext) -> EntryAttributes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return EntryAttributes()

    async def setattr(self, inode: int, attr: EntryAttributes, ctx: RequestContext) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return attr

    def release(self, fh: int) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """A plain method without `plain`."""

    @plain
    def write(self, fh: int, off: int, buf: bytes) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return buf

    @plain
    def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self.daemon.readlink(inode)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    async def started(self, session: str) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


class Reaches(Handlers):
    """Calls of what is below, and of the mount."""

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await super().unlink(parent_inode, name)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        if name == b"x":
            raise FUSEError("EPERM")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.backing.open("/etc/passwd")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.backing.close(3)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        await self.session.invalidate_entry(1, "name")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        FileInfo(3, bypass="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def mounts() -> None:
    inopt.run(Reaches, "/mnt")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    inopt.run(Reaches(), "/mnt", sources="/srv")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    inopt.run_pyfuse3(Reaches(), 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with inopt.mount("/mnt", handlers="a:A") as session:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session.remount()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    async with fake_mount(Reaches()) as kernel:
        await kernel.lookup(1, "name")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
