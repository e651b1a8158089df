"""The words that policies use for operations, and the slots of a plan that each word covers.

A slot is what one decision is made for: an opcode, or a part of one (SETATTR changes mode, owner,
size and times; a WRITE appends or overwrites; flock(2) comes as SETLK). A word covers every slot by
which the operation can be reached, so that what it denies cannot be had by another opcode.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from inopt.ops import GROUPS, OPCODE_LIMIT, Op

SLOT_LIMIT: Final = OPCODE_LIMIT + 9
"""Size of a table indexed by slot."""


class Part(IntEnum):
    """The slots that are no opcodes: parts of SETATTR, IOCTL, WRITE, SETLK, mmap(2), copy-up."""

    CHMOD = OPCODE_LIMIT
    CHOWN = OPCODE_LIMIT + 1
    TRUNCATE = OPCODE_LIMIT + 2
    UTIMENS = OPCODE_LIMIT + 3
    CHATTR = OPCODE_LIMIT + 4  # inode flags and project ids, by ioctl(2)
    OVERWRITE = OPCODE_LIMIT + 5  # writes of bytes that are there already
    MMAP = OPCODE_LIMIT + 6  # shared mappings
    FLOCK = OPCODE_LIMIT + 7  # locks of whole files, by flock(2)
    COPY_UP = OPCODE_LIMIT + 8  # of what a lower layer has, before it is changed


SETATTR_PARTS: Final = frozenset({Part.CHMOD, Part.CHOWN, Part.TRUNCATE, Part.UTIMENS, Part.CHATTR})

# What the kernel keeps to itself, or what ends something that was begun: no rule can change it.
_KERNELS_OWN: Final = "the kernel does it by itself, the daemon is never asked"
_UNLESS_HANDLED: Final = (
    "the kernel does it by itself unless a handler serves it, and a handler can refuse it"
)
_ENDING: Final = "it ends what was begun earlier, and cannot be refused"
_SESSION: Final = "it is about the session, not about a file"

NEVER_DENIED: Final[Mapping[int, str]] = MappingProxyType(
    {
        Op.FORGET: _ENDING,
        Op.BATCH_FORGET: _ENDING,
        Op.RELEASE: _ENDING,
        Op.RELEASEDIR: _ENDING,
        Op.FLUSH: _ENDING,
        Op.INIT: _SESSION,
        Op.DESTROY: _SESSION,
        Op.INTERRUPT: _SESSION,
        Op.NOTIFY_REPLY: _SESSION,
        Op.SETUPMAPPING: _SESSION,
        Op.REMOVEMAPPING: _SESSION,
        Op.SYNCFS: _SESSION,
        Op.ACCESS: _KERNELS_OWN,
        Op.GETLK: _UNLESS_HANDLED,
        Op.SETLK: _UNLESS_HANDLED,
        Op.SETLKW: _UNLESS_HANDLED,
        Op.BMAP: _KERNELS_OWN,
        Op.POLL: _UNLESS_HANDLED,
        Part.FLOCK: _UNLESS_HANDLED,
    }
)
"""Slots that no rule can deny, and why."""

_LOCKS: Final = frozenset[int]({Op.GETLK, Op.SETLK, Op.SETLKW, Part.FLOCK})

KERNELS_UNLESS_HANDLED: Final = _LOCKS | {Op.POLL}
"""Slots of which the daemon only hears if the handler class overrides their methods."""

_ONLY_HANDLED: Final = KERNELS_UNLESS_HANDLED | {Op.RELEASE, Op.RELEASEDIR, Op.FLUSH}

NEVER_HANDLED: Final[Mapping[int, str]] = MappingProxyType(
    {slot: reason for slot, reason in NEVER_DENIED.items() if slot not in _ONLY_HANDLED}
    | dict.fromkeys(
        (Op.FORGET, Op.BATCH_FORGET), "a class that overrides 'forget' is told of all, by no rule"
    )
    | {
        Part.MMAP: "a mapping is made of reads and writes: handle those",
        Part.OVERWRITE: "it is a kind of write: handle 'write'",
        Part.COPY_UP: "it is done before other operations: handle those",
    }
)
"""Slots that no handler can serve, and why."""

_SETATTR: Final = frozenset[int](SETATTR_PARTS)

# Where a word covers more than the opcode of its name.
_WIDER: Final[dict[str, frozenset[int]]] = {
    "getattr": frozenset({Op.GETATTR, Op.STATX}),
    "setattr": _SETATTR,
    "readdir": frozenset({Op.READDIR, Op.READDIRPLUS}),
    "rename": frozenset({Op.RENAME, Op.RENAME2}),
    "create": frozenset({Op.CREATE, Op.TMPFILE}),
    "copy_file_range": frozenset({Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64}),
    "setlk": frozenset({Op.SETLK, Op.SETLKW}),
}
_GROUPS: Final[dict[str, frozenset[int]]] = {
    "read": frozenset(GROUPS["read"]),
    "write": frozenset[int](GROUPS["write"]) | {Part.OVERWRITE, Part.TRUNCATE},
    "metadata": frozenset[int](GROUPS["metadata"] - {Op.SETATTR}) | _SETATTR,
    "namespace": frozenset(GROUPS["namespace"]),
    "xattr": frozenset(GROUPS["xattr"]),
    "locks": _LOCKS,
    "all": frozenset[int](GROUPS["all"] - {Op.SETATTR}) | frozenset(Part),
}

WORDS: Final[Mapping[str, frozenset[int]]] = MappingProxyType(
    {op.name.lower(): frozenset[int]({op}) for op in Op}
    | {part.name.lower(): frozenset[int]({part}) for part in Part}
    | _WIDER
    | _GROUPS
)
"""Every word, with the slots it covers. ``read`` and ``write`` are groups."""

GROUP_WORDS: Final = frozenset(_GROUPS)
"""Words for which slots that cannot be decided are skipped instead of refused."""

_SLOT_NAMES: Final = {int(op): op.name.lower() for op in Op} | {
    int(part): part.name.lower() for part in Part
}


def slot_name(slot: int) -> str:
    """The name of a slot, as policies write it."""
    return _SLOT_NAMES[slot]


SLOTS: Final[tuple[int, ...]] = tuple(sorted(WORDS["all"] - set(NEVER_DENIED)))
"""All slots that rules decide, in numeric order."""
