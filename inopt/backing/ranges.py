"""Record locks of open files as system calls: F_OFD_SETLK and F_OFD_GETLK of fcntl(2)."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final, NamedTuple

LAST_BYTE: Final = (1 << 63) - 1
"""The end of a lock that has none: however long the file becomes (``OFFSET_MAX``)."""

_F_OFD_GETLK: Final = 36
_F_OFD_SETLK: Final = 37
# struct flock: type, whence, start, length (0: no end), pid (0 is asked for).
_FLOCK: Final = struct.Struct("hhqqi4x")
_KINDS: Final = {"READ": fcntl.F_RDLCK, "WRITE": fcntl.F_WRLCK}


class Range(NamedTuple):
    """Bytes from ``start`` to ``end``, the last one; ``kind``: ``F_RDLCK``, ``F_WRLCK``, ….

    ``F_UNLCK`` is no lock, but what is given back.
    """

    kind: int
    start: int
    end: int

    def excludes(self, other: Range) -> bool:
        """Whether two owners cannot have both."""
        return (
            fcntl.F_WRLCK in (self.kind, other.kind)
            and self.start <= other.end
            and other.start <= self.end
        )


class Conflict(NamedTuple):
    """A lock that is in the way; ``pid`` is 0 if that cannot be told."""

    range: Range
    pid: int


def take(descriptor: int, wanted: Range) -> None:
    """Take a lock for an open file description, change it, or give it back.

    Raises `OSError`: ``EAGAIN`` if another one has it, ``EBADF`` for the wrong access mode,
    ``ENOLCK``.
    """
    fcntl.fcntl(descriptor, _F_OFD_SETLK, _packed(wanted))


def in_the_way(descriptor: int, wanted: Range) -> Conflict | None:
    """What keeps an open file description from *wanted*.

    ``pid`` is -1 if an open file has it, and not a process.
    """
    found = _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, _packed(wanted)))
    kind, _, start, length, pid = found
    if kind == fcntl.F_UNLCK:
        return None
    return Conflict(Range(kind, start, start + length - 1 if length else LAST_BYTE), pid)


def _packed(wanted: Range) -> bytes:
    length = 0 if wanted.end == LAST_BYTE else wanted.end - wanted.start + 1
    return _FLOCK.pack(wanted.kind, os.SEEK_SET, wanted.start, length, 0)


def held_by(descriptor: int) -> list[Range]:
    """The record locks that a description has (proc(5), fdinfo)."""
    found = []
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        for line in lines:
            words = line.split()
            if words[0] == "lock:" and words[2] == "OFDLCK":
                end = LAST_BYTE if words[8] == "EOF" else int(words[8])
                found.append(Range(_KINDS[words[4]], int(words[7]), end))
    return found
