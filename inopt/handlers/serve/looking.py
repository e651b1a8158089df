"""Which directories the kernel has just looked at name by name.

READDIRPLUS looks up what it lists, so that nobody has to ask for it afterwards. Some ask before
(``git status`` has each file's attributes first, and lists directories for what is new): the
kernel knows all of it then, and to be told again takes as long as the first time.
"""

from __future__ import annotations

from time import monotonic

from inopt.backing.files import OpenDirectory
from inopt.backing.inodes import Inode


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
