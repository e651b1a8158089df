"""Fills placeholders from a slow store when they are first opened; from then on they bypass.

A placeholder is a sparse file of the right size with the extended attribute PLACEHOLDER, whose
value is the object's id in the store.
"""

from __future__ import annotations

import errno
import os
from contextlib import aclosing

import structlog
import trio
from store import SlowStore

from inopt import EntryAttributes, FileInfo, FUSEError, Handlers, RequestContext, SetattrFields

PLACEHOLDER = "user.inopt.placeholder"
AT_ONCE = 16
log = structlog.get_logger("hydrate")


class Fetch:
    """A fetch that is going on. ``done`` is set at its end, ``failed`` if it brought nothing."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failed = False


class Hydrate(Handlers):
    """All methods run in trio's one thread, so nothing here needs a lock.

    Each fetch is a task of its own, which all openers of the file wait for: if one of them is
    interrupted, the others still get their file.
    """

    def __init__(self) -> None:
        delay = float(os.environ.get("HYDRATE_DELAY", "0.1"))
        self.store = SlowStore(os.environ.get("HYDRATE_STORE", "/srv/store"), delay)
        self.fetches: dict[int, Fetch] = {}
        self.room = trio.CapacityLimiter(AT_ONCE)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a placeholder, once it is none any more."""
        if flags & os.O_TRUNC and inode not in self.fetches:
            self._give_up_content(inode)
        else:
            await self._hydrate(inode)
        return self.daemon.open(inode, flags, ctx)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change attributes; a size, once there is content that can be cut."""
        if fields.update_size:
            await self._hydrate(inode)
        return self.daemon.setattr(inode, attr, fields, fh, ctx)

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an attribute, but not that which would show somebody another's object."""
        self._require_ours(name)
        self.daemon.setxattr(inode, name, value, ctx)

    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an attribute, but not that without which the content is lost."""
        self._require_ours(name)
        self.daemon.removexattr(inode, name, ctx)

    def _require_ours(self, name: bytes) -> None:
        if name == PLACEHOLDER.encode():
            raise FUSEError(errno.EPERM)

    def _give_up_content(self, inode: int) -> None:
        """The opener truncates: there is nothing to be fetched."""
        if self.backing.getxattr(inode, PLACEHOLDER) is not None:
            self.backing.removexattr(inode, PLACEHOLDER)

    async def _hydrate(self, inode: int) -> None:
        """Wait until a file has its content. Raises `FUSEError` ``EIO`` if it cannot be had."""
        fetch = self.fetches.get(inode)
        if fetch is None:
            name = self.backing.getxattr(inode, PLACEHOLDER)
            if name is None:
                return  # somebody else's fetch has ended between the policy's look and ours
            fetch = self.fetches[inode] = Fetch()
            file = self.backing.open(inode, os.O_RDWR)  # while it is open, the number is its own
            self.session.nursery.start_soon(self._fetch, inode, os.fsdecode(name), file, fetch)
        await fetch.done.wait()
        if fetch.failed:
            raise FUSEError(errno.EIO)

    async def _fetch(self, inode: int, name: str, file: int, fetch: Fetch) -> None:
        """Fetch an object into *file*, which is closed afterwards."""
        said = log.bind(inode=inode, id=name)
        try:
            async with self.room:
                await self._fill(name, file, said)
        except OSError as error:
            fetch.failed = True
            said.warning("not fetched", reason=error.strerror)
        except BaseException:
            fetch.failed = True
            raise
        finally:
            os.close(file)
            del self.fetches[inode]
            fetch.done.set()

    async def _fill(
        self, name: str, file: int, said: structlog.typing.FilteringBoundLogger
    ) -> None:
        status = os.fstat(file)
        began = trio.current_time()
        done = tenth = 0
        said.info("fetching", size=status.st_size)
        async with aclosing(self.store.pieces(name)) as pieces:
            async for piece in pieces:
                if done + len(piece) > status.st_size:
                    raise OSError(errno.EFBIG, "longer than the placeholder")
                await trio.to_thread.run_sync(os.pwrite, file, piece, done)
                done += len(piece)
                if done * 10 // status.st_size > tenth:
                    tenth = done * 10 // status.st_size
                    said.info("fetched", done=done, size=status.st_size, percent=tenth * 10)
        if done < status.st_size:
            raise OSError(errno.ENODATA, "shorter than the placeholder")
        # On disk before it says that it is.
        await trio.to_thread.run_sync(os.fsync, file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.removexattr(file, PLACEHOLDER)
        said.info("hydrated", size=done, seconds=round(trio.current_time() - began, 2))
