"""Pack directory entries into the page that answers READDIR or READDIRPLUS.

Source: ``fuse_dirent``, ``fuse_direntplus`` and ``FUSE_DIRENT_ALIGN`` in linux/fuse.h. Records are
padded to 8 bytes with zeros (the ``s`` format does that), so that nothing of an earlier page leaks.
"""
# An entry's ``type`` is called so by the kernel and by readdir(3).
# ruff: noqa: A002

from __future__ import annotations

from struct import Struct
from typing import Final

from inopt.wire import layouts

DOTS: Final = (b".", b"..")
"""The names by which a directory lists itself and its parent; neither is a lookup."""

_DIRENT_SIZE: Final = layouts.DIRENT.size
_PLUS_SIZE: Final = layouts.ENTRY_OUT.size + _DIRENT_SIZE
_PREPARED: Final = 33


def _plain_layout(words: int) -> Struct:
    return Struct(f"<QQII{words * 8}s")


def _plus_layout(words: int) -> Struct:
    return Struct(f"<{layouts.ENTRY_OUT.size}sQQII{words * 8}s")


# By the 8-byte words that a name takes; names up to NAME_MAX are prepared.
_PLAIN: Final = tuple(_plain_layout(words).pack_into for words in range(_PREPARED))
_PLUS: Final = tuple(_plus_layout(words).pack_into for words in range(_PREPARED))


class DirectoryPage:
    """A reusable buffer of directory entries.

    Parameters
    ----------
    capacity:
        Bytes to allocate, the most that a page may ever hold.

    """

    __slots__ = ("_buffer", "_limit", "_used", "_view")

    def __init__(self, capacity: int) -> None:
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._limit = capacity
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def reset(self, limit: int) -> None:
        """Empty the page and let it hold ``limit`` bytes (the request's ``size``) at most."""
        self._limit = min(limit, len(self._buffer))
        self._used = 0

    def fits(self, name_length: int, plus: bool) -> bool:
        """Tell whether an entry with a name of so many bytes still fits."""
        fixed = _PLUS_SIZE if plus else _DIRENT_SIZE
        return self._used + fixed + ((name_length + 7) & ~7) <= self._limit

    def add(self, inode: int, next_offset: int, type: int, name: bytes) -> bool:
        """Append a READDIR entry; return False, and change nothing, when it does not fit.

        ``next_offset`` is where a later READDIR goes on after this entry, ``type`` is ``DT_*``
        (``mode >> 12``). The kernel refuses the page for an empty name or one with a slash.
        """
        length = len(name)
        words = (length + 7) >> 3
        start = self._used
        end = start + _DIRENT_SIZE + words * 8
        if end > self._limit:
            return False
        pack_into = _PLAIN[words] if words < _PREPARED else _plain_layout(words).pack_into
        pack_into(self._buffer, start, inode, next_offset, length, type, name)
        self._used = end
        return True

    def add_plus(
        self, entry_payload: bytes, inode: int, next_offset: int, type: int, name: bytes
    ) -> bool:
        """Append a READDIRPLUS entry; ``entry_payload`` is a ``replies.entry`` of 128 bytes.

        A payload with nodeid 0 gives the kernel the name alone, with no lookup to forget.
        """
        length = len(name)
        words = (length + 7) >> 3
        start = self._used
        end = start + _PLUS_SIZE + words * 8
        if end > self._limit:
            return False
        pack_into = _PLUS[words] if words < _PREPARED else _plus_layout(words).pack_into
        pack_into(self._buffer, start, entry_payload, inode, next_offset, length, type, name)
        self._used = end
        return True

    def view(self) -> memoryview:
        """View what was packed; it changes with the next ``reset`` and ``add``."""
        return self._view[: self._used]
