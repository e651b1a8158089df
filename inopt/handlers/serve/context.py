"""What the daemon's answers are made from, and the pieces that several of them share."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, NoReturn

from inopt.backing.attach import Attachments
from inopt.backing.files import Handles, OpenDirectory, OpenFile
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.kernel.dialects import Dialect
from inopt.wire.replies import Attributes, Validity

_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


def fail(number: int) -> NoReturn:
    """Answer the request with an errno."""
    raise OSError(number, os.strerror(number))


class Context:
    """One mount's state as the daemon's answers see it.

    ``invalidate``: makes the kernel forget the attributes of a nodeid. ``negative``: what tells
    the kernel to remember that a name does not exist, if it should.
    ``no_flush``: closing a file needs no request. ``open_flags``: what every backing file is
    opened with (``O_NOATIME``, ``O_SYNC``). ``reads_back``: the kernel caches writes, so it may
    read what was opened for writing.
    """

    __slots__ = (
        "attachments",
        "dialect",
        "directories",
        "files",
        "invalidate",
        "negative",
        "no_flush",
        "open_flags",
        "reads_back",
        "set_id_validity",
        "tree",
        "validity",
    )

    def __init__(
        self,
        tree: Tree,
        attachments: Attachments,
        dialect: Dialect,
        validity: Validity,
        invalidate: Callable[[int], None],
        *,
        negative_seconds: float = 0.0,
        open_flags: int = 0,
        reads_back: bool = False,
    ) -> None:
        self.tree = tree
        self.attachments = attachments
        self.dialect = dialect
        self.validity = validity
        self.set_id_validity = Validity(validity.entry_seconds, validity.entry_nanoseconds, 0, 0)
        self.invalidate = invalidate
        self.negative = (
            dialect.negative_entry(Validity.of(negative_seconds, 0)) if negative_seconds else None
        )
        self.files: Handles[OpenFile] = Handles()
        self.directories: Handles[OpenDirectory] = Handles()
        self.no_flush = not tree.flushes_at_close
        self.open_flags = open_flags
        self.reads_back = reads_back

    def entry(self, inode: Inode, attributes: Attributes) -> bytes:
        """The payload of an entry reply; the lookup has been counted."""
        return self.dialect.entry(
            inode.nodeid, inode.generation, attributes, self.validity_of(attributes), inode.number
        )

    def validity_of(self, attributes: Attributes) -> Validity:
        """How long the kernel may believe *attributes*.

        Not at all for set-id files: writes of others remove the bits, and after some of them
        (fallocate, direct writes) the kernel does not ask for the mode again.
        """
        if attributes.mode & _SET_ID and stat.S_ISREG(attributes.mode):
            return self.set_id_validity
        return self.validity

    def close_file(self, handle: int) -> None:
        """End an open of a file."""
        file = self.files.remove(handle)
        if file is not None:
            file.close(self.tree)
            self.attachments.released(file.inode)

    def close_directory(self, handle: int) -> None:
        """End an open of a directory."""
        directory = self.directories.remove(handle)
        if directory is not None:
            directory.close(self.tree)

    def close(self) -> None:
        """End everything that is open, and give the tree up. No request may be running."""
        for file in self.files.clear():
            file.close(self.tree)
            self.attachments.released(file.inode)
        for directory in self.directories.clear():
            directory.close(self.tree)
        self.tree.close()


def require_room(length: int, size: int) -> None:
    """Raise ``ERANGE`` unless *length* bytes fit into the *size* that the caller has."""
    if length > size:
        fail(errno.ERANGE)
