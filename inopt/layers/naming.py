"""How names move over layers, beside how they come and go.

A rename in the upper layer is what shows in one step; it leaves a whiteout where a lower layer
still has the name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from inopt import syscalls
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.layers.coming import ComingAndGoing, fail, look
from inopt.layers.format import is_whiteout
from inopt.layers.standing import Standing, standing_of

_EXCHANGE: Final = syscalls.RENAME_EXCHANGE
_NOREPLACE: Final = syscalls.RENAME_NOREPLACE


class LayeredNaming(ComingAndGoing):
    """The names of a layered tree. The kernel lets one change of a directory run at a time."""

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
        shows = self._shows(new_parent, new_name)
        if shows and not flags & _NOREPLACE:
            self._require_removable(new_parent, new_name)
        else:
            tree.require_permitted(new_parent, appends=True)
        moving = self._movable(old_parent, name)
        other: Inode | None = None
        try:
            if flags & _EXCHANGE:
                other = self._movable(new_parent, new_name)
                tree.prepare_change(moving)
                tree.prepare_change(other)
                self._exchange(old_parent, name, new_parent, new_name, moving, other)
                self._stands(other, old_parent, name)
            else:
                if shows:
                    if flags & _NOREPLACE:
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                    self._require_replaceable(new_parent, new_name, moving)
                tree.prepare_change(moving)
                self._replace(old_parent, name, new_parent, new_name, moving)
            self._stands(moving, new_parent, new_name)
        finally:
            for inode in (moving, other):
                if inode is not None:
                    tree.forget(inode.nodeid, 1)

    def _movable(self, parent: Inode, name: bytes) -> Inode:
        """What *name* is; a lookup of it is counted. Nothing is copied up yet.

        Raises ``EXDEV`` for a directory that lower layers have a part in: programs copy it then.
        """
        inode, _ = self.tree.resolve(parent, name)
        standing = standing_of(inode)
        if inode.is_directory and (standing.below or not standing.layer.is_upper):
            self.tree.forget(inode.nodeid, 1)
            fail(errno.EXDEV)
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
            self._mark_arrival(moving, new_parent, new)
            self._mark_arrival(other, old_parent, old)
        syscalls.renameat2(old, name, new, new_name, _EXCHANGE)

    def _replace(
        self, old_parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, moving: Inode
    ) -> None:
        old, new = self._upper(old_parent), self._upper(new_parent)
        leaves_whiteout = self.tree.shows_below(old_parent, name)
        present = look(new, new_name)
        hidden = present is not None and is_whiteout(present)
        if moving.is_directory and present is not None and not hidden:
            self._clear_whiteouts(new, new_name)
        self._hide_below(moving, new_parent)
        if old_parent is not new_parent:
            self._mark_arrival(moving, new_parent, new)
        if hidden and (moving.is_directory or leaves_whiteout):
            # They change places: a directory takes no whiteout's place, and where a lower layer has
            # the old name, there is one to be. Else it may go.
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
        present = look(self.tree.descriptor(parent), name)
        if present is not None:
            return not is_whiteout(present)
        return self.tree.shows_below(parent, name)

    def _require_replaceable(self, parent: Inode, name: bytes, moving: Inode) -> None:
        holder = self.tree.holder(parent, name)
        is_directory = stat.S_ISDIR(attributes_of(holder, name).mode)
        if is_directory and not moving.is_directory:
            fail(errno.EISDIR)
        if moving.is_directory:
            if not is_directory:
                fail(errno.ENOTDIR)
            self._require_empty(parent, name)

    def _hide_below(self, moving: Inode, parent: Inode) -> None:
        """Have a directory show nothing of lower layers in its new place, whatever they have."""
        if not moving.is_directory or not standing_of(parent).below:
            return
        if self._marks.opaqueness(self.tree.descriptor(moving)) != b"y":
            os.setxattr(self.tree.path(moving), self._marks.opaque, b"y")

    def _stands(self, inode: Inode, parent: Inode, name: bytes) -> None:
        standing = inode.layers
        if isinstance(standing, Standing):
            standing.parent, standing.name = parent, name
