"""What of a listing need not be looked up as well.

READDIRPLUS looks up what it lists, so that nobody has to ask for it afterwards; an entry without
an inode is the name alone. Looking up takes several times as long as listing, and two kinds of
readers do not need it. Some have asked before (``git status`` has each file's attributes first,
and lists directories for what is new): the kernel knows all of it then. Others never ask (``find``,
``ls -R``, ``os.walk``): the type of a file, which every entry has, is enough for them.
"""

from __future__ import annotations

import stat
from time import monotonic
from typing import Final

from inopt.backing.files import DT_DIR, DT_UNKNOWN, OpenDirectory
from inopt.backing.inodes import Inode
from inopt.wire.attributes import Attributes

_PROBES: Final = 2
_IDLE: Final = 2.0  # seconds
_MANY: Final = 256


class Looked:
    """How many names of a directory have been looked up since when (by the monotonic clock)."""

    __slots__ = ("count", "since")

    def __init__(self) -> None:
        self.count = 1
        self.since = monotonic()


def note(directory: Inode) -> None:
    """The kernel has asked for a name in *directory*, and was told what it is."""
    looked: Looked | None = directory.looked
    if looked is None:
        directory.looked = Looked()
    else:
        looked.count += 1


def is_known(directory: OpenDirectory, lifetime: float) -> bool:
    """Whether the kernel knows most of a listing that begins, and for some time yet.

    *lifetime*: for how many seconds it believes what it is told. The answer is good for one
    listing: the next one looks everything up, unless all has been asked for again.
    """
    looked: Looked | None = directory.inode.looked
    if looked is None:
        return False
    directory.inode.looked = None
    is_recent = monotonic() - looked.since < lifetime / 2
    return is_recent and looked.count * 4 >= directory.at_hand * 3


class Reader:
    """A thread that lists directories; ``asks``: whether for files that it has seen listed.

    While that is not known, one file of each listing is not looked up: who asks for it, asks.
    Directories always are, for whoever goes down into them asks for those.
    """

    __slots__ = ("_may_leave_out", "_unasked", "asks", "seen")

    def __init__(self, now: float) -> None:
        self.asks: bool | None = None
        self.seen = now
        self._unasked = 0
        self._may_leave_out = False

    def begin(self, now: float) -> None:
        """Begin a listing at *now*, by the monotonic clock."""
        if self.asks is None and self._unasked >= _PROBES:
            self.asks = False
        self.seen = now
        self._may_leave_out = True

    def leaves_out(self, kind: int) -> bool:
        """Whether an entry of type *kind* (``DT_*``) is to be the name alone."""
        if self.asks or kind in (DT_DIR, DT_UNKNOWN):
            return False
        if self.asks is None:
            if not self._may_leave_out:
                return False
            self._may_leave_out = False
            self._unasked += 1
        return True


class Readers:
    """The threads that have listed directories lately, by thread id."""

    __slots__ = ("_by_thread",)

    def __init__(self) -> None:
        self._by_thread: dict[int, Reader] = {}

    def __len__(self) -> int:
        return len(self._by_thread)

    def begin(self, thread: int) -> Reader | None:
        """A listing by *thread* begins; None if nobody can tell who that is (id 0)."""
        if not thread:
            return None  # in a process namespace of its own
        now = monotonic()
        reader = self._by_thread.get(thread)
        if reader is None or now - reader.seen > _IDLE:
            if len(self._by_thread) >= _MANY:
                self._drop_idle(now)
            reader = self._by_thread[thread] = Reader(now)
        reader.begin(now)
        return reader

    def _drop_idle(self, now: float) -> None:
        recent = {key: each for key, each in self._by_thread.items() if now - each.seen <= _IDLE}
        self._by_thread = recent if len(recent) < _MANY else {}

    def asked(self, thread: int, attributes: Attributes) -> None:
        """*thread* has asked for a name, and was told *attributes*."""
        reader = self._by_thread.get(thread)
        if reader is not None and not reader.asks and not stat.S_ISDIR(attributes.mode):
            reader.asks = True
