"""The opcodes of open regular files."""

from __future__ import annotations

import errno
import os
import select
from typing import Final

from inopt import syscalls
from inopt.backing.caller import acting_as, groups_for
from inopt.backing.files import OpenFile
from inopt.backing.inodes import Inode
from inopt.handlers.failures import fail
from inopt.handlers.serve.context import Context, without_direct
from inopt.policy.plan import Plan
from inopt.wire import bodies, replies, uapi
from inopt.wire.bodies import Header

# Who opens the backing file is the daemon, so these are not passed on as they are: names are
# resolved, truncation is done as the caller, and where appends go is told by each WRITE.
_NOT_PASSED: Final = (
    os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_APPEND | os.O_TMPFILE
)
_READY: Final = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
# Whoever opens a file with these does more than to read it, or needs a descriptor.
_NOT_AGAIN: Final = os.O_ACCMODE | os.O_TRUNC | os.O_APPEND | os.O_DIRECT
_KEEP_SIZE: Final = 0x01  # FALLOC_FL_KEEP_SIZE
_COPY_LIMIT: Final = 64 << 20  # so that an interrupted copy ends soon


def backing_flags(context: Context, flags: int) -> int:
    """The open(2) flags for the backing file of an open with *flags*."""
    passed = flags & ~_NOT_PASSED | context.open_flags
    if context.reads_back and passed & os.O_ACCMODE == os.O_WRONLY:
        passed = passed & ~os.O_ACCMODE | os.O_RDWR
    return passed


def open_file(context: Context, header: Header, body: bodies.Open) -> bytes:
    """OPEN: the inode's first open decides whether this and all others bypass."""
    tree = context.tree
    inode = tree.table.get(header.nodeid)
    flags = backing_flags(context, body.flags)
    truncates = body.flags & os.O_TRUNC
    if truncates and flags & os.O_ACCMODE != os.O_WRONLY:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    appends = bool(body.flags & os.O_APPEND)
    flags = tree.prepare_open(inode, flags | truncates, appends=appends) & ~os.O_TRUNC
    with tree.changing:
        tree.require_openable(inode)
        if not body.flags & _NOT_AGAIN and not context.dialect.one_shot:
            reply = _open_again(context, inode, body.flags)
            if reply is not None:
                return reply
        descriptor = _open(context, inode, flags, appends=appends)
        if truncates:
            try:
                truncate(descriptor, header, 0)
            except BaseException:
                os.close(descriptor)
                raise
        return finish_open(context, header, inode, body.flags, descriptor)


def _open_again(context: Context, inode: Inode, flags: int) -> bytes | None:
    """Answer an open for reading of a file that the kernel has already; None if it has not."""
    if inode.never_bypass or not context.attachments.may_open_again(inode):
        return None
    plan = context.placement.plan(inode)
    if not plan.bypasses:
        return None
    backing_id = context.attachments.opened_again(inode)
    if not backing_id:
        return None
    file = OpenFile(inode, backing_flags(context, flags), -1)
    return _opened(context, file, plan, flags, backing_id)


def _open(context: Context, inode: Inode, flags: int, *, appends: bool) -> int:
    try:
        return context.tree.open(inode, flags)
    except PermissionError:
        # An append-only file (chattr +a) can only be opened for appending.
        if not appends:
            raise
        return context.tree.open(inode, flags | os.O_APPEND)


def truncate(descriptor: int, header: Header, size: int) -> None:
    """ftruncate(2) as the caller, whose privileges decide about set-id bits and quota."""
    with acting_as(header.uid, header.gid, groups_for(descriptor, header.uid, header.pid)):
        os.ftruncate(descriptor, size)


def finish_open(
    context: Context,
    header: Header,
    inode: Inode,
    flags: int,
    descriptor: int,
    *,
    is_new: bool = False,
) -> bytes:
    """Answer an open: the reply's payload. *descriptor* is taken over.

    *is_new*: the kernel does not know the inode yet, nor believes anything of it.
    """
    tree = context.tree
    one_shot = context.dialect.one_shot
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    file = OpenFile(inode, backing_flags(context, flags), -1)
    try:
        plan = context.placement.plan(inode)
        backing_id = context.attachments.opened(
            inode,
            descriptor,
            writes=writes,
            bypasses=plan.bypasses and not inode.never_bypass,
            joins=plan.joins or (plan.readers_join and not writes),
            follows=not (plan.direct or plan.direct_writers),
            stores=file.stores,
        )
        if writes and (one_shot or not backing_id or flags & os.O_APPEND):
            file.groups = groups_for(descriptor, header.uid, header.pid)
    except BaseException:
        os.close(descriptor)
        raise
    if backing_id and not one_shot and not flags & os.O_APPEND:
        # The kernel has the file now; a descriptor is opened again if one should be needed.
        os.close(descriptor)
    else:
        file.descriptor = descriptor
        tree.descriptors.held += 1
        if flags & os.O_DIRECT and not (backing_id and one_shot):
            # The caller's alignment is not ours.
            without_direct(descriptor)
    if backing_id and file.stores and not is_new:
        context.invalidate(inode.nodeid)  # what it believes of the file may be wrong from now on
    return _opened(context, file, plan, flags, backing_id)


def _opened(context: Context, file: OpenFile, plan: Plan, flags: int, backing_id: int) -> bytes:
    file.reply_flags = context.open_reply_flags(plan, flags, file.inode, backing_id)
    file.bypasses = bool(backing_id)
    return context.open_reply(context.files.add(file), file.reply_flags, backing_id)


def read(context: Context, _header: Header, body: bodies.Read) -> bytes:
    """READ."""
    file = context.files.get(body.handle)
    return os.pread(file.fileno(context.tree), body.size, body.offset)


def write(context: Context, header: Header, body: bodies.Write) -> bytes:
    """WRITE, as the caller: set-id bits, reserved blocks and quotas are then as they should be."""
    file = context.files.get(body.handle)
    descriptor = file.fileno(context.tree)
    if body.write_flags & uapi.WRITE_CACHE:
        # Written back from the page cache: nobody's in particular.
        return replies.write(os.pwrite(descriptor, body.data, body.offset))
    # An appending write goes to the end that the backing file has at that moment.
    flags = os.RWF_APPEND if body.flags & os.O_APPEND else 0
    if header.uid == 0 and header.gid == 0:
        return replies.write(os.pwritev(descriptor, (body.data,), body.offset, flags))
    with acting_as(header.uid, header.gid, file.groups):
        return replies.write(os.pwritev(descriptor, (body.data,), body.offset, flags))


def flush(context: Context, _header: Header, body: bodies.Flush) -> bytes:
    """FLUSH: only a filesystem that writes back at close(2) has anything to do, or to report."""
    if context.no_flush:
        fail(errno.ENOSYS)
    if not context.tree.flushes_at_close:
        return b""
    file = context.files.get(body.handle)
    if file.descriptor >= 0 or file.flags & os.O_ACCMODE != os.O_RDONLY:
        os.close(os.dup(file.fileno(context.tree)))
    return b""


def poll(_context: Context, _header: Header, body: bodies.Poll) -> bytes:
    """POLL: as poll(2) says of every regular file, it is always ready."""
    return replies.poll(body.events & _READY)


def release(context: Context, _header: Header, body: bodies.Release) -> bytes:
    """RELEASE."""
    context.close_file(body.handle)
    return b""


def fsync(context: Context, _header: Header, body: bodies.Fsync) -> bytes:
    """FSYNC."""
    synchronize(context.files.get(body.handle).any_fileno(context.tree), body)
    return b""


def synchronize(descriptor: int, body: bodies.Fsync) -> None:
    """fsync(2) or fdatasync(2), as the request asks for."""
    if body.fsync_flags & uapi.FSYNC_FDATASYNC:
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def lseek(context: Context, _header: Header, body: bodies.Lseek) -> bytes:
    """LSEEK: data and holes; the daemon's own position means nothing."""
    descriptor = context.files.get(body.handle).any_fileno(context.tree)
    return replies.lseek(os.lseek(descriptor, body.offset, body.whence))


def fallocate(context: Context, header: Header, body: bodies.Fallocate) -> bytes:
    """FALLOCATE, with all modes that the kernel's client and the backing filesystem take."""
    file = context.files.get(body.handle)
    context.tree.require_permitted(file.inode, appends=not body.mode & ~_KEEP_SIZE)
    descriptor = file.fileno(context.tree)
    with acting_as(header.uid, header.gid, groups_for(descriptor, header.uid, header.pid)):
        syscalls.fallocate(descriptor, body.mode, body.offset, body.length)
    return b""


def _copy(context: Context, header: Header, body: bodies.CopyFileRange) -> int:
    tree = context.tree
    source = context.files.get(body.handle_in).fileno(tree)
    changed = context.files.get(body.handle_out)
    tree.require_permitted(changed.inode)
    target = changed.fileno(tree)
    with acting_as(header.uid, header.gid, groups_for(target, header.uid, header.pid)):
        return syscalls.copy_file_range(
            source, body.offset_in, target, body.offset_out, min(body.length, _COPY_LIMIT)
        )


def copy_file_range(context: Context, header: Header, body: bodies.CopyFileRange) -> bytes:
    """COPY_FILE_RANGE."""
    return replies.copy_file_range(_copy(context, header, body))


def copy_file_range_64(context: Context, header: Header, body: bodies.CopyFileRange) -> bytes:
    """COPY_FILE_RANGE_64 (7.45)."""
    return replies.copy_file_range_64(_copy(context, header, body))
