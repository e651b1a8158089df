"""The daemon's own operations as Python functions with pyfuse3's types, for handlers.

Each does exactly what the daemon does when no handler is in between. All are plain functions that
return when the work is done; raises `OSError` for what goes wrong.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Final, NamedTuple

import pyfuse3

from inopt.backing.caller import groups_of
from inopt.backing.ranges import LAST_BYTE
from inopt.handlers.directory import readdir_reply
from inopt.handlers.failures import fail
from inopt.handlers.serve import GIVES, LOOKS_UP, Context, Serve, operations, undo
from inopt.handlers.serve.locks import OPERATIONS
from inopt.handlers.types import (
    AnsweredAttributes,
    EntryAttributes,
    FileInfo,
    Lock,
    PollHandle,
    RequestContext,
    StatvfsData,
    entry_of,
    lock_of,
    setattr_of,
)
from inopt.ops import Op
from inopt.wire import bodies, kernel_replies, uapi
from inopt.wire.attributes import encode_rdev
from inopt.wire.bodies import NO_EXTENSIONS, Header
from inopt.wire.directory import DOTS

LARGEST_XATTR: Final = 64 << 10
_PAGE: Final = 32 << 10
_EVENTS: Final = 0xFFFF


class Request(NamedTuple):
    """The request that is being served here: by this thread, or by this task.

    ``thread`` is the reader that serves it, whose descriptors are protected; 0 for a task.
    ``made``: payloads of what was looked up or opened for it, taken back if it fails.
    """

    header: Header
    body: Any
    thread: int
    made: list[bytes]

    def take_back(self, context: Context) -> None:
        """The request fails: what was looked up or opened for it, the kernel is not told of."""
        for payload in self.made:
            undo(context, self.header.opcode, payload, lent=True)


current: Final[ContextVar[Request | None]] = ContextVar("inopt_request", default=None)
_NOBODY: Final = RequestContext(os.geteuid(), os.getegid(), 0)


class Daemon:
    """The daemon's own operations on one mount."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._table: list[Serve | None] = operations(context)

    # --- how a call is made --------------------------------------------------------------------

    def _call(
        self, opcode: Op, nodeid: int, body: Any, ctx: pyfuse3.RequestContext | None = None
    ) -> bytes:
        request = current.get()
        if ctx is None:
            ctx = _caller(request)
        header = Header(0, opcode, 0, nodeid, ctx.uid, ctx.gid, ctx.pid, 0)
        serve = self.function(header, body)
        if request is not None and request.thread == get_ident():
            # The reader that serves the request protects what the call uses.
            payload = serve(header, body) or b""
        else:
            with self.context.tree.descriptors.use():
                payload = serve(header, body) or b""
        if opcode in GIVES:
            if opcode in LOOKS_UP:
                self.context.tree.table.lend((_nodeid_in(payload),))
            if request is not None and opcode == request.header.opcode:
                request.made.append(payload)
        return payload

    def function(self, header: Header, _body: Any) -> Serve:
        """What serves an opcode. Raises `OSError` ``ENOSYS``."""
        serve = self._table[header.opcode]
        if serve is None:
            fail(errno.ENOSYS)
        return serve

    def _entry(self, payload: bytes) -> EntryAttributes:
        return self._attributes_in(payload, 0)

    def _attributes(self, nodeid: int, payload: bytes) -> EntryAttributes:
        return self._attributes_in(payload, nodeid)

    def _attributes_in(self, payload: bytes, nodeid: int) -> EntryAttributes:
        """The attributes in a reply: those of *nodeid*, or an entry if that is 0."""
        return AnsweredAttributes(payload, nodeid, self._unpack)

    def _unpack(self, payload: bytes, nodeid: int) -> EntryAttributes:
        """Like `_attributes_in`, with every field filled in."""
        if nodeid:
            answered = kernel_replies.decode_attr(payload)
            generation = self.context.tree.table.get(nodeid).generation
            return entry_of(answered.attributes, answered.validity, nodeid, generation)
        reply = kernel_replies.decode_any_entry(payload)
        return entry_of(reply.attributes, reply.validity, reply.nodeid, reply.generation)

    def _info(self, payload: bytes) -> FileInfo:
        reply = kernel_replies.decode_open(payload)
        return FileInfo(
            reply.handle,
            direct_io=bool(reply.open_flags & uapi.FOPEN_DIRECT_IO),
            keep_cache=bool(reply.open_flags & uapi.FOPEN_KEEP_CACHE),
        )

    def _nodeid_of(self, handle: int) -> int:
        return self.context.files.get(handle).inode.nodeid

    # --- names ---------------------------------------------------------------------------------

    def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """LOOKUP; counts one lookup."""
        return self._entry(self._call(Op.LOOKUP, parent_inode, bodies.Lookup(name), ctx))

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """FORGET: give lookups back that handlers have made; those of the kernel stay."""
        request = current.get()
        made = request.made if request is not None else []
        for inode, count in inode_list:
            for payload in [each for each in made if _nodeid_in(each) == inode][:count]:
                made.remove(payload)
            self.context.tree.give_back(inode, count)

    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """MKNOD."""
        device = encode_rdev(os.major(rdev), os.minor(rdev))
        body = bodies.Mknod(name, mode, device, _umask(ctx), _extensions(ctx))
        return self._entry(self._call(Op.MKNOD, parent_inode, body, ctx))

    def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """MKDIR."""
        body = bodies.Mkdir(name, stat.S_IMODE(mode), _umask(ctx), _extensions(ctx))
        return self._entry(self._call(Op.MKDIR, parent_inode, body, ctx))

    def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """SYMLINK."""
        body = bodies.Symlink(name, target, _extensions(ctx))
        return self._entry(self._call(Op.SYMLINK, parent_inode, body, ctx))

    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """LINK."""
        body = bodies.Link(inode, new_name)
        return self._entry(self._call(Op.LINK, new_parent_inode, body, ctx))

    def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """UNLINK."""
        self._call(Op.UNLINK, parent_inode, bodies.Unlink(name), ctx)

    def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """RMDIR."""
        self._call(Op.RMDIR, parent_inode, bodies.Rmdir(name), ctx)

    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """RENAME, with the flags of renameat2(2)."""
        body = bodies.Rename(parent_inode_new, flags, name_old, name_new)
        self._call(Op.RENAME2, parent_inode_old, body, ctx)

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
        body = bodies.Create(flags, mode, _umask(ctx), 0, name, _extensions(ctx))
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

    # --- attributes ----------------------------------------------------------------------------

    def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """GETATTR."""
        return self._attributes(inode, self._call(Op.GETATTR, inode, bodies.Getattr(0, 0), ctx))

    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        """SETATTR."""
        request = current.get()
        like = None
        if request is not None and request.header.nodeid == inode:
            like = request.body if isinstance(request.body, bodies.Setattr) else None
        body = setattr_of(attr, fields, fh, like)
        return self._attributes(inode, self._call(Op.SETATTR, inode, body, ctx))

    def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """READLINK."""
        return self._call(Op.READLINK, inode, bodies.Readlink(), ctx)

    def statfs(self, ctx: pyfuse3.RequestContext) -> StatvfsData:
        """STATFS."""
        request = current.get()
        nodeid = request.header.nodeid if request is not None else uapi.ROOT_ID
        reply = kernel_replies.decode_statfs(self._call(Op.STATFS, nodeid, bodies.Statfs(), ctx))
        status = StatvfsData()
        status.f_bsize = reply.block_size
        status.f_frsize = reply.fragment_size
        status.f_blocks = reply.blocks
        status.f_bfree = reply.blocks_free
        status.f_bavail = reply.blocks_available
        status.f_files = reply.files
        status.f_ffree = reply.files_free
        status.f_favail = reply.files_free
        status.f_namemax = reply.name_length
        return status

    # --- directories ---------------------------------------------------------------------------

    def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """OPENDIR; returns the handle."""
        payload = self._call(Op.OPENDIR, inode, bodies.Open(os.O_RDONLY | os.O_DIRECTORY, 0), ctx)
        return int.from_bytes(payload[:8], "little")

    def entries(self, fh: int, start_id: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
        """The entries of an open directory from *start_id* on: name, attributes, next id.

        Each entry but the dots counts a lookup. `readdir_reply` takes it over where it returns
        True; give back the others.
        """
        directory = self.context.directories.get(fh)
        nodeid, offset = directory.inode.nodeid, start_id
        while True:
            body = bodies.Read(fh, offset, _PAGE, 0, 0, 0)
            page = kernel_replies.decode_dirents_plus(self._call(Op.READDIRPLUS, nodeid, body))
            if not page:
                return
            self.context.tree.table.lend(plus.entry.nodeid for plus in page)
            taken = 0
            try:
                for plus in page:
                    taken += 1
                    entry = plus.entry
                    found = entry_of(
                        entry.attributes, entry.validity, entry.nodeid, entry.generation
                    )
                    if not entry.nodeid:
                        found.st_mode = plus.dirent.type << 12
                        if plus.dirent.name in DOTS:
                            found.st_ino = plus.dirent.inode
                    yield plus.dirent.name, found, plus.dirent.next_offset
                    offset = plus.dirent.next_offset
            finally:
                self.forget([(left.entry.nodeid, 1) for left in page[taken:] if left.entry.nodeid])

    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Give entries from *start_id* on to `readdir_reply`, until it returns False."""
        for name, attributes, next_id in self.entries(fh, start_id):
            is_lookup = name not in DOTS and attributes.st_ino > 0
            if not readdir_reply(token, name, attributes, next_id):
                if is_lookup:
                    self.forget([(attributes.st_ino, 1)])
                return

    def releasedir(self, fh: int) -> None:
        """RELEASEDIR."""
        nodeid = self.context.directories.get(fh).inode.nodeid
        self._call(Op.RELEASEDIR, nodeid, bodies.Release(fh, 0, 0, 0))

    def fsyncdir(self, fh: int, datasync: bool) -> None:
        """FSYNCDIR."""
        nodeid = self.context.directories.get(fh).inode.nodeid
        body = bodies.Fsync(fh, uapi.FSYNC_FDATASYNC if datasync else 0)
        self._call(Op.FSYNCDIR, nodeid, body)

    # --- extended attributes -------------------------------------------------------------------

    def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """GETXATTR."""
        return self._call(Op.GETXATTR, inode, bodies.Getxattr(LARGEST_XATTR, name), ctx)

    def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """LISTXATTR."""
        listed = self._call(Op.LISTXATTR, inode, bodies.Listxattr(LARGEST_XATTR), ctx)
        return listed.split(b"\0")[:-1]

    def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext, flags: int = 0
    ) -> None:
        """SETXATTR, with the flags of setxattr(2)."""
        request = current.get()
        more = 0
        served = request.body if request is not None and request.header.nodeid == inode else None
        if isinstance(served, bodies.Setxattr) and served.name == name:
            flags, more = flags or served.flags, served.setxattr_flags
        self._call(Op.SETXATTR, inode, bodies.Setxattr(name, value, flags, more), ctx)

    def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """REMOVEXATTR."""
        self._call(Op.REMOVEXATTR, inode, bodies.Removexattr(name), ctx)


def _nodeid_in(payload: bytes) -> int:
    return int.from_bytes(payload[:8], "little")


def _caller(request: Request | None) -> pyfuse3.RequestContext:
    if request is None:
        return _NOBODY
    header = request.header
    return RequestContext(header.uid, header.gid, header.pid)


def _extensions(ctx: pyfuse3.RequestContext) -> bodies.Extensions:
    """The groups that decide about set-group-id bits of what *ctx* makes."""
    request = current.get()
    if request is not None and request.header.uid == ctx.uid:
        extensions: bodies.Extensions = getattr(request.body, "extensions", NO_EXTENSIONS)
        return extensions
    return bodies.Extensions(groups=groups_of(ctx.pid)) if ctx.uid else NO_EXTENSIONS


def _umask(ctx: pyfuse3.RequestContext) -> int:
    return getattr(ctx, "umask", 0)
