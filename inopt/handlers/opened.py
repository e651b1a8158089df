"""The daemon's operations on open files, and locks, as Python functions with pyfuse3's types."""

from __future__ import annotations

import errno
import fcntl
from typing import Final

import pyfuse3

from inopt.backing.ranges import LAST_BYTE
from inopt.handlers.calling import Calls, current, extensions, umask
from inopt.handlers.failures import fail
from inopt.handlers.serve.locks import OPERATIONS
from inopt.handlers.types import (
    EntryAttributes,
    FileInfo,
    Lock,
    PollHandle,
    lock_of,
)
from inopt.ops import Op
from inopt.wire import bodies, kernel_replies, uapi

_EVENTS: Final = 0xFFFF


class OpenFiles(Calls):
    """What is done by handles."""

    # --- open files ----------------------------------------------------------------------------

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """CREATE: make a regular file and open it."""
        return self._create(Op.CREATE, parent_inode, name, mode, flags, ctx)

    def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """TMPFILE: make a regular file without a name and open it."""
        return self._create(Op.TMPFILE, parent_inode, b"/", mode, flags, ctx)

    def _create(
        self,
        opcode: Op,
        parent: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        body = bodies.Create(flags, mode, umask(ctx), 0, name, extensions(ctx))
        payload = self._call(opcode, parent, body, ctx)
        return self._info(payload[-16:]), self._entry(payload[:-16])

    def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """OPEN."""
        return self._info(self._call(Op.OPEN, inode, bodies.Open(flags, 0), ctx))

    def read(self, fh: int, off: int, size: int) -> bytes:
        """READ."""
        return self._call(Op.READ, self._nodeid_of(fh), bodies.Read(fh, off, size, 0, 0, 0))

    def write(self, fh: int, off: int, buf: bytes) -> int:
        """WRITE; appends if the request that is being served is a WRITE of *fh* that does."""
        request = current.get()
        write_flags = flags = 0
        served = request.body if request is not None else None
        if isinstance(served, bodies.Write) and served.handle == fh:
            write_flags, flags = served.write_flags, served.flags
        body = bodies.Write(fh, off, len(buf), write_flags, 0, flags, memoryview(buf))
        payload = self._call(Op.WRITE, self._nodeid_of(fh), body)
        return int.from_bytes(payload[:4], "little")

    def flush(self, fh: int) -> None:
        """FLUSH."""
        if self.context.no_flush:
            return  # not ENOSYS: the kernel would not ask for any file again
        self._call(Op.FLUSH, self._nodeid_of(fh), bodies.Flush(fh, 0))

    def release(self, fh: int) -> None:
        """RELEASE."""
        self._call(Op.RELEASE, self._nodeid_of(fh), bodies.Release(fh, 0, 0, 0))

    def fsync(self, fh: int, datasync: bool) -> None:
        """FSYNC."""
        body = bodies.Fsync(fh, uapi.FSYNC_FDATASYNC if datasync else 0)
        self._call(Op.FSYNC, self._nodeid_of(fh), body)

    def lseek(self, fh: int, offset: int, whence: int) -> int:
        """LSEEK: data and holes; returns the offset in bytes."""
        payload = self._call(Op.LSEEK, self._nodeid_of(fh), bodies.Lseek(fh, offset, whence))
        return int.from_bytes(payload[:8], "little")

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        """FALLOCATE."""
        body = bodies.Fallocate(fh, offset, length, mode)
        self._call(Op.FALLOCATE, self._nodeid_of(fh), body)

    def copy_file_range(
        self, fh_in: int, off_in: int, fh_out: int, off_out: int, length: int, flags: int
    ) -> int:
        """COPY_FILE_RANGE; returns how many bytes were copied."""
        nodeid_out = self._nodeid_of(fh_out)
        body = bodies.CopyFileRange(fh_in, off_in, nodeid_out, fh_out, off_out, length, flags)
        payload = self._call(Op.COPY_FILE_RANGE_64, self._nodeid_of(fh_in), body)
        return int.from_bytes(payload[:8], "little")

    def ioctl(
        self, inode: int, fh: int, command: int, flags: int, data: bytes, output_size: int
    ) -> bytes:
        """IOCTL: inode flags; returns the output bytes."""
        body = bodies.Ioctl(fh, flags, command, 0, len(data), output_size, memoryview(data))
        return self._call(Op.IOCTL, inode, body)[16:]

    def poll(
        self,
        inode: int,
        fh: int,
        poll_handle: PollHandle | None,
        ctx: pyfuse3.RequestContext,
    ) -> int:
        """POLL: a regular file is always ready."""
        del poll_handle
        body = bodies.Poll(fh, 0, 0, _EVENTS)
        return int.from_bytes(self._call(Op.POLL, inode, body, ctx)[:4], "little")

    # --- locks ---------------------------------------------------------------------------------

    def getlk(self, fh: int, lock: Lock, ctx: pyfuse3.RequestContext) -> Lock | None:
        """GETLK: a lock that keeps the caller from getting *lock*, on the backing file."""
        body = bodies.Lock(fh, lock.owner, lock.start, lock.end, lock.type, lock.pid, 0)
        payload = self._call(Op.GETLK, self._nodeid_of(fh), body, ctx)
        found = kernel_replies.decode_lock(payload)
        if found.type == fcntl.F_UNLCK:
            return None
        return lock_of(bodies.Lock(fh, 0, found.start, found.end, found.type, found.pid, 0))

    def setlk(self, fh: int, lock: Lock, wait: bool, ctx: pyfuse3.RequestContext) -> None:
        """SETLK on the backing file; ``EAGAIN`` if the lock is taken, whether or not to *wait*."""
        del wait  # the session does, when it gets that answer
        body = bodies.Lock(fh, lock.owner, lock.start, lock.end, lock.type, lock.pid, 0)
        self._call(Op.SETLK, self._nodeid_of(fh), body, ctx)

    def flock(self, fh: int, operation: int, ctx: pyfuse3.RequestContext) -> None:
        """flock(2) on the backing file; ``EAGAIN`` if the lock is taken, with LOCK_NB or not."""
        kinds = {wanted: kind for kind, wanted in OPERATIONS.items()}
        kind = kinds.get(operation & ~fcntl.LOCK_NB)
        if kind is None:
            fail(errno.EINVAL)
        body = bodies.Lock(fh, 0, 0, LAST_BYTE, kind, ctx.pid, uapi.LOCK_FLOCK)
        self._call(Op.SETLK, self._nodeid_of(fh), body, ctx)
