"""The part of the quota that counts files: what is made, moved and removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from accounting import Accounting
from ledger import key_of

from inopt import EntryAttributes, FileInfo, FUSEError, RequestContext

RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4


class CountedNames(Accounting):
    """Counts inodes in limited directories."""

    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a file, fifo, socket or device."""
        return self._make(
            parent_inode, lambda: self.daemon.mknod(parent_inode, name, mode, rdev, ctx)
        )

    def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a directory."""
        return self._make(parent_inode, lambda: self.daemon.mkdir(parent_inode, name, mode, ctx))

    def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a symbolic link."""
        return self._make(
            parent_inode, lambda: self.daemon.symlink(parent_inode, name, target, ctx)
        )

    def _created(
        self, parent: int, create: Callable[[], tuple[FileInfo, EntryAttributes]]
    ) -> tuple[FileInfo, EntryAttributes]:
        infos = []

        def make() -> EntryAttributes:
            info, attributes = create()
            infos.append(info)
            return attributes

        attributes = self._make(parent, make)
        with self.lock:
            self._opened(infos[0], attributes.st_ino, self._area(attributes.st_ino))
        return infos[0], attributes

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it."""
        return self._created(
            parent_inode, lambda: self.daemon.create(parent_inode, name, mode, flags, ctx)
        )

    def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file without a name: it counts while it is open."""
        made = self._created(
            parent_inode, lambda: self.daemon.tmpfile(parent_inode, mode, flags, ctx)
        )
        with self.lock:
            self.nameless.add(self._key(made[1].st_ino))
        return made

    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Give another name, in the same area."""
        with self.lock:
            if self._area(inode) is not self._area(new_parent_inode):
                raise FUSEError(errno.EXDEV)
            linked = self.daemon.link(inode, new_parent_inode, new_name, ctx)
            self.nameless.discard(self._key(inode))
            return linked

    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a name."""
        self._remove(self.daemon.unlink, parent_inode, name, ctx)

    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a directory."""
        self._remove(self.daemon.rmdir, parent_inode, name, ctx)

    def _remove(
        self,
        remove: Callable[[int, bytes, RequestContext], None],
        parent: int,
        name: bytes,
        ctx: RequestContext,
    ) -> None:
        with self.lock:
            victim = self._look(parent, name)
            self._require_no_top(victim)
            remove(parent, name, ctx)
            if victim is not None:
                self._lost(victim, self._area(parent))

    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a name within an area; between areas, mv(1) copies."""
        with self.lock:
            area = self._area(parent_inode_old)
            if area is not self._area(parent_inode_new):
                raise FUSEError(errno.EXDEV)
            if flags & RENAME_WHITEOUT:
                raise FUSEError(errno.EINVAL)
            self._require_no_top(self._look(parent_inode_old, name_old))
            victim = self._look(parent_inode_new, name_new)
            self._require_no_top(victim)
            self.daemon.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)
            if victim is not None and not flags & RENAME_EXCHANGE:
                self._lost(victim, area)

    def _require_no_top(self, status: os.stat_result | None) -> None:
        """A directory with limits stays where they say that it is."""
        if status is not None and key_of(status) in self.ledger.tops:
            raise FUSEError(errno.EBUSY)
