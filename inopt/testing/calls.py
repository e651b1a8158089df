"""What programs ask of a kernel, as the requests that it makes of them; replies are typed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from inopt.ops import Op, OpsMask
from inopt.session.session import Session
from inopt.testing.capture import Captured
from inopt.testing.lock_calls import LockCalls
from inopt.testing.wire import LARGEST, Answer, Caller, Wire
from inopt.wire import bodies, kernel_side, layouts, uapi
from inopt.wire.attributes import encode_rdev
from inopt.wire.bodies import NO_EXTENSIONS, Extensions
from inopt.wire.directory import DOTS
from inopt.wire.kernel_side import (
    AttrReply,
    CreateReply,
    Dirent,
    DirentPlus,
    Entry2Reply,
    EntryReply,
    OpenReply,
    StatfsReply,
    StatxReply,
)
from inopt.wire.uapi import NotifyCode

ROOT: Final = uapi.ROOT_ID
_PAGE: Final = 4096
_NOW: Final = uapi.FATTR_ATIME_NOW | uapi.FATTR_MTIME_NOW


class FakeKernel(LockCalls):
    """A kernel in memory: each method is one request, and nothing is cached or checked.

    An errno that is answered is raised as `OSError`. ``caller`` is who asks, `by` gives the same
    kernel with another one. ``requests``: all that was sent, with route and errno.
    ``notifications``: what the session told, as code and payload. ``backing_ids``: inodes by
    registered backing id, if the kernel takes any, and ``masks`` what they are for. ``wire``: for
    messages that no kernel sends.
    """

    def __init__(
        self,
        wire: Wire,
        session: Session,
        requests: list[Captured],
        backing_ids: dict[int, int],
        masks: dict[int, OpsMask],
        caller: Caller | None = None,
    ) -> None:
        self.session = session
        self.requests = requests
        self.backing_ids = backing_ids
        self.masks = masks
        self.caller: Caller = caller or Caller()
        self.wire = wire

    def by(self, uid: int, gid: int | None = None, pid: int = 1) -> FakeKernel:
        """The same kernel, asked by another user."""
        caller = Caller(uid, uid if gid is None else gid, pid)
        return FakeKernel(
            self.wire, self.session, self.requests, self.backing_ids, self.masks, caller
        )

    @property
    def notifications(self) -> list[tuple[NotifyCode, bytes]]:
        """What the session has told."""
        return self.wire.notifications

    async def start(self, opcode: Op, nodeid: int, body: bodies.Body) -> Answer:
        """Send a request, and leave its answer for later."""
        return await self.wire.send(opcode, nodeid, body, self.caller)

    async def call(self, opcode: Op, nodeid: int, body: bodies.Body) -> bytes:
        """Send a request; returns the payload of its reply."""
        return await (await self.start(opcode, nodeid, body)).payload()

    async def interrupt(self, answer: Answer) -> None:
        """Whoever waits for *answer* has got a signal. It still comes, perhaps as ``EINTR``."""
        await self.start(Op.INTERRUPT, 0, bodies.Interrupt(answer.unique))

    # --- names ---------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> EntryReply | Entry2Reply:
        """LOOKUP; an entry with nodeid 0 says that nothing is there, for some time."""
        return kernel_side.decode_any_entry(await self.call(Op.LOOKUP, parent, bodies.Lookup(name)))

    async def walk(self, path: str | bytes) -> EntryReply | Entry2Reply:
        """LOOKUP of each name of a path from the root on."""
        found: EntryReply | Entry2Reply | None = None
        for name in os.fsencode(path).strip(b"/").split(b"/"):
            found = await self.lookup(found.nodeid if found else ROOT, name)
        assert found is not None  # noqa: S101 - split gives one name at least
        return found

    async def forget(self, nodeid: int, count: int = 1) -> None:
        """FORGET: drop lookups."""
        await self.start(Op.FORGET, nodeid, bodies.Forget(count))

    async def batch_forget(self, items: Sequence[tuple[int, int]]) -> None:
        """BATCH_FORGET: drop lookups of many inodes."""
        await self.start(Op.BATCH_FORGET, 0, bodies.BatchForget(list(items)))

    async def mknod(
        self, parent: int, name: bytes, mode: int, device: int = 0, *, umask: int = 0
    ) -> EntryReply | Entry2Reply:
        """MKNOD."""
        rdev = encode_rdev(os.major(device), os.minor(device))
        body = bodies.Mknod(name, mode, rdev, umask, NO_EXTENSIONS)
        return kernel_side.decode_any_entry(await self.call(Op.MKNOD, parent, body))

    async def mkdir(
        self, parent: int, name: bytes, mode: int = 0o755, *, umask: int = 0
    ) -> EntryReply | Entry2Reply:
        """MKDIR."""
        body = bodies.Mkdir(name, mode, umask, NO_EXTENSIONS)
        return kernel_side.decode_any_entry(await self.call(Op.MKDIR, parent, body))

    async def symlink(self, parent: int, name: bytes, target: bytes) -> EntryReply | Entry2Reply:
        """SYMLINK."""
        body = bodies.Symlink(name, target, NO_EXTENSIONS)
        return kernel_side.decode_any_entry(await self.call(Op.SYMLINK, parent, body))

    async def link(self, nodeid: int, parent: int, name: bytes) -> EntryReply | Entry2Reply:
        """LINK."""
        body = bodies.Link(nodeid, name)
        return kernel_side.decode_any_entry(await self.call(Op.LINK, parent, body))

    async def unlink(self, parent: int, name: bytes) -> None:
        """UNLINK."""
        await self.call(Op.UNLINK, parent, bodies.Unlink(name))

    async def rmdir(self, parent: int, name: bytes) -> None:
        """RMDIR."""
        await self.call(Op.RMDIR, parent, bodies.Rmdir(name))

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """RENAME, or RENAME2 where there are flags."""
        body = bodies.Rename(new_parent, flags, name, new_name)
        await self.call(Op.RENAME2 if flags else Op.RENAME, parent, body)

    # --- open files ----------------------------------------------------------------------------

    async def create(
        self,
        parent: int,
        name: bytes,
        flags: int = os.O_RDWR,
        mode: int = 0o644,
        *,
        umask: int = 0,
        groups: tuple[int, ...] = (),
    ) -> CreateReply:
        """CREATE; *groups* are the caller's that matter."""
        body = bodies.Create(flags, mode, umask, 0, name, Extensions(groups=groups))
        return kernel_side.decode_any_create(await self.call(Op.CREATE, parent, body))

    async def tmpfile(self, parent: int, flags: int = os.O_RDWR, mode: int = 0o600) -> CreateReply:
        """TMPFILE."""
        body = bodies.Create(flags, mode, 0, 0, b"/", NO_EXTENSIONS)
        return kernel_side.decode_any_create(await self.call(Op.TMPFILE, parent, body))

    async def open(self, nodeid: int, flags: int = os.O_RDONLY) -> OpenReply:
        """OPEN; ``backing_id`` is not 0 if the open bypasses."""
        return kernel_side.decode_open(await self.call(Op.OPEN, nodeid, bodies.Open(flags, 0)))

    async def read(
        self, handle: int, offset: int, size: int, *, nodeid: int, page_cache: bool = True
    ) -> bytes:
        """READ; not for the *page_cache*: for the caller alone."""
        flags = 0 if page_cache else uapi.READ_LOCKOWNER
        body = bodies.Read(handle, offset, min(size, LARGEST), flags, 0, 0)
        return await self.call(Op.READ, nodeid, body)

    async def write(
        self, handle: int, offset: int, data: bytes, *, nodeid: int, flags: int = 0
    ) -> int:
        """WRITE; *flags* are those of the open. Returns how many bytes were written."""
        body = bodies.Write(handle, offset, len(data), 0, 0, flags, memoryview(data))
        return int.from_bytes((await self.call(Op.WRITE, nodeid, body))[:4], "little")

    async def flush(self, handle: int, *, nodeid: int, lock_owner: int = 0) -> None:
        """FLUSH: the locks of *lock_owner* on the file end."""
        await self.call(Op.FLUSH, nodeid, bodies.Flush(handle, lock_owner))

    async def release(self, handle: int, *, nodeid: int) -> None:
        """RELEASE."""
        await self.call(Op.RELEASE, nodeid, bodies.Release(handle, 0, 0, 0))

    async def fsync(self, handle: int, *, nodeid: int, datasync: bool = False) -> None:
        """FSYNC."""
        await self.call(Op.FSYNC, nodeid, bodies.Fsync(handle, int(datasync)))

    async def lseek(self, handle: int, offset: int, whence: int, *, nodeid: int) -> int:
        """LSEEK, for data and holes."""
        payload = await self.call(Op.LSEEK, nodeid, bodies.Lseek(handle, offset, whence))
        return kernel_side.decode_number(layouts.LSEEK_OUT, payload)

    async def fallocate(
        self, handle: int, mode: int, offset: int, length: int, *, nodeid: int
    ) -> None:
        """FALLOCATE."""
        await self.call(Op.FALLOCATE, nodeid, bodies.Fallocate(handle, offset, length, mode))

    async def copy_file_range(
        self,
        handle: int,
        offset: int,
        target: int,
        target_offset: int,
        length: int,
        *,
        nodeid: int,
        target_nodeid: int,
    ) -> int:
        """COPY_FILE_RANGE; returns how many bytes were copied."""
        body = bodies.CopyFileRange(handle, offset, target_nodeid, target, target_offset, length, 0)
        payload = await self.call(Op.COPY_FILE_RANGE_64, nodeid, body)
        return int.from_bytes(payload[:8], "little")

    async def ioctl(
        self, handle: int, command: int, data: bytes = b"", output_size: int = 0, *, nodeid: int
    ) -> bytes:
        """IOCTL; returns the output."""
        body = bodies.Ioctl(handle, 0, command, 0, len(data), output_size, memoryview(data))
        return (await self.call(Op.IOCTL, nodeid, body))[layouts.IOCTL_OUT.size :]

    # --- attributes ----------------------------------------------------------------------------

    async def getattr(self, nodeid: int, handle: int | None = None) -> AttrReply:
        """GETATTR."""
        flags = 0 if handle is None else uapi.GETATTR_FH
        body = bodies.Getattr(flags, handle or 0)
        return kernel_side.decode_attr(await self.call(Op.GETATTR, nodeid, body))

    async def statx(self, nodeid: int) -> StatxReply:
        """STATX."""
        body = bodies.Statx(0, 0, 0, 0xFFF)
        return kernel_side.decode_statx(await self.call(Op.STATX, nodeid, body))

    async def setattr(
        self,
        nodeid: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        times: tuple[int, int] | None = None,
        now: bool = False,
        handle: int | None = None,
    ) -> AttrReply:
        """SETATTR; *times* are seconds of access and modification, *now* sets both to now."""
        valid = _NOW | uapi.FATTR_ATIME | uapi.FATTR_MTIME if now else 0
        for given, bit in (
            (mode, uapi.FATTR_MODE), (uid, uapi.FATTR_UID), (gid, uapi.FATTR_GID),
            (size, uapi.FATTR_SIZE), (times, uapi.FATTR_ATIME | uapi.FATTR_MTIME),
            (handle, uapi.FATTR_FH),
        ):  # fmt: skip
            valid |= bit if given is not None else 0
        access, modification = times or (0, 0)
        body = bodies.Setattr(
            valid, handle or 0, size or 0, 0, access, modification, 0, 0, 0, 0, mode or 0,
            uid or 0, gid or 0,
        )  # fmt: skip
        return kernel_side.decode_attr(await self.call(Op.SETATTR, nodeid, body))

    async def readlink(self, nodeid: int) -> bytes:
        """READLINK."""
        return await self.call(Op.READLINK, nodeid, bodies.Readlink())

    async def statfs(self, nodeid: int = ROOT) -> StatfsReply:
        """STATFS."""
        return kernel_side.decode_statfs(await self.call(Op.STATFS, nodeid, bodies.Statfs()))

    # --- directories ---------------------------------------------------------------------------

    async def opendir(self, nodeid: int = ROOT) -> OpenReply:
        """OPENDIR."""
        body = bodies.Open(os.O_RDONLY | os.O_DIRECTORY, 0)
        return kernel_side.decode_open(await self.call(Op.OPENDIR, nodeid, body))

    async def readdir(
        self, handle: int, offset: int = 0, size: int = _PAGE, *, nodeid: int = ROOT
    ) -> list[Dirent]:
        """READDIR: one page of names."""
        body = bodies.Read(handle, offset, size, 0, 0, 0)
        return kernel_side.decode_dirents(await self.call(Op.READDIR, nodeid, body))

    async def readdirplus(
        self, handle: int, offset: int = 0, size: int = _PAGE, *, nodeid: int = ROOT
    ) -> list[DirentPlus]:
        """READDIRPLUS: one page of names with their attributes, each counted as a lookup."""
        body = bodies.Read(handle, offset, size, 0, 0, 0)
        return kernel_side.decode_dirents_plus(await self.call(Op.READDIRPLUS, nodeid, body))

    async def listdir(self, nodeid: int = ROOT) -> list[bytes]:
        """OPENDIR, READDIR to the end, RELEASEDIR: all names but the dots, sorted."""
        handle = (await self.opendir(nodeid)).handle
        names: list[bytes] = []
        offset = 0
        while page := await self.readdir(handle, offset, nodeid=nodeid):
            names += [entry.name for entry in page]
            offset = page[-1].next_offset
        await self.releasedir(handle, nodeid=nodeid)
        return sorted(name for name in names if name not in DOTS)

    async def releasedir(self, handle: int, *, nodeid: int = ROOT) -> None:
        """RELEASEDIR."""
        await self.call(Op.RELEASEDIR, nodeid, bodies.Release(handle, 0, 0, 0))

    async def fsyncdir(self, handle: int, *, nodeid: int = ROOT) -> None:
        """FSYNCDIR."""
        await self.call(Op.FSYNCDIR, nodeid, bodies.Fsync(handle, 0))

    # --- extended attributes -------------------------------------------------------------------

    async def getxattr(self, nodeid: int, name: bytes, size: int = _PAGE) -> bytes:
        """GETXATTR; with *size* 0, the size as 4 bytes."""
        return await self.call(Op.GETXATTR, nodeid, bodies.Getxattr(size, name))

    async def listxattr(self, nodeid: int, size: int = _PAGE) -> list[bytes]:
        """LISTXATTR."""
        listed = await self.call(Op.LISTXATTR, nodeid, bodies.Listxattr(size))
        return listed.split(b"\0")[:-1]

    async def setxattr(self, nodeid: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """SETXATTR."""
        await self.call(Op.SETXATTR, nodeid, bodies.Setxattr(name, value, flags, 0))

    async def removexattr(self, nodeid: int, name: bytes) -> None:
        """REMOVEXATTR."""
        await self.call(Op.REMOVEXATTR, nodeid, bodies.Removexattr(name))
