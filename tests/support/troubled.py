"""Handlers that do what handlers must not do, or do it late: for tests on real mounts."""

from __future__ import annotations

import errno
import random
import time
from typing import Any

import trio

from inopt import EntryAttributes, FileInfo, FUSEError, Handlers


def _asked_for(name: bytes) -> str:
    """The word that an extended attribute's name is about. Raises what it asks to be raised."""
    word = name.removeprefix(b"user.").decode()
    if word == "fuse-error":
        raise FUSEError(errno.EDQUOT)
    if word == "os-error":
        raise OSError(errno.ENOSPC, "full")
    if word == "bug":
        raise ZeroDivisionError("a bug")
    return word


class Troubled(Handlers):
    """What `getxattr` is asked for is what happens; all else serves as usual."""

    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        word = _asked_for(name)
        if word == "wrong":
            return "text"  # type: ignore[return-value]
        if word == "sleep":
            await trio.sleep_forever()
        if word == "late":
            await trio.sleep(2)
        if word == "where":
            request = self.session.request()
            assert request is not None
            return f"{request.opcode.name} {request.uid}".encode()
        if word == "leave-alone":
            self.session.stop_bypassing(inode)
            return b"done"
        if word == "bypass-again":
            self.session.bypass_again(inode)
            return b"done"
        if word.startswith("notify-"):
            return await self._notify(inode, word.removeprefix("notify-"))
        return await super().getxattr(inode, name, ctx)

    async def _notify(self, inode: int, what: str) -> bytes:
        session = self.session
        if what == "inode":
            return str(await session.invalidate_inode(inode)).encode()
        if what == "attributes":
            return str(await session.invalidate_inode(inode, attributes_only=True)).encode()
        if what == "store":
            return str(await session.store(inode, 0, b"STORED")).encode()
        if what == "unknown":
            return str(await session.invalidate_inode(0x7FFF_FFFF)).encode()
        action, _, name = what.partition(":")
        tell = {"entry": session.invalidate_entry, "expire": session.expire_entry}[action]
        return str(await tell(inode, name.encode())).encode()


class TroubledPlain(Troubled):
    """The same in a plain method, as far as that can be."""

    def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:  # type: ignore[override]
        word = _asked_for(name)
        if word == "wrong":
            return "text"  # type: ignore[return-value]
        if word == "late":
            time.sleep(2)
        return self.daemon.getxattr(inode, name, ctx)


class Chooses(Handlers):
    """Each open wishes by chance to bypass, or not, or nothing, after a moment."""

    for_any_policy = True

    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        info = await super().open(inode, flags, ctx)
        await trio.sleep(random.choice((0, 0, 0.0005)))
        info.bypass = random.choice((None, True, False))
        return info

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[FileInfo, EntryAttributes]:
        info, entry = await super().create(parent_inode, name, mode, flags, ctx)
        info.bypass = random.choice((None, True, False))
        return info, entry

    async def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: Any
    ) -> tuple[FileInfo, EntryAttributes]:
        info, entry = await super().tmpfile(parent_inode, mode, flags, ctx)
        info.bypass = random.choice((None, True, False))
        return info, entry

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await super().read(fh, off, size)

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        if name == b"user.stop":
            self.session.stop_bypassing(inode)
        elif name == b"user.again":
            self.session.bypass_again(inode)
        else:
            await super().setxattr(inode, name, value, ctx)


class ChoosesPlain(Chooses):
    """The same in plain methods."""

    def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:  # type: ignore[override]
        info = self.daemon.open(inode, flags, ctx)
        info.bypass = random.choice((None, True, False))
        return info


class SlowLookup(Handlers):
    """Looking up ``take-your-time`` takes until somebody looks for ``enough``."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = trio.Event()

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
        if name == b"take-your-time":
            await self.enough.wait()
        if name == b"enough":
            self.enough.set()
        return await super().lookup(parent_inode, name, ctx)
