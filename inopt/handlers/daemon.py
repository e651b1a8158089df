"""The daemon's own operations as Python functions with pyfuse3's types, for handlers.

Each does exactly what the daemon does when no handler is in between. All are plain functions that
return when the work is done; raises `OSError` for what goes wrong.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

import pyfuse3

from inopt.handlers.calling import current, extensions, nodeid_in, umask
from inopt.handlers.directory import readdir_reply
from inopt.handlers.opened import OpenFiles
from inopt.handlers.types import (
    EntryAttributes,
    StatvfsData,
    entry_of,
    setattr_of,
)
from inopt.ops import Op
from inopt.wire import bodies, kernel_replies, uapi
from inopt.wire.attributes import encode_rdev
from inopt.wire.directory import DOTS

LARGEST_XATTR: Final = 64 << 10
_PAGE: Final = 32 << 10


class Daemon(OpenFiles):
    """The daemon's own operations on one mount."""

    # --- names ---------------------------------------------------------------------------------

    def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """LOOKUP; counts one lookup."""
        return self._entry(self._call(Op.LOOKUP, parent_inode, bodies.Lookup(name), ctx))

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """FORGET: give lookups back that handlers have made; those of the kernel stay."""
        request = current.get()
        made = request.made if request is not None else []
        for inode, count in inode_list:
            for payload in [each for each in made if nodeid_in(each) == inode][:count]:
                made.remove(payload)
            self.context.tree.give_back(inode, count)

    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """MKNOD."""
        device = encode_rdev(os.major(rdev), os.minor(rdev))
        body = bodies.Mknod(name, mode, device, umask(ctx), extensions(ctx))
        return self._entry(self._call(Op.MKNOD, parent_inode, body, ctx))

    def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """MKDIR."""
        body = bodies.Mkdir(name, stat.S_IMODE(mode), umask(ctx), extensions(ctx))
        return self._entry(self._call(Op.MKDIR, parent_inode, body, ctx))

    def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """SYMLINK."""
        body = bodies.Symlink(name, target, extensions(ctx))
        return self._entry(self._call(Op.SYMLINK, parent_inode, body, ctx))

    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """LINK."""
        body = bodies.Link(inode, new_name)
        return self._entry(self._call(Op.LINK, new_parent_inode, body, ctx))

    def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """UNLINK."""
        self._call(Op.UNLINK, parent_inode, bodies.Unlink(name), ctx)

    def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """RMDIR."""
        self._call(Op.RMDIR, parent_inode, bodies.Rmdir(name), ctx)

    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """RENAME, with the flags of renameat2(2)."""
        body = bodies.Rename(parent_inode_new, flags, name_old, name_new)
        self._call(Op.RENAME2, parent_inode_old, body, ctx)

    # --- attributes ----------------------------------------------------------------------------

    def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """GETATTR."""
        return self._attributes(inode, self._call(Op.GETATTR, inode, bodies.Getattr(0, 0), ctx))

    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        """SETATTR."""
        request = current.get()
        like = None
        if request is not None and request.header.nodeid == inode:
            like = request.body if isinstance(request.body, bodies.Setattr) else None
        body = setattr_of(attr, fields, fh, like)
        return self._attributes(inode, self._call(Op.SETATTR, inode, body, ctx))

    def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """READLINK."""
        return self._call(Op.READLINK, inode, bodies.Readlink(), ctx)

    def statfs(self, ctx: pyfuse3.RequestContext) -> StatvfsData:
        """STATFS."""
        request = current.get()
        nodeid = request.header.nodeid if request is not None else uapi.ROOT_ID
        reply = kernel_replies.decode_statfs(self._call(Op.STATFS, nodeid, bodies.Statfs(), ctx))
        status = StatvfsData()
        status.f_bsize = reply.block_size
        status.f_frsize = reply.fragment_size
        status.f_blocks = reply.blocks
        status.f_bfree = reply.blocks_free
        status.f_bavail = reply.blocks_available
        status.f_files = reply.files
        status.f_ffree = reply.files_free
        status.f_favail = reply.files_free
        status.f_namemax = reply.name_length
        return status

    # --- directories ---------------------------------------------------------------------------

    def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """OPENDIR; returns the handle."""
        payload = self._call(Op.OPENDIR, inode, bodies.Open(os.O_RDONLY | os.O_DIRECTORY, 0), ctx)
        return int.from_bytes(payload[:8], "little")

    def entries(self, fh: int, start_id: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
        """The entries of an open directory from *start_id* on: name, attributes, next id.

        Each entry but the dots counts a lookup. `readdir_reply` takes it over where it returns
        True; give back the others.
        """
        directory = self.context.directories.get(fh)
        nodeid, offset = directory.inode.nodeid, start_id
        while True:
            body = bodies.Read(fh, offset, _PAGE, 0, 0, 0)
            page = kernel_replies.decode_dirents_plus(self._call(Op.READDIRPLUS, nodeid, body))
            if not page:
                return
            self.context.tree.table.lend(plus.entry.nodeid for plus in page)
            taken = 0
            try:
                for plus in page:
                    taken += 1
                    entry = plus.entry
                    found = entry_of(
                        entry.attributes, entry.validity, entry.nodeid, entry.generation
                    )
                    if not entry.nodeid:
                        found.st_mode = plus.dirent.type << 12
                        if plus.dirent.name in DOTS:
                            found.st_ino = plus.dirent.inode
                    yield plus.dirent.name, found, plus.dirent.next_offset
                    offset = plus.dirent.next_offset
            finally:
                self.forget([(left.entry.nodeid, 1) for left in page[taken:] if left.entry.nodeid])

    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Give entries from *start_id* on to `readdir_reply`, until it returns False."""
        for name, attributes, next_id in self.entries(fh, start_id):
            is_lookup = name not in DOTS and attributes.st_ino > 0
            if not readdir_reply(token, name, attributes, next_id):
                if is_lookup:
                    self.forget([(attributes.st_ino, 1)])
                return

    def releasedir(self, fh: int) -> None:
        """RELEASEDIR."""
        nodeid = self.context.directories.get(fh).inode.nodeid
        self._call(Op.RELEASEDIR, nodeid, bodies.Release(fh, 0, 0, 0))

    def fsyncdir(self, fh: int, datasync: bool) -> None:
        """FSYNCDIR."""
        nodeid = self.context.directories.get(fh).inode.nodeid
        body = bodies.Fsync(fh, uapi.FSYNC_FDATASYNC if datasync else 0)
        self._call(Op.FSYNCDIR, nodeid, body)

    # --- extended attributes -------------------------------------------------------------------

    def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """GETXATTR."""
        return self._call(Op.GETXATTR, inode, bodies.Getxattr(LARGEST_XATTR, name), ctx)

    def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """LISTXATTR."""
        listed = self._call(Op.LISTXATTR, inode, bodies.Listxattr(LARGEST_XATTR), ctx)
        return listed.split(b"\0")[:-1]

    def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext, flags: int = 0
    ) -> None:
        """SETXATTR, with the flags of setxattr(2)."""
        request = current.get()
        more = 0
        served = request.body if request is not None and request.header.nodeid == inode else None
        if isinstance(served, bodies.Setxattr) and served.name == name:
            flags, more = flags or served.flags, served.setxattr_flags
        self._call(Op.SETXATTR, inode, bodies.Setxattr(name, value, flags, more), ctx)

    def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """REMOVEXATTR."""
        self._call(Op.REMOVEXATTR, inode, bodies.Removexattr(name), ctx)
