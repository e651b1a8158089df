"""What a watch reports, whatever it watches by."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from inopt.backing.inodes import Inode
from inopt.wire.attributes import Attributes

# What of an inode a watch covers: changes of the names that lead to it, and of its attributes.
NAME: Final = 1
ATTRIBUTES: Final = 2


class Changes:
    """What has changed, of what the kernel may remember.

    ``inodes``: by inode, whether its data may have changed, too. ``names``: by directory and
    name, whether it may have led somewhere before (else it has only appeared). ``linked``: inodes
    that have got one more name. ``moved``: some directory is somewhere else, with all below it.
    ``expired``: names that nobody watches any more. ``lost``: there was more, and nobody knows
    what. ``events`` is how many there were, ``own`` how many of them the daemon's own readers
    have caused.
    """

    __slots__ = ("events", "expired", "inodes", "linked", "lost", "moved", "names", "own")

    def __init__(self) -> None:
        self.inodes: dict[Inode, bool] = {}
        self.names: dict[tuple[Inode, bytes], bool] = {}
        self.expired: set[tuple[Inode, bytes]] = set()
        self.linked: set[Inode] = set()
        self.moved = False
        self.lost = False
        self.events = 0
        self.own = 0

    def touch(self, inode: Inode, *, data: bool = False) -> None:
        """Note that attributes of *inode* have changed, and perhaps its *data*."""
        self.inodes[inode] = data or self.inodes.get(inode, False)

    def rename(self, directory: Inode, name: bytes, *, led: bool) -> None:
        """Note that *name* leads elsewhere now; *led*, if it may have led somewhere before."""
        key = (directory, name)
        self.names[key] = led or self.names.get(key, False)


class Watch(Protocol):
    """Who notices changes underneath. `read` is for one thread; the rest for any.

    ``kind`` is its name in reports. ``descriptor`` can be polled: it is readable when there are
    changes.
    """

    kind: str
    descriptor: int

    def read(self, own: Collection[int]) -> Changes:
        """What has changed since the last call; does not wait.

        *own*: the threads (gettid(2)) whose changes the kernel knows of already.
        """
        ...

    def covers(self, inode: Inode, attributes: Attributes) -> int:
        """Which changes of an inode are noticed: `NAME`, `ATTRIBUTES`, both or none."""
        ...

    def approach(self, directory: Inode) -> None:
        """Something in *directory* is about to be looked at."""
        ...

    def meet(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """The kernel is about to be told that *name* leads to *inode*."""
        ...

    def forget(self, inode: Inode) -> None:
        """The kernel has forgotten *inode*."""
        ...

    def facts(self) -> dict[str, int]:
        """What reports tell of it."""
        ...

    def close(self) -> None:
        """End it. Nobody may be reading."""
        ...
