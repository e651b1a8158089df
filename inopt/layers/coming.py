"""How names come and go over layers: whiteouts hide what lower layers still have.

Each change shows in one step; what it needs is made in the work directory before, and what is left
over is cleared there afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, TypeVar

from inopt import syscalls
from inopt.backing.files import OpenDirectory
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.backing.naming import Naming
from inopt.layers.copying import Copier
from inopt.layers.facts import copy_facts, copy_times
from inopt.layers.format import beneath, is_whiteout, make_whiteout
from inopt.layers.listing import MergedDirectory, has_entries
from inopt.layers.protection import protection_of, require_permitted
from inopt.layers.staging import staged
from inopt.layers.standing import standing_of
from inopt.layers.tree import LayeredTree
from inopt.layers.working import remove_tree
from inopt.wire.replies import Attributes

Made = TypeVar("Made")

_EXCHANGE: Final = syscalls.RENAME_EXCHANGE
_NOREPLACE: Final = syscalls.RENAME_NOREPLACE


class ComingAndGoing(Naming):
    """Names of a layered tree that are made and removed."""

    tree: LayeredTree
    alone = True

    def __init__(self, tree: LayeredTree, copier: Copier) -> None:
        super().__init__(tree)
        self._copier = copier
        self._work = tree.stack.work
        self._marks = tree.stack.format

    # --- what is there -------------------------------------------------------------------------

    def open_directory(self, inode: Inode, flags: int) -> OpenDirectory:
        """An open directory to be listed; its descriptor is opened when it is needed."""
        return MergedDirectory(self.tree, inode, flags)

    def listed(self, directory: OpenDirectory, name: bytes) -> tuple[Inode, Attributes]:
        """Look up a name that a listing has shown, and count the lookup."""
        return self.tree.resolve(directory.inode, name)

    def keeps_listing(self, directory: Inode) -> bool:
        """Not if it is in another directory by now: a listing tells that one's number, too."""
        standing = standing_of(directory)
        earlier, parent = standing.listed_in, standing.parent
        standing.listed_in = 0 if parent is None else parent.nodeid
        return earlier in (-1, standing.listed_in)

    def _upper(self, directory: Inode) -> int:
        return self._copier.upper_directory(directory)

    # --- names that come -----------------------------------------------------------------------

    def require_node(self, mode: int, device: int) -> None:
        """Raises ``EPERM`` for what would not show, as it says that a name is no more."""
        if stat.S_ISCHR(mode) and not device:
            fail(errno.EPERM)

    def make(self, parent: Inode, name: bytes, create: Callable[[int], Made]) -> Made:
        """Run *create*, which makes *name* in the directory of the descriptor that it is given."""
        self.tree.require_permitted(parent, appends=True)
        upper = self._upper(parent)
        if not _is_whiteout(upper, name):
            return create(upper)
        with staged(self._work, upper, self._copier.temporary()) as stage:
            made = create(stage)
            if stat.S_ISDIR(attributes_of(stage, name).mode):
                os.setxattr(beneath(stage, name), self._marks.opaque, b"y")
                syscalls.renameat2(stage, name, upper, name, _EXCHANGE)
            else:
                os.rename(name, name, src_dir_fd=stage, dst_dir_fd=upper)
            return made

    def make_nameless(self, parent: Inode, create: Callable[[int], Made]) -> Made:
        """Like `make`, for a file without a name (``O_TMPFILE``)."""
        self.tree.require_permitted(parent, appends=True)
        return create(self._upper(parent))

    def link(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Give *inode* one more name."""
        tree = self.tree
        tree.require_permitted(inode)
        tree.require_permitted(parent, appends=True)
        tree.prepare_change(inode)
        upper = self._upper(parent)
        self._mark_arrival(inode, parent, upper)
        source = tree.descriptor(inode)
        if _is_whiteout(upper, name):
            temporary = self._copier.temporary()
            syscalls.link_descriptor(source, self._work, temporary)
            try:
                os.rename(temporary, name, src_dir_fd=self._work, dst_dir_fd=upper)
            except BaseException:
                os.unlink(temporary, dir_fd=self._work)
                raise
        else:
            syscalls.link_descriptor(source, upper, name)
        tree.unpin(inode)

    # --- names that go -------------------------------------------------------------------------

    def remove(self, parent: Inode, name: bytes, *, is_directory: bool) -> None:
        """Take a name away; a directory must be empty."""
        is_in_upper = self._require_removable(parent, name)
        if is_directory:
            self._require_empty(parent, name)
        upper = self._upper(parent)
        if not is_in_upper:
            self._whiteout(upper, name)
            return
        if not self.tree.shows_below(parent, name):
            if is_directory:
                self._clear_whiteouts(upper, name)
            self._remove(upper, name, is_directory=is_directory)
            return
        victim = self.tree.probe(upper, name)
        whiteout = self._copier.temporary()
        try:
            make_whiteout(self._work, whiteout)
            if is_directory:
                syscalls.renameat2(self._work, whiteout, upper, name, _EXCHANGE)
                remove_tree(self._work, whiteout)
            else:
                os.rename(whiteout, name, src_dir_fd=self._work, dst_dir_fd=upper)
        except BaseException:
            if victim >= 0:
                os.close(victim)
            with suppress(OSError):
                remove_tree(self._work, whiteout)
            raise
        self.tree.pin_if_unlinked(victim)

    def _require_removable(self, parent: Inode, name: bytes) -> bool:
        """Raise ``EPERM`` if flags of chattr(1) keep a name where it is, ``ENOENT`` for none.

        Returns whether the upper layer has it.
        """
        tree = self.tree
        tree.require_permitted(parent)
        found, _ = tree.finder.find(parent, name)
        try:
            protection = protection_of(found.attributes)
            if found.layer.is_upper and not stat.S_ISLNK(found.attributes.mode):
                protection |= tree.protection.of_name(found.directory, name)
        finally:
            found.close()
        require_permitted(protection)
        return found.layer.is_upper

    def _whiteout(self, upper: int, name: bytes) -> None:
        """Say that *name* is no more: made elsewhere, as it would inherit ACLs and group here."""
        whiteout = self._copier.temporary()
        make_whiteout(self._work, whiteout)
        try:
            syscalls.renameat2(self._work, whiteout, upper, name, _NOREPLACE)
        except BaseException:
            os.unlink(whiteout, dir_fd=self._work)
            raise

    def _require_empty(self, parent: Inode, name: bytes) -> None:
        tree = self.tree
        inode, _ = tree.resolve(parent, name)
        try:
            if not inode.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            with tree.descriptors.use():
                if has_entries(tree, inode):
                    # That its place keeps it comes first, as the layer itself would say.
                    require_permitted(protection_of(attributes_of(tree.descriptor(parent))))
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        finally:
            tree.forget(inode.nodeid, 1)

    def _clear_whiteouts(self, upper: int, name: bytes) -> None:
        """Have an upper directory empty of which the merged view is: whiteouts may be left in it.

        One like it, but empty and hiding what is below, takes its place in one step.
        """
        earlier = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=upper)
        try:
            if not os.listdir(earlier):
                return
            empty = self._copier.temporary()
            os.mkdir(empty, 0o700, dir_fd=self._work)
            try:
                attributes, place = attributes_of(earlier), beneath(self._work, empty)
                copy_facts(earlier, attributes, place, lambda _name: True, follow=False)
                os.setxattr(place, self._marks.opaque, b"y")
                copy_times(attributes, place, follow=False)
                syscalls.renameat2(self._work, empty, upper, name, _EXCHANGE)
            finally:
                remove_tree(self._work, empty)
        finally:
            os.close(earlier)

    def _mark_arrival(self, inode: Inode, parent: Inode, upper: int) -> None:
        """Mark *parent*, which is *upper* in the upper layer, if it gets a copy of a lower inode.

        The kernel's overlayfs looks for the inode numbers of originals in such directories only.
        """
        marks = self._marks
        if marks.read(marks.origin, self.tree.descriptor(inode)) is not None:
            self.tree.mark_impure(parent, upper)


def look(directory: int, name: bytes) -> Attributes | None:
    """The attributes of a name in one layer; None if it is not there."""
    try:
        return attributes_of(directory, name)
    except FileNotFoundError:
        return None


def _is_whiteout(directory: int, name: bytes) -> bool:
    present = look(directory, name)
    return present is not None and is_whiteout(present)


def fail(number: int) -> NoReturn:
    """Raise `OSError` with this errno."""
    raise OSError(number, os.strerror(number))
