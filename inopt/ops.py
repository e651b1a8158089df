"""The opcodes of the FUSE protocol, their groups, and the bitset of opcodes called ops_mask.

Nothing else in inopt knows opcode numbers. Source: ``enum fuse_opcode`` of linux/fuse.h up to
protocol 7.45; the bit of an opcode in an ops_mask is ``FUSE_PASSTHROUGH_OP`` of the
inode-operations passthrough postings (2026).
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["GROUPS", "NO_REPLY", "OPCODE_LIMIT", "Op", "OpsMask", "op_name"]

OPCODE_LIMIT: Final = 64
"""Size of a table indexed by opcode; every known opcode is below it."""


class Op(IntEnum):
    """One FUSE request type, by its kernel name without the ``FUSE_`` prefix."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


NO_REPLY: Final = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY})
"""Opcodes that are not answered (INTERRUPT may be, to ask for it again; as a rule it is not)."""

GROUPS: Final[Mapping[str, frozenset[Op]]] = MappingProxyType(
    {
        "read": frozenset({Op.READ, Op.LSEEK, Op.READLINK, Op.READDIR, Op.READDIRPLUS}),
        "write": frozenset({Op.WRITE, Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64}),
        "metadata": frozenset({Op.GETATTR, Op.STATX, Op.SETATTR, Op.ACCESS, Op.STATFS}),
        "namespace": frozenset(
            {
                Op.CREATE,
                Op.TMPFILE,
                Op.MKNOD,
                Op.MKDIR,
                Op.SYMLINK,
                Op.LINK,
                Op.UNLINK,
                Op.RMDIR,
                Op.RENAME,
                Op.RENAME2,
            }
        ),
        "xattr": frozenset({Op.SETXATTR, Op.GETXATTR, Op.LISTXATTR, Op.REMOVEXATTR}),
        "locks": frozenset({Op.GETLK, Op.SETLK, Op.SETLKW}),
        "all": frozenset(Op),
    }
)
"""Named sets of opcodes: reading and writing content, attributes, changing names, xattrs, locks,
all."""

_NAMES: Final[Mapping[int, str]] = MappingProxyType({int(op): op.name for op in Op})


def op_name(opcode: int) -> str:
    """Name an opcode for people, known or not (``"LOOKUP"``, ``"opcode 77"``)."""
    return _NAMES.get(opcode) or f"opcode {opcode}"


class OpsMask(msgspec.Struct, frozen=True, gc=False):
    """An immutable set of opcodes in 64 bits, as a backing file is registered with.

    Parameters
    ----------
    bits:
        The set; the bit of an opcode is ``1 << (opcode - 1)``. Bits that no known opcode has are
        kept (a newer kernel may know them) and shown by number.

    Raises
    ------
    ValueError
        When ``bits`` does not fit 64 bits.

    """

    bits: int = 0

    def __post_init__(self) -> None:
        if self.bits < 0 or self.bits >> 64:
            raise ValueError(f"an ops_mask has 64 bits, {self.bits:#x} does not fit")

    @classmethod
    def of(cls, *ops: int) -> OpsMask:
        """Make the set of these opcodes; ``ValueError`` for one outside 1..64."""
        bits = 0
        for op in ops:
            if not 1 <= op <= 64:
                raise ValueError(f"opcode {op} has no bit in an ops_mask (1..64 have)")
            bits |= 1 << (op - 1)
        return cls(bits)

    def __int__(self) -> int:
        return self.bits

    __index__ = __int__

    def __bool__(self) -> bool:
        return self.bits != 0

    def __contains__(self, op: int) -> bool:
        return 1 <= op <= 64 and self.bits >> (op - 1) & 1 == 1

    def __iter__(self) -> Iterator[Op]:
        """Yield the known opcodes of the set in numeric order; bits without a name are skipped."""
        return (op for op in Op if self.bits >> (op - 1) & 1)

    def __or__(self, other: OpsMask) -> OpsMask:
        return OpsMask(self.bits | other.bits)

    def __and__(self, other: OpsMask) -> OpsMask:
        return OpsMask(self.bits & other.bits)

    def __sub__(self, other: OpsMask) -> OpsMask:
        return OpsMask(self.bits & ~other.bits)

    def __repr__(self) -> str:
        names = [
            _NAMES.get(number, str(number))
            for number in range(1, 65)
            if self.bits >> (number - 1) & 1
        ]
        return f"OpsMask({'|'.join(names) or '0'})"
