"""Limits of bytes and files for directories, enforced as files are written and made.

What is used is found out once, when the mount begins, and counted from then on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ledger import Area, key_of
from names import CountedNames

from inopt import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

KEEP_SIZE, PUNCH_HOLE = 1, 2  # fallocate(2)


class Quota(CountedNames):
    """Counts bytes: the sizes of files. See `CountedNames` for the rest."""

    @contextmanager
    def _counted(self, inode: int) -> Iterator[tuple[Area | None, int]]:
        """In the body an inode's size may change. Yields its area and its size."""
        with self.lock, self._at(inode) as descriptor:
            before = os.fstat(descriptor)
            area = self.ledger.areas.get(key_of(before))
            try:
                yield area, before.st_size
            finally:
                if area is not None:
                    area.count(os.fstat(descriptor).st_size - before.st_size, 0)

    def _fitting(self, area: Area | None, size: int, offset: int, length: int) -> int:
        """How many of *length* bytes at *offset* fit. Raises ``EDQUOT`` if none does."""
        if area is None or offset + length <= size:
            return length
        fitting = size + max(area.room(), 0) - offset
        if fitting <= 0:
            raise FUSEError(errno.EDQUOT)
        return min(length, fitting)

    def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write as much as fits."""
        request = self.session.request()
        with self._counted(self.backing.inode_of(fh)) as (area, size):
            offset = size if request is not None and request.appends else off
            fitting = self._fitting(area, size, offset, len(buf))
            return self.daemon.write(fh, off, buf[:fitting])

    def copy_file_range(
        self, fh_in: int, off_in: int, fh_out: int, off_out: int, length: int, flags: int
    ) -> int:
        """Copy as much as fits."""
        with self._counted(self.backing.inode_of(fh_out)) as (area, size):
            fitting = self._fitting(area, size, off_out, length)
            return self.daemon.copy_file_range(fh_in, off_in, fh_out, off_out, fitting, flags)

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        """Allocate; not beyond the end of the file, where it would not be counted."""
        with self._counted(self.backing.inode_of(fh)) as (area, size):
            beyond = max(offset + length - size, 0)
            if area is not None and beyond and not mode & PUNCH_HOLE:
                if mode & KEEP_SIZE:
                    raise FUSEError(errno.EOPNOTSUPP)
                area.require(beyond, 0)
            self.daemon.fallocate(fh, mode, offset, length)

    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes, the size within the limit."""
        if not fields.update_size:
            return self.daemon.setattr(inode, attr, fields, fh, ctx)
        with self._counted(inode) as (area, size):
            if area is not None and attr.st_size > size:
                area.require(attr.st_size - size, 0)
            return self.daemon.setattr(inode, attr, fields, fh, ctx)

    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open, and perhaps truncate."""
        with self._counted(inode) as (area, _):
            info = self.daemon.open(inode, flags, ctx)
            self._opened(info, inode, area)
        return info

    def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Tell of the limits, in a directory that has some."""
        status = self.daemon.statfs(ctx)
        request = self.session.request()
        area = self._area(request.inode) if request is not None else None
        if area is None:
            return status
        unit = status.f_frsize or status.f_bsize
        room, files = max(area.room(), 0), max(area.free_files(), 0)
        status.f_bfree = status.f_bavail = min(status.f_bavail, room // unit)
        status.f_blocks = min(status.f_blocks, status.f_bfree + -(-area.bytes // unit))
        status.f_ffree = status.f_favail = min(status.f_favail, files)
        status.f_files = min(status.f_files, status.f_ffree + area.files)
        return status
