"""`Handlers`: subclass it, override what is not to bypass; all else serves the backing tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyfuse3

from inopt.handlers.types import (
    EntryAttributes,
    FileInfo,
    Lock,
    PollHandle,
    StatvfsData,
)

if TYPE_CHECKING:
    from inopt.handlers.daemon import Daemon
    from inopt.handlers.reach import Backing, SessionReach


class Handlers(pyfuse3.Operations):
    """A filesystem over a backing tree, of which a subclass overrides what it wants.

    Every method does by default what the daemon does when no handler is in between, so
    ``await super().open(...)`` works everywhere. A method may be ``async def``, and is then a
    trio task of its own; or a plain ``def``, which runs in the thread that reads requests, faster,
    and must not wait for anything: in one, call ``self.daemon.open(...)`` instead of ``super()``.

    Inodes are numbers, file handles are those that `open`, `create` and `opendir` of this class
    return. ``ctx`` tells who asks. A method answers with an error by raising `FUSEError` or any
    `OSError`.

    ``daemon``: the default operations as plain functions. ``backing``: the tree underneath.
    ``session``: the mount. They are there from `started` on.
    """

    for_any_policy: ClassVar[bool] = False
    """Whether a policy may well route but some of what the class overrides; else it is warned."""

    daemon: Daemon
    backing: Backing
    session: SessionReach

    async def started(self, session: SessionReach) -> None:
        """The mount is there, and no request has been served yet.

        ``session.nursery`` runs background tasks until the mount ends.
        """

    async def stopped(self) -> None:
        """The mount is gone; nothing will be asked any more."""

    # --- names ---------------------------------------------------------------------------------

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """What *name* is in a directory; counts one lookup of it."""
        return self.daemon.lookup(parent_inode, name, ctx)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel drops lookups: (inode, count). They go when this has ended, also if it fails.

        Called from elsewhere, it gives back lookups that the handlers themselves have made.
        """
        self.daemon.forget(inode_list)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """Make a file, fifo, socket or device; counts one lookup."""
        return self.daemon.mknod(parent_inode, name, mode, rdev, ctx)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """Make a directory; counts one lookup."""
        return self.daemon.mkdir(parent_inode, name, mode, ctx)

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """Make a symbolic link; counts one lookup."""
        return self.daemon.symlink(parent_inode, name, target, ctx)

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        """Give an inode another name; counts one lookup."""
        return self.daemon.link(inode, new_parent_inode, new_name, ctx)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name that is no directory's."""
        self.daemon.unlink(parent_inode, name, ctx)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty directory."""
        self.daemon.rmdir(parent_inode, name, ctx)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Move a name, with the flags of renameat2(2)."""
        self.daemon.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    # --- open files ----------------------------------------------------------------------------

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a regular file and open it; counts one lookup."""
        return self.daemon.create(parent_inode, name, mode, flags, ctx)

    async def tmpfile(
        self, parent_inode: int, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a regular file without a name and open it; counts one lookup."""
        return self.daemon.tmpfile(parent_inode, mode, flags, ctx)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """Open a file; returns its handle, and whether the open is to bypass."""
        return self.daemon.open(inode, flags, ctx)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read up to *size* bytes at *off*; fewer only at the end of the file."""
        return self.daemon.read(fh, off, size)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write *buf* at *off*; returns how many bytes."""
        return self.daemon.write(fh, off, buf)

    async def flush(self, fh: int) -> None:
        """A descriptor of an open file is closed."""
        self.daemon.flush(fh)

    async def release(self, fh: int) -> None:
        """The last descriptor of an open file is closed."""
        self.daemon.release(fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Bring a file to stable storage; with *datasync*, only what is needed to read it."""
        self.daemon.fsync(fh, datasync)

    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        """Find data or a hole (``SEEK_DATA``, ``SEEK_HOLE``) from *offset* on."""
        return self.daemon.lseek(fh, offset, whence)

    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        """Allocate, punch or zero a range of bytes, with the modes of fallocate(2)."""
        self.daemon.fallocate(fh, mode, offset, length)

    async def copy_file_range(
        self, fh_in: int, off_in: int, fh_out: int, off_out: int, length: int, flags: int
    ) -> int:
        """Copy bytes from one open file to another; returns how many."""
        return self.daemon.copy_file_range(fh_in, off_in, fh_out, off_out, length, flags)

    async def ioctl(
        self, inode: int, fh: int, command: int, flags: int, data: bytes, output_size: int
    ) -> bytes:
        """An ioctl(2) whose arguments tell their size; returns up to *output_size* bytes."""
        return self.daemon.ioctl(inode, fh, command, flags, data, output_size)

    async def poll(
        self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: pyfuse3.RequestContext
    ) -> int:
        """Which events of poll(2) are there now; those wait who are to be woken by *poll_handle*.

        Whoever has got a handle may call its ``notify()`` later, once, from any thread, and the
        kernel asks again. ``session.request().events`` are those that are waited for. The daemon
        says that a file is always ready.
        """
        return self.daemon.poll(inode, fh, poll_handle, ctx)

    # --- locks ---------------------------------------------------------------------------------

    async def getlk(self, fh: int, lock: Lock, ctx: pyfuse3.RequestContext) -> Lock | None:
        """A lock that keeps the caller from getting *lock*; None if nothing does."""
        return self.daemon.getlk(fh, lock, ctx)

    async def setlk(self, fh: int, lock: Lock, wait: bool, ctx: pyfuse3.RequestContext) -> None:
        """Take a lock on a range of bytes, change it, or give it back; ``EAGAIN`` if it is taken.

        With *wait* the caller is one who waits: after ``EAGAIN`` it is asked again, when locks of
        the file have been given back, and now and then. Locks that end with a close(2) come as
        ``F_UNLCK``, too.
        """
        self.daemon.setlk(fh, lock, wait, ctx)

    async def flock(self, fh: int, operation: int, ctx: pyfuse3.RequestContext) -> None:
        """flock(2): ``LOCK_SH``, ``LOCK_EX`` or ``LOCK_UN``, with ``LOCK_NB`` if nobody waits.

        ``EAGAIN`` if it is taken: who waits is asked for again, as with `setlk`.
        """
        self.daemon.flock(fh, operation, ctx)

    # --- attributes ----------------------------------------------------------------------------

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        """The attributes of an inode; statx(2) asks here, too."""
        return self.daemon.getattr(inode, ctx)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        """Change what *fields* names to what *attr* says; returns all attributes."""
        return self.daemon.setattr(inode, attr, fields, fh, ctx)

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """The target of a symbolic link."""
        return self.daemon.readlink(inode, ctx)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> StatvfsData:
        """Numbers of the filesystem."""
        return self.daemon.statfs(ctx)

    # --- directories ---------------------------------------------------------------------------

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory; returns its handle."""
        return self.daemon.opendir(inode, ctx)

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        """Give entries from *start_id* on to `readdir_reply`, until it returns False."""
        self.daemon.readdir(fh, start_id, token)

    async def releasedir(self, fh: int) -> None:
        """The last descriptor of an open directory is closed."""
        self.daemon.releasedir(fh)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Bring a directory to stable storage."""
        self.daemon.fsyncdir(fh, datasync)

    # --- extended attributes -------------------------------------------------------------------

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """The value of an extended attribute; ``ENODATA`` if there is none."""
        return self.daemon.getxattr(inode, name, ctx)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """The names of the extended attributes."""
        return self.daemon.listxattr(inode, ctx)

    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        """Set an extended attribute."""
        self.daemon.setxattr(inode, name, value, ctx)

    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an extended attribute."""
        self.daemon.removexattr(inode, name, ctx)
