"""The daemon route: every operation on the backing tree, without a handler in between.

Each function takes the mount's `Context`, the request's header and its body, and returns the
payload of the reply (None where the kernel expects no reply). An `OSError` is the answer, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from inopt.handlers.serve import attributes, data, directories, extended, locks, names
from inopt.handlers.serve.context import Context as Context
from inopt.ops import OPCODE_LIMIT, Op
from inopt.wire.bodies import Header

Serve: TypeAlias = Callable[[Header, Any], bytes | None]

_OPERATIONS: dict[Op, Callable[[Context, Header, Any], bytes | None]] = {
    Op.LOOKUP: names.lookup,
    Op.FORGET: names.forget,
    Op.BATCH_FORGET: names.batch_forget,
    Op.MKNOD: names.mknod,
    Op.MKDIR: names.mkdir,
    Op.SYMLINK: names.symlink,
    Op.CREATE: names.create,
    Op.TMPFILE: names.tmpfile,
    Op.LINK: names.link,
    Op.UNLINK: names.unlink,
    Op.RMDIR: names.rmdir,
    Op.RENAME: names.rename,
    Op.RENAME2: names.rename,
    Op.GETATTR: attributes.getattr_,
    Op.STATX: attributes.statx,
    Op.SETATTR: attributes.setattr_,
    Op.READLINK: attributes.readlink,
    Op.STATFS: attributes.statfs,
    Op.OPEN: data.open_file,
    Op.READ: data.read,
    Op.WRITE: data.write,
    Op.FLUSH: data.flush,
    Op.RELEASE: data.release,
    Op.FSYNC: data.fsync,
    Op.LSEEK: data.lseek,
    Op.FALLOCATE: data.fallocate,
    Op.COPY_FILE_RANGE: data.copy_file_range,
    Op.COPY_FILE_RANGE_64: data.copy_file_range_64,
    Op.OPENDIR: directories.opendir,
    Op.READDIR: directories.readdir,
    Op.READDIRPLUS: directories.readdirplus,
    Op.RELEASEDIR: directories.releasedir,
    Op.FSYNCDIR: directories.fsyncdir,
    Op.GETXATTR: extended.getxattr,
    Op.LISTXATTR: extended.listxattr,
    Op.SETXATTR: extended.setxattr,
    Op.REMOVEXATTR: extended.removexattr,
    Op.IOCTL: extended.ioctl,
    Op.GETLK: locks.getlk,
    Op.SETLK: locks.setlk,
    Op.SETLKW: locks.setlk,
    Op.POLL: data.poll,
}


# The opcodes whose replies count a lookup, or open something.
LOOKS_UP: Final = frozenset(
    {Op.LOOKUP, Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.LINK, Op.CREATE, Op.TMPFILE}
)
GIVES: Final = LOOKS_UP | {Op.OPEN, Op.OPENDIR}


def operations(context: Context) -> list[Serve | None]:
    """The functions by opcode; None for those that the kernel answers by itself on ``ENOSYS``."""
    table: list[Serve | None] = [None] * OPCODE_LIMIT
    for opcode, function in _OPERATIONS.items():
        table[opcode] = partial(function, context)
    return table


def undo(context: Context, opcode: int, payload: bytes, *, lent: bool = False) -> None:
    """Take back what a reply gave that the kernel did not take (its request was interrupted).

    *lent*: it has not been told of it, it was a handler's.
    """
    if opcode in LOOKS_UP:
        forget = context.tree.give_back if lent else context.tree.forget
        forget(int.from_bytes(payload[:8], "little"), 1)  # 0 is nobody's
    if opcode in (Op.CREATE, Op.TMPFILE):
        context.close_file(int.from_bytes(payload[-16:-8], "little"))
    elif opcode == Op.OPEN:
        context.close_file(int.from_bytes(payload[:8], "little"))
    elif opcode == Op.OPENDIR:
        context.close_directory(int.from_bytes(payload[:8], "little"))
