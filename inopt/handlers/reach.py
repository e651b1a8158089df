"""What a handler can reach beside its method's arguments: the tree underneath, and the mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pyfuse3
import trio

from inopt.backing.caller import acting_as, groups_of
from inopt.backing.inodes import Inode
from inopt.handlers.calling import Request, current
from inopt.handlers.failures import fail
from inopt.handlers.serve import Context
from inopt.handlers.types import EntryAttributes, entry_of
from inopt.kernel.device import Device
from inopt.layers.standing import standing_of
from inopt.layers.tree import LayeredTree
from inopt.ops import Op
from inopt.policy.callers import Caller
from inopt.policy.plan import HANDLER, KERNEL
from inopt.policy.words import SLOTS, slot_name
from inopt.wire import bodies, notifications, uapi
from inopt.wire.directory import DOTS


class Backing:
    """The backing tree, by inode number or by file handle; nothing is resolved by path.

    Descriptors that are returned belong to the caller, who closes them.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._use = context.tree.descriptors.use

    def _inode(self, inode: int) -> Inode:
        return self._context.tree.table.get(inode)

    def open(self, inode: int, flags: int = os.O_RDONLY) -> int:
        """A new descriptor of an inode, opened with the flags of open(2). Raises `OSError`."""
        with self._use():
            return self._context.tree.open(self._inode(inode), flags | os.O_CLOEXEC)

    def open_beneath(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> int:
        """A new descriptor of *name* in a directory; a symbolic link is not followed."""
        if b"/" in name or name in (b"", *DOTS):
            fail(errno.EINVAL)
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            return os.open(name, flags, mode, dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def duplicate(self, fh: int) -> int:
        """A new descriptor of an open file, with its access mode."""
        with self._use():
            return os.dup(self._context.files.get(fh).fileno(self._context.tree))

    def inode_of(self, fh: int) -> int:
        """The inode of an open file. Raises `OSError` ``EBADF``."""
        return self._context.files.get(fh).inode.nodeid

    def stat(self, inode: int) -> EntryAttributes:
        """The attributes of an inode now, with the mount's cache times."""
        found = self._inode(inode)
        with self._use():
            attributes = self._context.tree.attributes(found)
        validity = self._context.validity_of(found, attributes)
        return entry_of(attributes, validity, found.nodeid, found.generation)

    def number(self, inode: int) -> int:
        """The inode number that programs see: ``st_ino`` of the mount, mostly the inode itself."""
        return self._inode(inode).number

    def getxattr(self, inode: int, name: str) -> bytes | None:
        """The value of an extended attribute, None if there is none."""
        with self._use():
            return self._context.placement.reader(self._inode(inode))(name)

    def setxattr(self, inode: int, name: str, value: bytes) -> None:
        """Set an extended attribute, as the daemon's own user."""
        with self._use():
            os.setxattr(self._context.tree.path(self._inode(inode)), name, value)

    def removexattr(self, inode: int, name: str) -> None:
        """Remove an extended attribute; ``ENODATA`` if there is none."""
        with self._use():
            os.removexattr(self._context.tree.path(self._inode(inode)), name)

    def location(self, inode: int) -> bytes:
        """Where an inode is at this moment, from the root, for people: nothing may depend on it.

        Raises `OSError` ``ESTALE`` where that cannot be told.
        """
        with self._use():
            return b"/" + b"/".join(self._context.tree.location(self._inode(inode)))

    def layer(self, inode: int) -> str | None:
        """The directory of an overlay's layer that an inode is in now; None if there are no layers.

        A lower one means: the first change copies it up.
        """
        tree = self._context.tree
        return standing_of(self._inode(inode)).layer.path if isinstance(tree, LayeredTree) else None

    @contextmanager
    def acting_as(self, ctx: pyfuse3.RequestContext) -> Iterator[None]:
        """In the body, this thread's system calls are those of the caller. Do not wait in it."""
        groups = groups_of(ctx.pid) if ctx.uid else ()
        with acting_as(ctx.uid, ctx.gid, groups):
            yield

    def inode_state(self, inode: int) -> dict[str, Any]:
        """A dict for the handler's own use, dropped with the inode."""
        found = self._inode(inode)
        if found.user is None:
            found.user = {}
        state: dict[str, Any] = found.user
        return state

    def open_state(self, fh: int) -> dict[str, Any]:
        """A dict for the handler's own use, dropped when the open file is closed."""
        file = self._context.files.get(fh)
        if file.user is None:
            file.user = {}
        state: dict[str, Any] = file.user
        return state


class RequestInfo(msgspec.Struct, frozen=True):
    """The request that a handler is serving.

    ``inode`` is the one it names first (for names, the directory). ``page_cache``: a READ is to
    fill the kernel's page cache, which all openers share, or a WRITE comes from it; else it is for
    the one caller alone. ``appends``: a WRITE of an open that appends. ``events``: of poll(2),
    that somebody waits for. ``lock_owner``: a `Lock.owner`, whose locks end with this FLUSH.
    """

    opcode: Op
    inode: int
    uid: int
    gid: int
    pid: int
    page_cache: bool = False
    appends: bool = False
    events: int = 0
    lock_owner: int = 0


def _info_of(request: Request) -> RequestInfo:
    header, body = request.header, request.body
    page_cache = appends = False
    events = lock_owner = 0
    if isinstance(body, bodies.Read):
        page_cache = not body.read_flags & uapi.READ_LOCKOWNER
    elif isinstance(body, bodies.Write):
        page_cache = bool(body.write_flags & uapi.WRITE_CACHE)
        appends = bool(body.flags & os.O_APPEND)
    elif isinstance(body, bodies.Poll):
        events = body.events
    elif isinstance(body, bodies.Flush):
        lock_owner = body.lock_owner
    return RequestInfo(
        Op(header.opcode),
        header.nodeid,
        header.uid,
        header.gid,
        header.pid,
        page_cache,
        appends,
        events,
        lock_owner,
    )


class SessionReach:
    """The mount as handlers see it. Notifications must not be sent from a plain ``def`` method.

    ``nursery`` runs background tasks until the mount ends. ``runtime_directory`` is where control
    socket and log are by default: root's alone, and empty after a reboot.
    """

    def __init__(
        self,
        context: Context,
        device: Device,
        nursery: trio.Nursery,
        stats: Callable[[], dict[str, Any]],
        mountpoint: str,
        runtime_directory: str,
    ) -> None:
        self._context = context
        self._device = device
        self.nursery = nursery
        self.stats = stats
        self.mountpoint = mountpoint
        self.runtime_directory = runtime_directory

    def request(self) -> RequestInfo | None:
        """The request that is being served here; None outside of one."""
        request = current.get()
        return None if request is None else _info_of(request)

    def caller(self, ctx: pyfuse3.RequestContext | RequestInfo) -> Caller:
        """What the system knows of the caller: groups, program, command name, control group."""
        return Caller(ctx.uid, ctx.gid, ctx.pid)

    async def _tell(self, message: bytes) -> bool:
        # In a thread: the kernel may wait for a page that only this loop can bring.
        return await trio.to_thread.run_sync(self._device.notify, message)

    async def invalidate_inode(self, inode: int, *, attributes_only: bool = False) -> bool:
        """Make the kernel drop what it remembers of an inode; False if it remembers nothing."""
        return await self._tell(
            notifications.invalidate_inode(inode, -1 if attributes_only else 0, 0)
        )

    async def invalidate_entry(self, parent: int, name: bytes, deleted: int = 0) -> bool:
        """Make the kernel drop a name; with *deleted*, its inode, tell that it was removed."""
        if deleted:
            return await self._tell(notifications.delete(parent, deleted, name))
        return await self._tell(notifications.invalidate_entry(parent, name))

    async def expire_entry(self, parent: int, name: bytes) -> bool:
        """Make the kernel look a name up again when it is next used (Linux 6.2)."""
        return await self._tell(notifications.invalidate_entry(parent, name, uapi.EXPIRE_ONLY))

    async def store(self, inode: int, offset: int, data: bytes) -> bool:
        """Put data into the kernel's cache of an inode."""
        return await self._tell(notifications.store(inode, offset, data))

    def plan(self, inode: int) -> dict[str, str]:
        """Who serves what on an inode: kernel, daemon, handler, deny; caller: it depends."""
        with self._context.tree.descriptors.use():
            plan = self._context.placement.plan(self._context.tree.table.get(inode))
        names = {HANDLER: "handler", KERNEL: "kernel", 0: "daemon"}
        return {
            slot_name(slot): "deny"
            if plan.codes[slot] > 0
            else names.get(plan.codes[slot], "caller")
            for slot in SLOTS
        }

    def stop_bypassing(self, inode: int) -> None:
        """From the next open on that finds the inode not open, its opens do not bypass.

        Those of an inode that the kernel has the backing file of (tier inode) do, until the kernel
        has forgotten it.
        """
        self._context.tree.table.get(inode).never_bypass = True

    def bypass_again(self, inode: int) -> None:
        """Take `stop_bypassing` back."""
        self._context.tree.table.get(inode).never_bypass = False
