"""How names come, go and move over layers: whiteouts hide what lower layers still have.

Each change shows in one step, a rename in the upper layer; what it needs is made in the work
directory before, and what is left over is cleared there afterwards.
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
from inopt.layers.standing import Standing, standing_of
from inopt.layers.tree import LayeredTree
from inopt.layers.working import remove_tree
from inopt.wire.replies import Attributes

Made = TypeVar("Made")

_EXCHANGE: Final = syscalls.RENAME_EXCHANGE
_NOREPLACE: Final = syscalls.RENAME_NOREPLACE


class LayeredNaming(Naming):
    """The names of a layered tree. The kernel lets one change of a directory run at a time."""

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

    def _upper(self, directory: Inode) -> int:
        return self._copier.upper_directory(directory)

    # --- names that come -----------------------------------------------------------------------

    def require_node(self, mode: int, device: int) -> None:
        """Raises ``EPERM`` for what would not show, as it says that a name is no more."""
        if stat.S_ISCHR(mode) and not device:
            _fail(errno.EPERM)

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
        self._mark_arrival(inode, upper)
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
        self._require_removable(parent, name)
        upper = self._upper(parent)
        below = self.tree.shows_below(parent, name)
        present = _look(upper, name)
        if present is None:
            if not below:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if is_directory:
                self._require_empty(parent, name)
            self._whiteout(upper, name)
            return
        if is_whiteout(present):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if is_directory:
            self._require_empty(parent, name)
        if not below:
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

    def _require_removable(self, parent: Inode, name: bytes) -> None:
        """Raise ``EPERM`` if flags of chattr(1) keep a name where it is."""
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
                attributes = attributes_of(earlier)
                copy_facts(earlier, attributes, self._work, empty, lambda _name: True)
                os.setxattr(beneath(self._work, empty), self._marks.opaque, b"y")
                copy_times(attributes, self._work, empty)
                syscalls.renameat2(self._work, empty, upper, name, _EXCHANGE)
            finally:
                remove_tree(self._work, empty)
        finally:
            os.close(earlier)

    # --- names that move -----------------------------------------------------------------------

    def move(
        self,
        old_parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        flags: int,
        run: Callable[[Callable[[], None]], None],
    ) -> None:
        """renameat2(2), without ``RENAME_WHITEOUT``: whiteouts are the overlay's own."""
        del run
        if flags & ~(_NOREPLACE | _EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        tree = self.tree
        self._require_removable(old_parent, name)
        if self._shows(new_parent, new_name) and not flags & _NOREPLACE:
            self._require_removable(new_parent, new_name)
        else:
            tree.require_permitted(new_parent, appends=True)
        moving = self._prepare(old_parent, name)
        other: Inode | None = None
        try:
            if flags & _EXCHANGE:
                other = self._prepare(new_parent, new_name)
                self._exchange(old_parent, name, new_parent, new_name, moving, other)
                self._stands(other, old_parent, name)
            else:
                if flags & _NOREPLACE and self._shows(new_parent, new_name):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                self._replace(old_parent, name, new_parent, new_name, moving)
            self._stands(moving, new_parent, new_name)
        finally:
            for inode in (moving, other):
                if inode is not None:
                    tree.forget(inode.nodeid, 1)

    def _prepare(self, parent: Inode, name: bytes) -> Inode:
        """What *name* is, in the upper layer by now; a lookup of it is counted.

        Raises ``EXDEV`` for a directory that lower layers have a part in: programs copy it then.
        """
        inode, _ = self.tree.resolve(parent, name)
        try:
            standing = standing_of(inode)
            if inode.is_directory and (standing.below or not standing.layer.is_upper):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            self.tree.prepare_change(inode)
        except BaseException:
            self.tree.forget(inode.nodeid, 1)
            raise
        return inode

    def _exchange(
        self,
        old_parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        moving: Inode,
        other: Inode,
    ) -> None:
        old, new = self._upper(old_parent), self._upper(new_parent)
        self._hide_below(moving, new_parent)
        self._hide_below(other, old_parent)
        if old_parent is not new_parent:
            self._mark_arrival(moving, new)
            self._mark_arrival(other, old)
        syscalls.renameat2(old, name, new, new_name, _EXCHANGE)

    def _replace(
        self, old_parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, moving: Inode
    ) -> None:
        old, new = self._upper(old_parent), self._upper(new_parent)
        leaves_whiteout = self.tree.shows_below(old_parent, name)
        present = _look(new, new_name)
        if self._shows(new_parent, new_name):
            self._require_replaceable(new_parent, new_name, moving)
            if moving.is_directory and present is not None and not is_whiteout(present):
                self._clear_whiteouts(new, new_name)
        self._hide_below(moving, new_parent)
        if old_parent is not new_parent:
            self._mark_arrival(moving, new)
        if moving.is_directory and present is not None and is_whiteout(present):
            # A directory takes no whiteout's place: they change places, and that may go.
            syscalls.renameat2(old, name, new, new_name, _EXCHANGE)
            if not leaves_whiteout:
                os.unlink(name, dir_fd=old)
            return
        victim = self.tree.probe(new, new_name)
        flags = syscalls.RENAME_WHITEOUT if leaves_whiteout else 0
        try:
            syscalls.renameat2(old, name, new, new_name, flags)
        except BaseException:
            if victim >= 0:
                os.close(victim)
            raise
        self.tree.pin_if_unlinked(victim)

    def _shows(self, parent: Inode, name: bytes) -> bool:
        present = _look(self.tree.descriptor(parent), name)
        if present is not None:
            return not is_whiteout(present)
        return self.tree.shows_below(parent, name)

    def _require_replaceable(self, parent: Inode, name: bytes, moving: Inode) -> None:
        holder = self.tree.holder(parent, name)
        is_directory = stat.S_ISDIR(attributes_of(holder, name).mode)
        if is_directory and not moving.is_directory:
            _fail(errno.EISDIR)
        if moving.is_directory:
            if not is_directory:
                _fail(errno.ENOTDIR)
            self._require_empty(parent, name)

    def _hide_below(self, moving: Inode, parent: Inode) -> None:
        """Have a directory show nothing of lower layers in its new place, whatever they have."""
        if not moving.is_directory or not standing_of(parent).below:
            return
        if self._marks.opaqueness(self.tree.descriptor(moving)) != b"y":
            os.setxattr(self.tree.path(moving), self._marks.opaque, b"y")

    def _mark_arrival(self, inode: Inode, directory: int) -> None:
        """Mark a directory of the upper layer that gets a copy of a lower inode.

        The kernel's overlayfs looks for the inode numbers of originals in such directories only.
        """
        marks = self._marks
        if marks.read(marks.origin, self.tree.descriptor(inode)) is not None:
            os.setxattr(beneath(directory), marks.impure, b"y")

    def _stands(self, inode: Inode, parent: Inode, name: bytes) -> None:
        standing = inode.layers
        if isinstance(standing, Standing):
            standing.parent, standing.name = parent, name


def _look(directory: int, name: bytes) -> Attributes | None:
    try:
        return attributes_of(directory, name)
    except FileNotFoundError:
        return None


def _is_whiteout(directory: int, name: bytes) -> bool:
    present = _look(directory, name)
    return present is not None and is_whiteout(present)


def _fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))
