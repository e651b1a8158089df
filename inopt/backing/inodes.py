"""The one-to-one table: nodeid ↔ backing inode, with exact lookup counts.

A nodeid equals the backing ``st_ino``. Numbers that cannot (another mount or device below the
root, an inode number 1 that is not the root's, one with the top bit set) come from a range of
their own, with the top bit set. An inode number that the backing filesystem has reused is told
apart by its file handle and gets another generation, as the kernel expects.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from threading import Lock
from typing import Final

from inopt.backing.filesystems import Filesystem

ROOT_NODEID: Final = 1
FOREIGN: Final = 1 << 63


class Inode:
    """One backing inode that the kernel knows, or that an open file keeps.

    ``number`` is the ``st_ino`` to report. ``descriptor`` is -1 unless the inode is pinned: it
    has no name any more, or its filesystem has no file handles. ``io`` is the state of its opens,
    which belongs to `inopt.backing.attach`.
    """

    __slots__ = (
        "descriptor",
        "filesystem",
        "generation",
        "handle",
        "io",
        "lookups",
        "nodeid",
        "number",
    )

    def __init__(
        self, nodeid: int, number: int, filesystem: Filesystem, handle: bytes, descriptor: int = -1
    ) -> None:
        self.nodeid = nodeid
        self.number = number
        self.filesystem = filesystem
        self.handle = handle
        self.generation = generation_of(handle)
        self.lookups = 0
        self.descriptor = descriptor
        self.io: object | None = None

    def __repr__(self) -> str:
        return f"<Inode {self.nodeid} generation {self.generation} lookups {self.lookups}>"


_TWO_WORDS: Final = struct.Struct("<II")
_SHORT_HANDLES: Final = 16  # header (length, type) and two words


def generation_of(handle: bytes) -> int:
    """A 32-bit generation for the inode that *handle* names; 0 where there is no handle.

    The inode's own generation where the layout is the common one (``FILEID_INO32_GEN`` of
    linux/exportfs.h: ext4, and XFS with 32-bit inode numbers), else a checksum of the handle,
    which every filesystem makes unique over time.
    """
    if not handle:
        return 0
    if len(handle) == _SHORT_HANDLES and handle[4] == 1:
        return int(_TWO_WORDS.unpack_from(handle, 8)[1])
    return zlib.crc32(handle)


def inode_number_of(handle: bytes) -> int:
    """The inode number that *handle* tells, or -1 if its layout is not known."""
    if len(handle) == _SHORT_HANDLES and handle[4] == 1:
        return int(_TWO_WORDS.unpack_from(handle, 8)[0])
    return -1


class InodeTable:
    """All inodes that the kernel has looked up and not forgotten yet. Thread-safe.

    A lookup count rises by one with each entry reply and falls by what FORGET says; at zero the
    inode is dropped. The root is never forgotten.
    """

    __slots__ = ("_foreign", "_foreign_keys", "_inodes", "_lock", "_next_foreign", "root")

    def __init__(self, root: Inode) -> None:
        self.root = root
        self._lock = Lock()
        self._inodes: dict[int, Inode] = {ROOT_NODEID: root}
        self._foreign: dict[tuple[int, int, int, int], int] = {}
        self._foreign_keys: dict[int, tuple[int, int, int, int]] = {}
        self._next_foreign = FOREIGN

    def __len__(self) -> int:
        return len(self._inodes)

    def get(self, nodeid: int) -> Inode:
        """The inode of *nodeid*. Raises `OSError` ``ESTALE`` for one that is not known."""
        try:
            return self._inodes[nodeid]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def find(self, key: tuple[int, int, int, int]) -> Inode | None:
        """The inode of a `key_of`, if it is known; its lookup count stays."""
        nodeid = self._foreign.get(key) if self._is_foreign(key) else key[3]
        return None if nodeid is None else self._inodes.get(nodeid)

    def _is_foreign(self, key: tuple[int, int, int, int]) -> bool:
        root = self.root.filesystem
        return (
            key[0] != root.mount_id
            or key[1] != root.device_major
            or key[2] != root.device_minor
            or key[3] == ROOT_NODEID
            or key[3] >= FOREIGN
        )

    def adopt(
        self,
        key: tuple[int, int, int, int],
        filesystem: Filesystem,
        handle: bytes,
        descriptor: int,
    ) -> tuple[Inode, bool, Inode | None]:
        """Count one lookup of a backing inode.

        *key* is mount id, device major and minor, inode number. *descriptor* is kept in the inode
        when *handle* is empty. Returns the inode, whether it is new here, and the earlier inode
        of the same number that it replaces in the table.
        """
        with self._lock:
            if self._is_foreign(key):
                nodeid = self._foreign.get(key, 0)
                if not nodeid:
                    nodeid = self._next_foreign
                    self._next_foreign += 1
                    self._foreign[key] = nodeid
                    self._foreign_keys[nodeid] = key
                number = nodeid
            else:
                nodeid = number = key[3]
            inode = self._inodes.get(nodeid)
            if inode is not None and inode.handle == handle:
                inode.lookups += 1
                return inode, False, None
            replaced = inode
            inode = Inode(nodeid, number, filesystem, handle, -1 if handle else descriptor)
            # The kernel forgets both under one nodeid, so the counts of both are one sum.
            inode.lookups = 1 + (replaced.lookups if replaced is not None else 0)
            self._inodes[nodeid] = inode
            return inode, True, replaced

    def count_again(self, inode: Inode) -> None:
        """Count one more lookup of an inode that is in the table."""
        with self._lock:
            inode.lookups += 1

    def forget(self, nodeid: int, count: int) -> Inode | None:
        """Take *count* lookups back. Returns the inode if that was the last, else None."""
        with self._lock:
            inode = self._inodes.get(nodeid)
            if inode is None or nodeid == ROOT_NODEID:
                return None
            inode.lookups -= count
            if inode.lookups > 0:
                return None
            del self._inodes[nodeid]
            key = self._foreign_keys.pop(nodeid, None)
            if key is not None:
                del self._foreign[key]
            return inode

    def snapshot(self) -> list[Inode]:
        """All inodes at this moment."""
        with self._lock:
            return list(self._inodes.values())
