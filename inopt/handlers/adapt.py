"""Requests to method calls and back: which method serves an opcode, with what, and what it answers.

One `Call` for each opcode; pure translation, no threads and no policy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pyfuse3

from inopt.handlers.answers import Answers
from inopt.handlers.directory import ReaddirToken
from inopt.handlers.serve.locks import OPERATIONS
from inopt.handlers.types import changes_of, context_of, lock_of
from inopt.ops import Op
from inopt.wire import bodies, uapi
from inopt.wire.attributes import decode_rdev
from inopt.wire.bodies import Header


class Call(msgspec.Struct, frozen=True):
    """How an opcode becomes a method call: its arguments from the request, its reply's payload."""

    method: str
    arguments: Callable[[Header, Any], tuple[Any, ...]]
    answer: Callable[[Answers, Header, Any, Any], bytes]


def _setattr_arguments(header: Header, body: bodies.Setattr) -> tuple[Any, ...]:
    attributes, fields = changes_of(body)
    handle = body.handle if body.valid & uapi.FATTR_FH else None
    return header.nodeid, attributes, fields, handle, context_of(header)


def _readdir_arguments(header: Header, body: bodies.Read) -> tuple[Any, ...]:
    plus = header.opcode == Op.READDIRPLUS
    return body.handle, body.offset, ReaddirToken(body.size, plus=plus)


def _device(rdev: int) -> int:
    return os.makedev(*decode_rdev(rdev))


def _setlk_arguments(header: Header, body: bodies.Lock) -> tuple[Any, ...]:
    return body.handle, lock_of(body), header.opcode == Op.SETLKW, context_of(header)


def _flock_arguments(header: Header, body: bodies.Lock) -> tuple[Any, ...]:
    waits = 0 if header.opcode == Op.SETLKW else fcntl.LOCK_NB
    return body.handle, OPERATIONS[body.type] | waits, context_of(header)


def _poll_arguments(header: Header, body: bodies.Poll) -> tuple[Any, ...]:
    number = body.kernel_handle if body.flags & uapi.POLL_SCHEDULE_NOTIFY else None
    return header.nodeid, body.handle, number, context_of(header)


CALLS: Final[dict[Op, Call]] = {
    Op.LOOKUP: Call("lookup", lambda h, b: (h.nodeid, b.name, context_of(h)), Answers.entry),
    Op.MKNOD: Call(
        "mknod",
        lambda h, b: (h.nodeid, b.name, b.mode, _device(b.rdev), context_of(h, b.umask)),
        Answers.entry,
    ),
    Op.MKDIR: Call(
        "mkdir",
        lambda h, b: (h.nodeid, b.name, stat.S_IFDIR | b.mode, context_of(h, b.umask)),
        Answers.entry,
    ),
    Op.SYMLINK: Call(
        "symlink", lambda h, b: (h.nodeid, b.name, b.target, context_of(h)), Answers.entry
    ),
    Op.LINK: Call(
        "link", lambda h, b: (b.old_nodeid, h.nodeid, b.name, context_of(h)), Answers.entry
    ),
    Op.UNLINK: Call("unlink", lambda h, b: (h.nodeid, b.name, context_of(h)), Answers.nothing),
    Op.RMDIR: Call("rmdir", lambda h, b: (h.nodeid, b.name, context_of(h)), Answers.nothing),
    **dict.fromkeys(
        (Op.RENAME, Op.RENAME2),
        Call(
            "rename",
            lambda h, b: (
                h.nodeid,
                b.name,
                b.new_directory,
                b.new_name,
                b.flags,
                context_of(h),
            ),
            Answers.nothing,
        ),
    ),
    Op.CREATE: Call(
        "create",
        lambda h, b: (h.nodeid, b.name, stat.S_IFREG | b.mode, b.flags, context_of(h, b.umask)),
        Answers.created,
    ),
    Op.TMPFILE: Call(
        "tmpfile",
        lambda h, b: (h.nodeid, b.mode, b.flags, context_of(h, b.umask)),
        Answers.created,
    ),
    Op.OPEN: Call("open", lambda h, b: (h.nodeid, b.flags, context_of(h)), Answers.opened),
    Op.READ: Call("read", lambda _, b: (b.handle, b.offset, b.size), Answers.data),
    Op.WRITE: Call("write", lambda _, b: (b.handle, b.offset, bytes(b.data)), Answers.written),
    Op.FLUSH: Call("flush", lambda _, b: (b.handle,), Answers.nothing),
    Op.RELEASE: Call("release", lambda _, b: (b.handle,), Answers.nothing),
    Op.FSYNC: Call(
        "fsync",
        lambda _, b: (b.handle, bool(b.fsync_flags & uapi.FSYNC_FDATASYNC)),
        Answers.nothing,
    ),
    Op.LSEEK: Call("lseek", lambda _, b: (b.handle, b.offset, b.whence), Answers.offset),
    Op.FALLOCATE: Call(
        "fallocate", lambda _, b: (b.handle, b.mode, b.offset, b.length), Answers.nothing
    ),
    **dict.fromkeys(
        (Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64),
        Call(
            "copy_file_range",
            lambda _, b: (
                b.handle_in,
                b.offset_in,
                b.handle_out,
                b.offset_out,
                b.length,
                b.flags,
            ),
            Answers.copied,
        ),
    ),
    Op.IOCTL: Call(
        "ioctl",
        lambda h, b: (h.nodeid, b.handle, b.command, b.flags, bytes(b.data), b.output_size),
        Answers.controlled,
    ),
    Op.GETATTR: Call("getattr", lambda h, _: (h.nodeid, context_of(h)), Answers.attributes),
    Op.STATX: Call("getattr", lambda h, _: (h.nodeid, context_of(h)), Answers.statx),
    Op.SETATTR: Call("setattr", _setattr_arguments, Answers.attributes),
    Op.READLINK: Call("readlink", lambda h, _: (h.nodeid, context_of(h)), Answers.data),
    Op.STATFS: Call("statfs", lambda h, _: (context_of(h),), Answers.statfs),
    Op.OPENDIR: Call("opendir", lambda h, _: (h.nodeid, context_of(h)), Answers.directory),
    Op.READDIR: Call("readdir", _readdir_arguments, Answers.listing),
    Op.READDIRPLUS: Call("readdir", _readdir_arguments, Answers.listing),
    Op.RELEASEDIR: Call("releasedir", lambda _, b: (b.handle,), Answers.nothing),
    Op.FSYNCDIR: Call(
        "fsyncdir",
        lambda _, b: (b.handle, bool(b.fsync_flags & uapi.FSYNC_FDATASYNC)),
        Answers.nothing,
    ),
    Op.GETXATTR: Call("getxattr", lambda h, b: (h.nodeid, b.name, context_of(h)), Answers.xattr),
    Op.LISTXATTR: Call("listxattr", lambda h, _: (h.nodeid, context_of(h)), Answers.xattrs),
    Op.SETXATTR: Call(
        "setxattr", lambda h, b: (h.nodeid, b.name, b.value, context_of(h)), Answers.nothing
    ),
    Op.REMOVEXATTR: Call(
        "removexattr", lambda h, b: (h.nodeid, b.name, context_of(h)), Answers.nothing
    ),
    Op.GETLK: Call("getlk", lambda h, b: (b.handle, lock_of(b), context_of(h)), Answers.lock),
    **dict.fromkeys((Op.SETLK, Op.SETLKW), Call("setlk", _setlk_arguments, Answers.nothing)),
    Op.POLL: Call("poll", _poll_arguments, Answers.polled),
}
"""By opcode. What is not here no handler serves."""

FLOCK: Final = Call("flock", _flock_arguments, Answers.nothing)
"""SETLK and SETLKW, where they are flock(2)."""

METHODS: Final = frozenset(call.method for call in CALLS.values()) | {FLOCK.method}
"""The methods that serve what a policy hands to them."""


def errno_of(error: Exception) -> int | None:
    """The errno that an exception of a handler stands for; None for a mistake in the handler."""
    if isinstance(error, pyfuse3.FUSEError):
        return int(error.errno)
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    return None
