"""Which operations there are for each type of inode, and what each is asked for besides itself."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Final

from inopt.ops import Op
from inopt.policy.words import KERNELS_UNLESS_HANDLED, SETATTR_PARTS, Part

_ATTRIBUTES: Final = (Op.GETATTR, Op.STATX)
_CHANGES: Final = (Part.CHMOD, Part.CHOWN, Part.UTIMENS)
_XATTRS: Final = (Op.GETXATTR, Op.LISTXATTR, Op.SETXATTR, Op.REMOVEXATTR)
_COPIES: Final = (Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64)

_FILE: Final = (
    *_ATTRIBUTES, Op.OPEN, Op.READ, Op.WRITE, Part.OVERWRITE, Part.MMAP, Op.LSEEK, Op.FALLOCATE,
    *_COPIES, Op.FSYNC, Op.FLUSH, Op.RELEASE, Op.IOCTL, Part.CHATTR, Part.TRUNCATE, *_CHANGES,
    *_XATTRS, Part.COPY_UP, Op.STATFS, Op.GETLK, Op.SETLK, Op.SETLKW, Part.FLOCK, Op.POLL,
)  # fmt: skip
_DIRECTORY: Final = (
    *_ATTRIBUTES, Op.OPENDIR, Op.READDIR, Op.READDIRPLUS, Op.FSYNCDIR, Op.RELEASEDIR, Op.IOCTL,
    Part.CHATTR, *_CHANGES, *_XATTRS, Part.COPY_UP, Op.STATFS,
)  # fmt: skip
_SYMLINK: Final = (
    *_ATTRIBUTES, Op.READLINK, Part.CHOWN, Part.UTIMENS, *_XATTRS, Part.COPY_UP, Op.STATFS,
)  # fmt: skip
_SPECIAL: Final = (*_ATTRIBUTES, *_CHANGES, *_XATTRS, Part.COPY_UP, Op.STATFS)

NEVER_ASKED: Final = frozenset[int]({Op.FLUSH, Op.RELEASE, Op.RELEASEDIR} | KERNELS_UNLESS_HANDLED)
"""They end what was begun, or the kernel does them: told of only where a handler serves them."""

UNLESS_TOUCHED: Final = NEVER_ASKED | {Part.COPY_UP}
"""Not told of where no rule is about them."""

AT_OPEN: Final = NEVER_ASKED | {Op.READ, Op.WRITE}
"""What is decided when the file is opened."""

# What else must be allowed, in the order in which it is asked for; the operation itself is among
# them.
_ASKED: Final[Mapping[int, tuple[int, ...]]] = {
    Op.READ: (Op.OPEN, Op.READ),
    Op.WRITE: (Op.OPEN, Op.WRITE),
    Part.OVERWRITE: (Op.OPEN, Op.WRITE, Part.OVERWRITE),
    Part.MMAP: (Op.OPEN, Op.READ, Part.MMAP),
    Op.LSEEK: (Op.OPEN, Op.LSEEK),
    Op.FALLOCATE: (Op.OPEN, Op.WRITE, Op.FALLOCATE),
    Op.COPY_FILE_RANGE: (Op.OPEN, Op.COPY_FILE_RANGE),
    Op.COPY_FILE_RANGE_64: (Op.OPEN, Op.COPY_FILE_RANGE_64),
    Op.FSYNC: (Op.OPEN, Op.FSYNC),
    **dict.fromkeys((Op.FLUSH, Op.RELEASE, *KERNELS_UNLESS_HANDLED), (Op.OPEN,)),
    Op.READDIR: (Op.OPENDIR, Op.READDIR),
    Op.READDIRPLUS: (Op.OPENDIR, Op.READDIRPLUS),
    Op.FSYNCDIR: (Op.OPENDIR, Op.FSYNCDIR),
    Op.RELEASEDIR: (Op.OPENDIR,),
    # Once it is made, the kernel checks permissions (may_open()).
    Op.CREATE: (Op.CREATE, Op.OPEN, Op.GETATTR),
    Op.TMPFILE: (Op.TMPFILE, Op.CREATE, Op.OPEN, Op.WRITE, Op.GETATTR),
}

# Before these the kernel checks permissions, and where attributes are denied, or depend on
# something, it has none in its cache: so it asks for them each time (fuse_perm_getattr()).
_CHECKED: Final = frozenset(
    {Op.OPEN, Op.OPENDIR, Part.TRUNCATE, Op.GETXATTR, Op.SETXATTR, Op.REMOVEXATTR}
)

MAKING: Final = frozenset({Op.CREATE, Op.TMPFILE, Op.MKNOD, Op.MKDIR, Op.SYMLINK})
"""What is judged by an inode that is not there yet."""


def on_inode(format_: int) -> tuple[int, ...]:
    """The slots of an inode of this type, however it is reached."""
    return {stat.S_IFREG: _FILE, stat.S_IFDIR: _DIRECTORY, stat.S_IFLNK: _SYMLINK}.get(
        format_, _SPECIAL
    )


def on_name(format_: int) -> tuple[int, ...]:
    """The slots of the name of such an inode."""
    makes: tuple[int, ...] = {
        stat.S_IFREG: (Op.CREATE, Op.MKNOD), stat.S_IFDIR: (Op.MKDIR,), stat.S_IFLNK: (Op.SYMLINK,)
    }.get(format_, (Op.MKNOD,))  # fmt: skip
    removes = (Op.RMDIR,) if format_ == stat.S_IFDIR else (Op.LINK, Op.UNLINK)
    return (Op.LOOKUP, *makes, *removes, Op.RENAME, Op.RENAME2)


def asked_for(slot: int, format_: int) -> tuple[int, ...]:
    """The slots that decide whether *slot* may be done, the first asked for first."""
    if slot in (Op.IOCTL, Part.CHATTR):
        opening = Op.OPENDIR if format_ == stat.S_IFDIR else Op.OPEN
        asked: tuple[int, ...] = (opening, Op.IOCTL)
        if slot == Part.CHATTR:
            # The kernel opens the file again to do it, for reading (fuse_priv_ioctl_prepare()).
            reading = () if format_ == stat.S_IFDIR else (Op.READ,)
            asked = (opening, *reading, Op.IOCTL, Part.CHATTR)
    elif slot == Op.MKNOD and format_ == stat.S_IFREG:
        asked = (Op.MKNOD, Op.CREATE)
    else:
        asked = _ASKED.get(slot, (slot,))
    return (Op.GETATTR, *asked) if asked[0] in _CHECKED else asked


def opcode_of(slot: int) -> int:
    """By what *slot* reaches a handler: an opcode, or flock(2); a copy-up reaches none."""
    if slot == Part.CHATTR:
        return Op.IOCTL
    if slot in (Part.OVERWRITE, Part.MMAP):
        return Op.WRITE if slot == Part.OVERWRITE else Op.READ
    return Op.SETATTR if slot in SETATTR_PARTS else slot
