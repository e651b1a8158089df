"""How names are listed, come, go and move in a backing tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar, TypeVar

from inopt import syscalls
from inopt.backing.files import OpenDirectory
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.wire.replies import Attributes

Made = TypeVar("Made")


class Naming:
    """The names of one tree. Access has been checked; all raise `OSError`.

    Another kind of tree (`inopt.layers`) has another kind of naming.
    """

    alone: ClassVar[bool] = False
    """Whether nobody else changes what is listed, so that the kernel may keep listings."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def open_directory(self, inode: Inode, flags: int) -> OpenDirectory:
        """An open directory to be listed; its descriptor is opened when it is needed."""
        return OpenDirectory(inode, flags)

    def listed(self, directory: OpenDirectory, name: bytes) -> tuple[Inode, Attributes]:
        """Look up a name that a listing has shown, and count the lookup."""
        return self.tree.resolve_at(directory.descriptor, name)

    def keeps_listing(self, directory: Inode) -> bool:
        """Whether what the kernel keeps of a listing is still right, nothing in it having changed.

        Asked when a directory is opened to be listed.
        """
        del directory
        return True

    def require_node(self, mode: int, device: int) -> None:
        """Raises `OSError` if a special file of that *mode* and *device* cannot be made here."""

    def make(self, parent: Inode, name: bytes, create: Callable[[int], Made]) -> Made:
        """Run *create*, which makes *name* in the directory of the descriptor that it is given."""
        del name
        return create(self.tree.descriptor(parent))

    def make_nameless(self, parent: Inode, create: Callable[[int], Made]) -> Made:
        """Like `make`, for a file without a name (``O_TMPFILE``)."""
        return create(self.tree.descriptor(parent))

    def link(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Give *inode* one more name."""
        tree = self.tree
        syscalls.link_descriptor(tree.descriptor(inode), tree.descriptor(parent), name)
        tree.unpin(inode)

    def remove(self, parent: Inode, name: bytes, *, is_directory: bool) -> None:
        """Take a name away; a directory must be empty."""
        tree = self.tree
        self._remove(tree.descriptor(parent), name, is_directory=is_directory)

    def _remove(self, directory: int, name: bytes, *, is_directory: bool) -> None:
        victim = self.tree.probe(directory, name)
        try:
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory)
        except BaseException:
            _close(victim)
            raise
        self.tree.pin_if_unlinked(victim)

    def move(
        self,
        old_parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        flags: int,
        run: Callable[[Callable[[], None]], None],
    ) -> None:
        """renameat2(2). *run* does what it is given as the caller, whose a whiteout is to be."""
        tree = self.tree
        old, new = tree.descriptor(old_parent), tree.descriptor(new_parent)

        def rename() -> None:
            syscalls.renameat2(old, name, new, new_name, flags)

        if flags & (syscalls.RENAME_NOREPLACE | syscalls.RENAME_EXCHANGE):
            run(rename)
            return
        victim = tree.probe(new, new_name)
        try:
            run(rename)
        except BaseException:
            _close(victim)
            raise
        tree.pin_if_unlinked(victim)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
