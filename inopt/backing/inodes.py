"""The one-to-one table: nodeid ↔ backing inode, with exact lookup counts.

A nodeid equals the backing ``st_ino``. Numbers that cannot (another mount or device below the
root, an inode number 1 that is not the root's, one with the top bit set) come from a range of
their own, with the top bit set, and so does the nodeid of an inode whose number another one had
that the kernel still knows: the two are told apart by their file handles.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterable
from threading import Lock
from typing import Any, Final, TypeAlias

import msgspec

from inopt.backing.filesystems import Filesystem

ROOT_NODEID: Final = 1
FOREIGN: Final = 1 << 63
_MOUNT_BITS: Final = (1 << 30) - 1

# What tells a backing inode from all others of one moment: mount id, device (major, minor), number.
Key: TypeAlias = tuple[int, int, int, int]


class Inode(msgspec.Struct, eq=False, gc=False):
    """One backing inode that the kernel knows, or that an open file keeps.

    ``number`` is the ``st_ino`` to report. ``descriptor`` is -1 unless the inode is pinned: it
    has no name any more, or its filesystem has no file handles. ``io`` is the state of its opens,
    which belongs to `inopt.backing.attach`; ``attached`` is what the kernel has of it from its
    lookup on, or the errno why it has nothing, which belongs to `inopt.backing.attached`;
    ``position`` and ``plan`` are what the policy makes of it, which belongs to
    `inopt.handlers.placement`; ``layers`` is where it stands in layers, which belongs to
    `inopt.layers`; ``never_bypass`` and ``user`` are the wish and the state of a
    user's handler. ``mapped``: there may be a mapping through which the file is changed, of an open
    that has ended. ``lent``: how many of its ``lookups`` are the handlers', who have made them and
    neither passed them on to the kernel nor given them back. ``looked``: of a directory, how many
    names in it the kernel has lately asked for, which belongs to `inopt.handlers.serve.looking`.
    """

    nodeid: int
    number: int
    filesystem: Filesystem
    handle: bytes
    descriptor: int = -1
    is_directory: bool = False
    generation: int = 0
    lookups: int = 0
    lent: int = 0
    io: object | None = None
    attached: object | None = None
    position: Any = None
    plan: Any = None
    layers: Any = None
    looked: Any = None
    never_bypass: bool = False
    user: Any = None
    mapped: bool = False

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

    __slots__ = (
        "_aliases",
        "_by_handle",
        "_home",
        "_inodes",
        "_keys",
        "_lock",
        "_next_alias",
        "root",
    )

    def __init__(self, root: Inode) -> None:
        self.root = root
        self._lock = Lock()
        self._inodes: dict[int, Inode] = {ROOT_NODEID: root}
        # The nodeids that are not inode numbers, both ways.
        self._aliases: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        home = root.filesystem
        self._home = (home.mount_id, home.device_major, home.device_minor)
        # Not those of another inopt mount that the tree may be.
        self._next_alias = FOREIGN + ((home.mount_id & _MOUNT_BITS) << 32)
        self._by_handle: dict[bytes, Inode] | None = None

    def __len__(self) -> int:
        return len(self._inodes)

    def __contains__(self, nodeid: int) -> bool:
        return nodeid in self._inodes

    def get(self, nodeid: int) -> Inode:
        """The inode of *nodeid*. Raises `OSError` ``ESTALE`` for one that is not known."""
        try:
            return self._inodes[nodeid]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def get_or_none(self, nodeid: int) -> Inode | None:
        """The inode of *nodeid*, None for one that is not known."""
        return self._inodes.get(nodeid)

    def find(self, key: Key) -> Inode | None:
        """The inode of *key*, if it is known; its lookup count stays."""
        nodeid = self._aliases.get(key)
        if nodeid is None:
            nodeid = None if self._needs_alias(key) else key[3]
        return None if nodeid is None else self._inodes.get(nodeid)

    def index(self) -> dict[bytes, Inode]:
        """The inodes of the root's mount by file handle, kept up to date from now on.

        To be read only. It costs some 100 bytes for each inode.
        """
        with self._lock:
            if self._by_handle is None:
                self._by_handle = {
                    inode.handle: inode for inode in self._inodes.values() if self._is_native(inode)
                }
            return self._by_handle

    def unindex(self) -> None:
        """Keep no index any more."""
        with self._lock:
            self._by_handle = None

    @property
    def by_handle(self) -> dict[bytes, Inode] | None:
        """What `index` returned; None where nobody has asked for it."""
        return self._by_handle

    def _is_native(self, inode: Inode) -> bool:
        return bool(inode.handle) and inode.filesystem is self.root.filesystem

    def _needs_alias(self, key: Key) -> bool:
        return key[3] == ROOT_NODEID or key[3] >= FOREIGN or key[:3] != self._home

    def adopt(
        self,
        key: Key,
        filesystem: Filesystem,
        handle: bytes,
        descriptor: int,
        *,
        is_directory: bool = False,
    ) -> tuple[Inode, bool]:
        """Count one lookup of a backing inode; returns it, and whether it is new here.

        *descriptor* is kept in a new inode when *handle* is empty.
        """
        nodeid = key[3]
        alias = nodeid == ROOT_NODEID or nodeid >= FOREIGN or key[:3] != self._home
        with self._lock:
            if alias or self._aliases:
                nodeid = self._aliases.get(key, -1 if alias else nodeid)
            inode = self._inodes.get(nodeid)
            if inode is not None and inode.handle == handle:
                inode.lookups += 1
                return inode, False
            if inode is not None or alias:
                # A reused number: the kernel would mark an inode bad that gets another
                # generation, and whoever is about to open it would meet EIO.
                nodeid = self._next_alias
                self._next_alias += 1
                self._aliases[key] = nodeid
                self._keys[nodeid] = key
            number = key[3] if key[:3] == self._home else nodeid
            kept = -1 if handle else descriptor
            generation = generation_of(handle)
            inode = Inode(nodeid, number, filesystem, handle, kept, is_directory, generation, 1)
            self._inodes[nodeid] = inode
            if self._by_handle is not None and self._is_native(inode):
                self._by_handle[handle] = inode
            return inode, True

    def count_again(self, inode: Inode) -> bool:
        """Count one more lookup of an inode; False if it is not in the table any more."""
        with self._lock:
            if self._inodes.get(inode.nodeid) is not inode:
                return False
            inode.lookups += 1
            return True

    def rename(self, inode: Inode, key: Key) -> None:
        """From now on *inode* is what *key* leads to, and keeps its nodeid and its number."""
        with self._lock:
            nodeid = inode.nodeid
            if self._inodes.get(nodeid) is not inode:
                return
            earlier = self._keys.get(nodeid)
            if earlier is not None and self._aliases.get(earlier) == nodeid:
                del self._aliases[earlier]
            self._aliases[key] = nodeid
            self._keys[nodeid] = key

    def forget(self, nodeid: int, count: int) -> Inode | None:
        """Take *count* lookups back. Returns the inode if that was the last, else None."""
        with self._lock:
            inode = self._inodes.get(nodeid)
            if inode is None or nodeid == ROOT_NODEID:
                return None
            # On pyfuse3 nobody hears which of them have been passed on.
            inode.lent = min(inode.lent, max(inode.lookups - count, 0))
            return self._take(inode, count)

    def _take(self, inode: Inode, count: int) -> Inode | None:
        inode.lookups -= count
        if inode.lookups > 0:
            return None
        nodeid = inode.nodeid
        del self._inodes[nodeid]
        if self._by_handle is not None and self._by_handle.get(inode.handle) is inode:
            del self._by_handle[inode.handle]
        key = self._keys.pop(nodeid, None)
        if key is not None and self._aliases.get(key) == nodeid:
            del self._aliases[key]
        return inode

    # --- lookups of handlers -------------------------------------------------------------------

    # What handlers look up is counted, as if the kernel had, and noted as theirs. So whatever they
    # give back, or fail to, the kernel's own lookups stay.

    def lend(self, nodeids: Iterable[int]) -> None:
        """A lookup of each, counted already, is the handlers'."""
        with self._lock:
            for nodeid in nodeids:
                inode = self._inodes.get(nodeid)
                if inode is not None and nodeid != ROOT_NODEID:
                    inode.lent += 1

    def pass_on(self, inode: Inode) -> bool:
        """The kernel is told of *inode*: a lookup of the handlers is its own now, or a new one.

        False if the inode is not known any more.
        """
        with self._lock:
            if self._inodes.get(inode.nodeid) is not inode:
                return False
            if inode.lent:
                inode.lent -= 1
            elif inode is not self.root:
                inode.lookups += 1
            return True

    def give_back(self, nodeid: int, count: int) -> Inode | None:
        """Take back as many as *count* lookups of the handlers. Returns the inode as `forget`."""
        with self._lock:
            inode = self._inodes.get(nodeid)
            if inode is None or nodeid == ROOT_NODEID:
                return None
            count = min(count, inode.lent)
            inode.lent -= count
            return self._take(inode, count) if count else None

    def snapshot(self) -> list[Inode]:
        """All inodes at this moment."""
        with self._lock:
            return list(self._inodes.values())
