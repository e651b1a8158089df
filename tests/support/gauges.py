"""Files that are ready when something has come: for poll(2) on a real mount."""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any

from inopt import FileInfo, Handlers, PollHandle


class Mailbox(Handlers):
    """What is put into a file by setxattr(2) can be read, once; poll(2) tells when."""

    for_any_policy = True

    def __init__(self) -> None:
        self.waiting: dict[int, bytes] = {}
        self.wakers: dict[int, PollHandle] = {}

    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        info = await super().open(inode, flags, ctx)
        info.direct_io = True
        return info

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self.waiting.pop(self.backing.inode_of(fh), b"")[:size]

    async def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: Any) -> int:
        if poll_handle is not None:
            self.wakers[inode] = poll_handle
        return select.POLLIN if inode in self.waiting else 0

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        self.waiting[inode] = value
        waker = self.wakers.pop(inode, None)
        if waker is not None:
            waker.notify()


class MailboxPlain(Mailbox):
    """The same in plain methods, as far as it matters."""

    def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: Any) -> Any:
        if poll_handle is not None:
            self.wakers[inode] = poll_handle
        return select.POLLIN if inode in self.waiting else 0

    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> Any:
        self.waiting[inode] = value
        waker = self.wakers.pop(inode, None)
        if waker is not None:
            waker.notify()


class Forgets(Handlers):
    """Counts what is forgotten; getxattr(2) of ``user.told`` tells, lookups by name remember."""

    for_any_policy = True

    def __init__(self) -> None:
        self.told: dict[int, int] = {}
        self.states = 0

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.note(inode_list)
        await super().forget(inode_list)
        await super().forget(inode_list)

    def note(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            self.told[inode] = self.told.get(inode, 0) + count
            self.states += bool(self.backing.inode_state(inode).get("mine"))

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> Any:
        entry = await super().lookup(parent_inode, name, ctx)
        self.backing.inode_state(entry.st_ino)["mine"] = True
        return entry

    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        if name == b"user.told":
            return f"{len(self.told)} {self.states}".encode()
        return await super().getxattr(inode, name, ctx)


class ForgetsPlainly(Forgets):
    """The same in a plain method."""

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> Any:
        self.note(inode_list)
        self.daemon.forget(inode_list)
        self.daemon.forget(inode_list)


class FailsToForget(Forgets):
    """Never gets anywhere."""

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.note(inode_list)
        raise RuntimeError("no memory of it")
