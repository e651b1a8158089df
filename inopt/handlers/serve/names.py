"""LOOKUP and FORGET, and the opcodes that make, move and remove names."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from inopt import syscalls
from inopt.backing.caller import create_as
from inopt.backing.files import may_store
from inopt.handlers.failures import fail
from inopt.handlers.placement import NAMELESS
from inopt.handlers.serve.context import Context
from inopt.handlers.serve.data import backing_flags, finish_open
from inopt.handlers.serve.looking import note
from inopt.wire import bodies, replies
from inopt.wire.attributes import decode_rdev
from inopt.wire.bodies import Header

Made = TypeVar("Made")

_thread: Final = threading.local()


def lookup(context: Context, header: Header, body: bodies.Lookup) -> bytes:
    """LOOKUP: a name in a directory becomes an inode."""
    tree = context.tree
    try:
        if body.name == b"." and header.nodeid not in tree.table:
            inode, attributes = tree.revive(header.nodeid)
            parent = inode
        else:
            parent = tree.table.get(header.nodeid)
            inode, attributes = tree.resolve(parent, body.name)
        reply = context.found(parent, body.name, header, inode, attributes)
    except FileNotFoundError:
        if context.negative is None:
            raise
        return context.negative
    note(parent)
    context.readers.asked(header.pid, attributes)
    return reply


def forget(context: Context, header: Header, body: bodies.Forget) -> None:
    """FORGET: the kernel drops lookups of one inode."""
    context.tree.forget(header.nodeid, body.count)


def batch_forget(context: Context, _header: Header, body: bodies.BatchForget) -> None:
    """BATCH_FORGET: the kernel drops lookups of many inodes."""
    drop = context.tree.forget
    for nodeid, count in body.items:
        drop(nodeid, count)


def _make(
    context: Context,
    header: Header,
    name: bytes,
    umask: int,
    extensions: bodies.Extensions,
    make: Callable[[int], None],
) -> bytes:
    """Run *make*, which creates *name* under a directory descriptor, as the caller."""
    tree = context.tree
    parent = tree.table.get(header.nodeid)

    def create(directory: int) -> None:
        create_as(
            header.uid,
            header.gid,
            extensions.groups,
            header.pid,
            lambda: _with_umask(umask, lambda: make(directory)),
        )

    context.names.make(parent, name, create)
    return context.made(parent, name, *tree.resolve(parent, name))


def _with_umask(umask: int, make: Callable[[], Made]) -> Made:
    # The umask becomes this thread's own, whatever thread a handler calls from; a default ACL
    # replaces it (umask(2)).
    if not getattr(_thread, "has_umask", False):
        syscalls.unshare(syscalls.CLONE_FS)
        _thread.has_umask = True
    earlier = os.umask(umask)
    try:
        return make()
    finally:
        os.umask(earlier)


def mknod(context: Context, header: Header, body: bodies.Mknod) -> bytes:
    """MKNOD: a file, fifo, socket or device."""
    device = os.makedev(*decode_rdev(body.rdev))
    context.names.require_node(body.mode, device)
    return _make(
        context,
        header,
        body.name,
        body.umask,
        body.extensions,
        lambda directory: os.mknod(body.name, body.mode, device, dir_fd=directory),
    )


def mkdir(context: Context, header: Header, body: bodies.Mkdir) -> bytes:
    """MKDIR."""
    return _make(
        context,
        header,
        body.name,
        body.umask,
        body.extensions,
        lambda directory: os.mkdir(body.name, body.mode, dir_fd=directory),
    )


def symlink(context: Context, header: Header, body: bodies.Symlink) -> bytes:
    """SYMLINK."""
    return _make(
        context,
        header,
        body.name,
        0,
        body.extensions,
        lambda directory: os.symlink(body.target, body.name, dir_fd=directory),
    )


def create(context: Context, header: Header, body: bodies.Create) -> bytes:
    """CREATE: make a regular file and open it.

    The kernel has looked the name up and not found it. If it is there by now, ``ESTALE`` makes
    the kernel look again, check permissions and open it as any other file.
    """
    flags = backing_flags(context, body.flags) | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return _create(context, header, body, body.name, body.name, flags)
    except FileExistsError:
        if body.flags & os.O_EXCL:
            raise
        fail(errno.ESTALE)


def tmpfile(context: Context, header: Header, body: bodies.Create) -> bytes:
    """TMPFILE: make a regular file without a name and open it."""
    flags = backing_flags(context, body.flags) | os.O_TMPFILE | body.flags & os.O_EXCL
    return _create(context, header, body, b".", NAMELESS, flags)


def _create(
    context: Context,
    header: Header,
    body: bodies.Create,
    name: bytes,
    judged_as: bytes,
    flags: int,
) -> bytes:
    tree = context.tree
    parent = tree.table.get(header.nodeid)
    watch = tree.watch
    if watch is not None:
        watch.approach(parent)
    mode = body.mode & 0o7777

    def create_in(directory: int) -> int:
        return create_as(
            header.uid,
            header.gid,
            body.extensions.groups,
            header.pid,
            lambda: _with_umask(body.umask, lambda: os.open(name, flags, mode, dir_fd=directory)),
        )

    if judged_as is NAMELESS:
        descriptor = context.names.make_nameless(parent, create_in)
    else:
        descriptor = context.names.make(parent, name, create_in)
    try:
        inode, attributes = tree.adopt_open(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        entry = context.made(parent, judged_as, inode, attributes, stores=may_store(flags))
    except BaseException:
        os.close(descriptor)
        tree.forget(inode.nodeid, 1)
        raise
    try:
        opened = finish_open(context, header, inode, body.flags, descriptor, is_new=True)
        return replies.create(entry, opened)
    except BaseException:
        tree.forget(inode.nodeid, 1)
        raise


def link(context: Context, header: Header, body: bodies.Link) -> bytes:
    """LINK: another name for an inode."""
    tree = context.tree
    parent = tree.table.get(header.nodeid)
    inode = tree.table.get(body.old_nodeid)
    context.names.link(inode, parent, body.name)
    return context.made(parent, body.name, *tree.resolve(parent, body.name))


def unlink(context: Context, header: Header, body: bodies.Unlink) -> bytes:
    """UNLINK."""
    tree = context.tree
    context.names.remove(tree.table.get(header.nodeid), body.name, is_directory=False)
    return b""


def rmdir(context: Context, header: Header, body: bodies.Rmdir) -> bytes:
    """RMDIR."""
    tree = context.tree
    context.names.remove(tree.table.get(header.nodeid), body.name, is_directory=True)
    return b""


def rename(context: Context, header: Header, body: bodies.Rename) -> bytes:
    """RENAME and RENAME2, with all flags that the backing filesystem takes."""
    table = context.tree.table
    old_parent, new_parent = table.get(header.nodeid), table.get(body.new_directory)

    def run(move: Callable[[], None]) -> None:
        if body.flags & syscalls.RENAME_WHITEOUT:
            # It makes an inode: the whiteout that is left behind is the caller's.
            create_as(header.uid, header.gid, (), header.pid, move)
        else:
            move()

    context.names.move(old_parent, body.name, new_parent, body.new_name, body.flags, run)
    return b""
