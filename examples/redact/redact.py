"""Masks card numbers and e-mail addresses in what is read, for all but one group.

Each match is replaced by as many asterisks, so sizes and offsets hold. What the mask hides is
a function of the file's content alone, whatever part of it is read: a byte is hidden if any
possible match, begun at any byte, covers it.
"""

from __future__ import annotations

import errno
import grp
import os
import re

from inopt import EntryAttributes, FileInfo, FUSEError, Handlers, RequestContext, SetattrFields

# Each with the length of its longest match, which is how far around a read one has to look.
CARD = rb"\d(?:[ -]?\d){12,18}", 37
EMAIL = rb"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,3}", 64 + 1 + 63 + 3 * 64
PATTERNS = tuple(re.compile(b"(?=(" + pattern + b"))") for pattern, _ in (CARD, EMAIL))
MARGIN = max(length for _, length in (CARD, EMAIL))


def masked(content: bytes) -> bytes:
    """*content* with asterisks for all that a pattern matches."""
    shown = bytearray(content)
    for pattern in PATTERNS:
        hidden = 0  # up to here it has been masked already
        for found in pattern.finditer(content):
            begin, end = max(found.start(1), hidden), found.end(1)
            if end > begin:
                shown[begin:end] = b"*" * (end - begin)
                hidden = end
    return bytes(shown)


def group_id(name: str) -> int:
    """The number of a group, given by name or number."""
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid


class Redact(Handlers):
    """Members of one group read and write these files; all others read them, masked.

    All who have a file open share its page cache, so what fills the page cache is masked, whoever
    reads. Members get around it: their opens are ``direct_io``, and what such an open reads is for
    this one caller. A mapping is made of cached pages, hence masked for members, too.
    """

    def __init__(self) -> None:
        self.group = group_id(os.environ.get("REDACT_GROUP", "adm"))

    def _is_member(self, ctx: RequestContext) -> bool:
        return self.group in self.session.caller(ctx).groups

    def _require_member(self, ctx: RequestContext) -> None:
        if not self._is_member(ctx):
            raise FUSEError(errno.EACCES)

    def _remember(self, info: FileInfo, ctx: RequestContext) -> FileInfo:
        if self._is_member(ctx):
            self.backing.open_state(info.fh)["member"] = True
            info.direct_io = True
        return info

    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open; for writing, as a member only."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._require_member(ctx)
        return self._remember(self.daemon.open(inode, flags, ctx), ctx)

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file, as a member only: what others write would be in the page cache."""
        self._require_member(ctx)
        info, attributes = self.daemon.create(parent_inode, name, mode, flags, ctx)
        return self._remember(info, ctx), attributes

    def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file that has no name yet; like `create`."""
        self._require_member(ctx)
        info, attributes = self.daemon.tmpfile(parent_inode, mode, flags, ctx)
        return self._remember(info, ctx), attributes

    def read(self, fh: int, off: int, size: int) -> bytes:
        """Read, masked unless it is for a member alone."""
        request = self.session.request()
        if request is not None and not request.page_cache and self._sees_all(fh):
            return self.daemon.read(fh, off, size)
        # A match that reaches into this part begins at most so far before it.
        before = min(off, MARGIN)
        content = self.daemon.read(fh, off - before, before + size + MARGIN)
        return masked(content)[before : before + size]

    def _sees_all(self, fh: int) -> bool:
        return "member" in self.backing.open_state(fh)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write (only members have such opens); what is cached around it may have another mask."""
        written = self.daemon.write(fh, off, buf)
        await self.session.invalidate_inode(self.backing.inode_of(fh))
        return written

    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        """Allocate or punch; see `write`."""
        self.daemon.fallocate(fh, mode, offset, length)
        await self.session.invalidate_inode(self.backing.inode_of(fh))

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes; the size, as a member only."""
        if not fields.update_size:
            return self.daemon.setattr(inode, attr, fields, fh, ctx)
        self._require_member(ctx)
        changed = self.daemon.setattr(inode, attr, fields, fh, ctx)
        await self.session.invalidate_inode(inode)
        return changed
