"""Keeps the last versions of files, in /.versions, when they are changed, replaced or removed.

A file is copied aside when it is opened for writing, before anything can change it, and the copy
is thrown away again if nothing did. Reads and writes bypass all the while.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from history import History, Version

from inopt import EntryAttributes, FileInfo, Handlers, RequestContext, SessionReach, SetattrFields

ROOT = 1
RENAME_EXCHANGE = 2
DIRECTORY = os.O_PATH | os.O_DIRECTORY


class Versions(Handlers):
    """All methods run in trio's one thread, so only what waits (copying) needs a lock."""

    async def started(self, session: SessionReach) -> None:  # noqa: ARG002 - the same is in `self`
        """Make /.versions, if it is not there."""
        root = self.backing.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
        self.history = History(root, ".versions", int(os.environ.get("VERSIONS_KEEP", "10")))

    async def stopped(self) -> None:
        """Close what is open."""
        self.history.close()

    def _path(self, inode: int) -> list[bytes]:
        """Where an inode is; made up for one with several names."""
        try:
            return [name for name in self.backing.location(inode).split(b"/") if name]
        except OSError:
            return [b"inode-%d" % inode]

    def _look(self, inode: int) -> tuple[int, int]:
        """What differs once the content does."""
        status = self.backing.stat(inode)
        return status.st_size, status.st_mtime_ns

    @contextmanager
    def _open(self, inode: int, flags: int) -> Iterator[int]:
        descriptor = self.backing.open(inode, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    async def _begin(self, inode: int, state: dict[str, Any]) -> None:
        """The file may change from now on: note what it is like."""
        state["look"] = self._look(inode)
        state["version"] = None
        if state["look"][0]:  # nothing is kept of what is empty
            with self._open(inode, os.O_RDONLY | os.O_NOATIME) as source:
                state["version"] = await self.history.copy(source, self._path(inode))

    def _end(self, inode: int, state: dict[str, Any]) -> None:
        """Nobody changes the file any more: keep the version if somebody has."""
        version: Version | None = state.pop("version")
        if version is not None:
            version.settle(keep=self._look(inode) != state["look"])

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open; before the first that may write, make a version."""
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return self.daemon.open(inode, flags, ctx)
        state = self.backing.inode_state(inode)
        async with state.setdefault("lock", trio.Lock()):
            if not state.get("writers"):
                await self._begin(inode, state)
            try:
                info = self.daemon.open(inode, flags, ctx)
            except BaseException:
                if not state.get("writers"):
                    self._end(inode, state)
                raise
            state["writers"] = state.get("writers", 0) + 1
            self.backing.open_state(info.fh)["writes"] = True
        return info

    async def release(self, fh: int) -> None:
        """Close; after the last that may have written, keep the version or throw it away."""
        try:
            if "writes" in self.backing.open_state(fh):
                inode = self.backing.inode_of(fh)
                state = self.backing.inode_state(inode)
                async with state["lock"]:
                    state["writers"] -= 1
                    if not state["writers"]:
                        self._end(inode, state)
        finally:
            self.daemon.release(fh)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes; for truncate(2), make a version before."""
        state = self.backing.inode_state(inode)
        async with state.setdefault("lock", trio.Lock()):
            if not fields.update_size or state.get("writers"):
                return self.daemon.setattr(inode, attr, fields, fh, ctx)
            await self._begin(inode, state)
            try:
                return self.daemon.setattr(inode, attr, fields, fh, ctx)
            finally:
                self._end(inode, state)

    @contextmanager
    def _losing(self, parent: int, name: bytes) -> Iterator[None]:
        """What has this name loses it in the body: as its last version, it gets another first."""
        version = None
        with self._open(parent, DIRECTORY) as directory:
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                status = None
            if status and stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size:
                version = self.history.link(directory, [*self._path(parent), name])
        done = False
        try:
            yield
            done = True
        finally:
            if version is not None:
                version.settle(keep=done)

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a name; what it leads to stays as a version."""
        with self._losing(parent_inode, name):
            self.daemon.unlink(parent_inode, name, ctx)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a name; a file in its way stays as a version."""
        move = (parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)
        if flags & RENAME_EXCHANGE:
            self.daemon.rename(*move)
            return
        with self._losing(parent_inode_new, name_new):
            self.daemon.rename(*move)
