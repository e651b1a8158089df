"""Backing ids of files that nobody has open at the moment, but may have again soon.

Compilers and interpreters open the same files again and again. To open the backing file, to give
it to the kernel and to take it back takes longer than all else of an open and its release.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from inopt.backing.inodes import Inode

LIMIT: Final = 128
"""How many are kept: each is a file that the kernel has open."""


class KeptIds:
    """The backing ids that were given back last, by inode.

    The caller sees to it that one thread at a time is here.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Inode, int]] = OrderedDict()

    def put(self, inode: Inode, backing_id: int) -> list[int]:
        """Keep an id; returns those that are not kept any more."""
        ended = self.take(inode.nodeid)
        self._kept[inode.nodeid] = inode, backing_id
        if len(self._kept) > LIMIT:
            ended.append(self._kept.popitem(last=False)[1][1])
        return ended

    def take(self, nodeid: int) -> list[int]:
        """The id that is kept for a nodeid, if there is one: it is the caller's now."""
        kept = self._kept.pop(nodeid, None)
        return [] if kept is None else [kept[1]]

    def has(self, inode: Inode) -> bool:
        """Whether an id is kept for *inode*, and not for an earlier one of its nodeid."""
        kept = self._kept.get(inode.nodeid)
        return kept is not None and kept[0] is inode
