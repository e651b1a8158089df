"""Tells who makes an overlay differ from its lower layers: one record for each file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from inopt import (
    EntryAttributes,
    FileInfo,
    Handlers,
    RequestContext,
    SessionReach,
    SetattrFields,
    plain,
)

ROOT = 1

log = structlog.get_logger("overlay")


class Told(Handlers):
    """Does what the daemon does; where that takes something from a lower layer, says so.

    Reads and writes bypass all the while: a file is copied up when it is opened for writing.
    """

    async def started(self, session: SessionReach) -> None:  # noqa: ARG002 - the same is in `self`
        """Note which layer is written to: the root is always in it."""
        self.upper = self.backing.layer(ROOT)

    def _record(self, event: str, path: bytes, layer: str | None, ctx: RequestContext) -> None:
        who = self.session.caller(ctx)
        log.info(event, path=os.fsdecode(path), layer=layer, uid=ctx.uid, comm=who.comm)

    @contextmanager
    def _changing(self, inode: int, ctx: RequestContext) -> Iterator[None]:
        """The inode is copied up in the body, unless it has been before."""
        layer = self.backing.layer(inode)
        path = self.backing.location(inode) if layer != self.upper else b""
        yield
        if self.backing.layer(inode) != layer:
            self._record("copied up", path, layer, ctx)

    @contextmanager
    def _hiding(self, parent: int, name: bytes, ctx: RequestContext) -> Iterator[None]:
        """What has the name loses it in the body, if anything has it."""
        found = self._find(parent, name, ctx)
        try:
            layer = self.backing.layer(found) if found else self.upper
            yield
            if layer != self.upper:
                path = os.path.join(self.backing.location(parent), name)
                self._record("hidden", path, layer, ctx)
        finally:
            if found:
                self.daemon.forget([(found, 1)])

    def _find(self, parent: int, name: bytes, ctx: RequestContext) -> int:
        """The inode of a name, a lookup of which is counted; 0 if there is none."""
        try:
            return int(self.daemon.lookup(parent, name, ctx).st_ino)
        except FileNotFoundError:
            return 0

    @plain
    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file; one that may be written to is copied up."""
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return self.daemon.open(inode, flags, ctx)
        with self._changing(inode, ctx):
            return self.daemon.open(inode, flags, ctx)

    @plain
    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes, of a copy."""
        with self._changing(inode, ctx):
            return self.daemon.setattr(inode, attr, fields, fh, ctx)

    @plain
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute, of a copy."""
        with self._changing(inode, ctx):
            self.daemon.setxattr(inode, name, value, ctx)

    @plain
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute, of a copy."""
        with self._changing(inode, ctx):
            self.daemon.removexattr(inode, name, ctx)

    @plain
    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Give a copy one more name."""
        with self._changing(inode, ctx):
            return self.daemon.link(inode, new_parent_inode, new_name, ctx)

    @plain
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a name; a whiteout hides what a lower layer has."""
        with self._hiding(parent_inode, name, ctx):
            self.daemon.unlink(parent_inode, name, ctx)

    @plain
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory, likewise."""
        with self._hiding(parent_inode, name, ctx):
            self.daemon.rmdir(parent_inode, name, ctx)

    @plain
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a copy; its old name is hidden, and so is what was in its way."""
        move = (parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)
        with (
            self._hiding(parent_inode_old, name_old, ctx),
            self._hiding(parent_inode_new, name_new, ctx),
        ):
            self.daemon.rename(*move)
