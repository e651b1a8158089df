"""Files are stored compressed and look plain: sizes, reading at any offset, writing.

While a file is open for writing it is plain underneath, too; it is compressed at its last close.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from packing import Packing, State

from inopt import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    Handlers,
    RequestContext,
    SessionReach,
    SetattrFields,
    readdir_reply,
)


class PlainZstd(Handlers):
    """All methods are plain functions, in several threads at once: they compute."""

    async def started(self, session: SessionReach) -> None:  # noqa: ARG002 - the same is in `self`
        """Nothing is packed or unpacked before it is asked for."""
        self.packing = Packing(self.backing)

    def _shown(self, attr: EntryAttributes) -> EntryAttributes:
        """The attributes with the plain size; blocks are those that are used."""
        if not stat.S_ISREG(attr.st_mode):
            return attr
        with self.packing.held(attr.st_ino) as state:
            shown = self.backing.stat(attr.st_ino)  # again: it was not held before
            frames = self.packing.frames(attr.st_ino, state)
            if frames is not None:
                shown.st_size = frames.size
        return shown

    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Look a name up."""
        return self._shown(self.daemon.lookup(parent_inode, name, ctx))

    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Tell the attributes."""
        return self._shown(self.daemon.getattr(inode, ctx))

    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Give another name."""
        return self._shown(self.daemon.link(inode, new_parent_inode, new_name, ctx))

    def readdir(self, fh: int, start_id: int, token: Any) -> None:
        """List a directory: with plain sizes, where attributes are asked for."""
        if not token.plus:
            self.daemon.readdir(fh, start_id, token)
            return
        for name, attr, next_id in self.daemon.entries(fh, start_id):
            counted = name not in (b".", b"..") and attr.st_ino
            shown = attr
            if counted and self.session.plan(attr.st_ino)["getattr"] == "handler":
                shown = self._shown(attr)
            if not readdir_reply(token, name, shown, next_id):
                if counted:
                    self.daemon.forget([(attr.st_ino, 1)])
                return

    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes; for another size, unpack and pack again."""
        if not fields.update_size:
            return self._shown(self.daemon.setattr(inode, attr, fields, fh, ctx))
        with self.packing.held(inode) as state:
            self.packing.unpack(inode, state)
            try:
                changed = self.daemon.setattr(inode, attr, fields, fh, ctx)
            finally:
                if not state.writers:
                    self.packing.pack(inode, state)
            return self._shown(changed)

    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open; for writing, unpack."""
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return self.daemon.open(inode, flags, ctx)
        with self.packing.held(inode) as state:
            if not flags & os.O_TRUNC:
                self.packing.unpack(inode, state)
            try:
                info = self.daemon.open(inode, flags, ctx)
            except BaseException:
                if not state.writers:
                    self.packing.pack(inode, state)
                raise
            self._add_writer(info, state)
        return info

    def _add_writer(self, info: FileInfo, state: State) -> None:
        self.backing.open_state(info.fh)["writes"] = True
        state.writers += 1

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it."""
        return self._made(self.daemon.create(parent_inode, name, mode, flags, ctx))

    def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file that has no name yet."""
        return self._made(self.daemon.tmpfile(parent_inode, mode, flags, ctx))

    def _made(self, made: tuple[FileInfo, EntryAttributes]) -> tuple[FileInfo, EntryAttributes]:
        info, attr = made
        with self.packing.held(attr.st_ino) as state:
            self._add_writer(info, state)
        return made

    def read(self, fh: int, off: int, size: int) -> bytes:
        """Read from the frames that hold it."""
        inode = self.backing.inode_of(fh)
        with self.packing.held(inode) as state:
            frames = self.packing.frames(inode, state)
            if frames is None:
                return self.daemon.read(fh, off, size)
            pieces = []
            end = min(off + size, frames.size)
            while off < end:
                number = frames.at(off)
                begin = frames.plain[number]
                piece = self.packing.frame(fh, number, frames)[off - begin : end - begin]
                pieces.append(piece)
                off += len(piece)
        return b"".join(pieces)

    def lseek(self, fh: int, offset: int, whence: int) -> int:
        """Find data and holes: what is compressed is all data."""
        inode = self.backing.inode_of(fh)
        with self.packing.held(inode) as state:
            frames = self.packing.frames(inode, state)
            if frames is None:
                return self.daemon.lseek(fh, offset, whence)
        if offset >= frames.size:
            raise FUSEError(errno.ENXIO)
        return offset if whence == os.SEEK_DATA else frames.size

    def release(self, fh: int) -> None:
        """Close; after the last that may have written, pack."""
        try:
            if "writes" in self.backing.open_state(fh):
                inode = self.backing.inode_of(fh)
                with self.packing.held(inode) as state:
                    state.writers -= 1
                    if not state.writers:
                        self.packing.pack(inode, state)
        finally:
            self.daemon.release(fh)
