"""What the daemon's answers are made from, and the pieces that several of them share."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

from inopt.backing.attach import Attachments
from inopt.backing.files import Handles, OpenDirectory, OpenFile
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.kernel.dialects import Dialect
from inopt.wire.replies import Attributes, Validity


def fail(number: int) -> NoReturn:
    """Answer the request with an errno."""
    raise OSError(number, os.strerror(number))


class Context:
    """One mount's state as the daemon's answers see it.

    ``negative``: what tells the kernel to remember that a name does not exist, if it should.
    ``no_flush``: closing a file needs no request. ``no_atime``: reading leaves access times
    alone. ``reads_back``: the kernel caches writes, so it may read what was opened for writing.
    """

    __slots__ = (
        "attachments",
        "dialect",
        "directories",
        "files",
        "negative",
        "no_atime",
        "no_flush",
        "reads_back",
        "tree",
        "validity",
    )

    def __init__(
        self,
        tree: Tree,
        attachments: Attachments,
        dialect: Dialect,
        validity: Validity,
        *,
        negative_seconds: float = 0.0,
        no_atime: bool = False,
        reads_back: bool = False,
    ) -> None:
        self.tree = tree
        self.attachments = attachments
        self.dialect = dialect
        self.validity = validity
        self.negative = (
            dialect.negative_entry(Validity.of(negative_seconds, 0)) if negative_seconds else None
        )
        self.files: Handles[OpenFile] = Handles()
        self.directories: Handles[OpenDirectory] = Handles()
        self.no_flush = not tree.flushes_at_close
        self.no_atime = no_atime
        self.reads_back = reads_back

    def entry(self, inode: Inode, attributes: Attributes) -> bytes:
        """The payload of an entry reply; the lookup has been counted."""
        return self.dialect.entry(
            inode.nodeid, inode.generation, attributes, self.validity, inode.number
        )

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
