"""The inodes of a backing tree that are known, and the descriptors and file handles they have.

An inode is reopened by its file handle; where there are none, it keeps a descriptor.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from inopt import syscalls
from inopt.backing.descriptors import DescriptorCache
from inopt.backing.filesystems import Filesystem, flushes_at_close, mount_descriptor
from inopt.backing.identity import HANDLE_FLAGS, attributes_of, key_of
from inopt.backing.inodes import FOREIGN, ROOT_NODEID, Inode, InodeTable
from inopt.backing.watch.changes import Watch
from inopt.wire.replies import Attributes

# File handles kept for NFS clients after the kernel has forgotten the inode: some 200 bytes each.
_REMEMBERED: Final = 20_000


class KnownInodes:
    """What the kernel knows of one directory and all that is below it.

    Parameters: *source*, the directory; *budget*, how many descriptors the daemon may hold;
    *descriptor*, one of the directory, if it is open already (it is taken over).
    Raises `OSError` if *source* cannot be opened as a directory.
    """

    def __init__(self, source: str, budget: int, descriptor: int = -1) -> None:
        if descriptor < 0:
            descriptor = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        attributes = attributes_of(descriptor)
        root_filesystem = Filesystem(
            attributes.mount_id,
            attributes.dev_major,
            attributes.dev_minor,
            mount_descriptor(descriptor),
        )
        handle = syscalls.name_to_handle(descriptor)[0] if root_filesystem.has_handles else b""
        root = Inode(
            ROOT_NODEID,
            attributes.inode,
            root_filesystem,
            handle,
            descriptor,
            is_directory=True,
        )
        root.lookups = 1
        self.root = root
        self.table = InodeTable(root)
        self.descriptors = DescriptorCache(budget)
        # Held while it is decided by which file an inode is opened.
        self.changing: AbstractContextManager[Any] = nullcontext()
        # Told of each inode that the kernel has forgotten.
        self.dropped: Callable[[Inode], None] | None = None
        self._filesystems = {attributes.mount_id: root_filesystem}
        self._root_key = key_of(attributes)
        self._quiet_mount = -1
        self._forgotten: OrderedDict[int, tuple[bytes, Any]] = OrderedDict()
        # Whether the root's filesystem has file handles (else each known inode costs a descriptor).
        self.has_handles = root_filesystem.has_handles
        # Who notices changes underneath, if anybody does; closed with the tree.
        self.watch: Watch | None = None
        self.flushes_at_close = flushes_at_close(syscalls.filesystem_type(descriptor))

    def close(self) -> None:
        """Close every descriptor. No request may be running."""
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.close()
        for inode in self.table.snapshot():
            if inode.descriptor >= 0:
                os.close(inode.descriptor)
                inode.descriptor = -1
        self.descriptors.close()
        for filesystem in self._filesystems.values():
            filesystem.close()
        if self._quiet_mount >= 0:
            os.close(self._quiet_mount)

    # --- from an inode to a descriptor ---------------------------------------------------------

    def descriptor(self, inode: Inode) -> int:
        """An ``O_PATH`` descriptor of *inode*, good until the present request ends.

        Raises `OSError` ``ESTALE`` if the inode is gone.
        """
        descriptor = inode.descriptor
        if descriptor >= 0:
            return descriptor
        if not inode.is_directory:
            # Not kept: a descriptor would keep the space of a file that is removed underneath.
            descriptor = self._open_handle(inode, HANDLE_FLAGS)
            self.descriptors.retire(descriptor)
            return descriptor
        descriptor = self.descriptors.get(inode.nodeid)
        if descriptor >= 0:
            return descriptor
        return self.descriptors.put(inode.nodeid, self._open_handle(inode, HANDLE_FLAGS))

    def path(self, inode: Inode) -> bytes:
        """A path that leads to *inode* itself, for calls that take no descriptor (proc(5))."""
        return b"/proc/self/fd/%d" % self.descriptor(inode)

    def open(self, inode: Inode, flags: int) -> int:
        """Open *inode* with the flags of open(2); the descriptor is the caller's."""
        if inode.descriptor < 0:
            return self._open_handle(inode, flags | os.O_CLOEXEC)
        return os.open(b"/proc/self/fd/%d" % inode.descriptor, flags & ~os.O_NOFOLLOW)

    def _open_handle(self, inode: Inode, flags: int) -> int:
        try:
            return syscalls.open_by_handle(inode.filesystem.descriptor, inode.handle, flags)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                # ext4 says so for a number that is just being given to another inode.
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from error
            raise

    def leave_access_times(self) -> None:
        """From now on `quiet` descriptors leave access times alone. Raises `OSError`."""
        self._quiet_mount = syscalls.clone_mount(
            self.root.descriptor, syscalls.MOUNT_ATTR_NOATIME, syscalls.MOUNT_ATTR_ATIME
        )

    @contextmanager
    def quiet(self, inode: Inode, descriptor: int) -> Iterator[int]:
        """A descriptor of *inode* for the kernel to open the backing file by.

        Whether reading moves access times is then decided by its mount, not by open flags: so
        with `leave_access_times` it is one on a mount that does not, else *descriptor* itself.
        """
        if self._quiet_mount < 0 or inode.filesystem is not self.root.filesystem:
            yield descriptor
            return
        quiet = syscalls.open_by_handle(self._quiet_mount, inode.handle, HANDLE_FLAGS)
        try:
            yield quiet
        finally:
            os.close(quiet)

    def attributes(self, inode: Inode, descriptor: int = -1) -> Attributes:
        """The attributes of *inode* now; *descriptor*: one of it, if there is one already."""
        return attributes_of(descriptor if descriptor >= 0 else self.descriptor(inode))

    # --- the ends of an inode ------------------------------------------------------------------

    def probe(self, directory: int, name: bytes) -> int:
        """An ``O_PATH`` descriptor of what is about to lose the name *name*; -1 if none has it."""
        try:
            return os.open(name, HANDLE_FLAGS, dir_fd=directory)
        except OSError:
            return -1

    def pin_if_unlinked(self, descriptor: int) -> None:
        """Keep a known inode reachable that has just lost its last name.

        *descriptor* is from `probe`, and is taken over. A file handle is of no use any more once
        the last descriptor is closed, but the kernel may hold the inode open for long.
        """
        if descriptor < 0:
            return
        try:
            attributes = attributes_of(descriptor)
            if attributes.links:
                return
            inode = self.table.find(key_of(attributes))
            if inode is None or inode.descriptor >= 0:
                return
            if syscalls.name_to_handle(descriptor)[0] != inode.handle:
                return
            self._pin(inode, descriptor)
            descriptor = -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _pin(self, inode: Inode, descriptor: int) -> None:
        self.descriptors.held += 1  # without asking: it has been opened already
        inode.descriptor = descriptor

    def unpin(self, inode: Inode) -> None:
        """An inode that has a name again can be reopened by its handle."""
        if inode.handle and inode.descriptor >= 0 and inode is not self.root:
            self._release_descriptor(inode)

    def forget(self, nodeid: int, count: int) -> None:
        """Take back *count* lookups of *nodeid*; the last one frees the inode."""
        inode = self.table.forget(nodeid, count)
        if inode is not None:
            self._free(inode)

    def give_back(self, nodeid: int, count: int) -> None:
        """Like `forget`, of lookups that handlers have made, and of no others."""
        inode = self.table.give_back(nodeid, count)
        if inode is not None:
            self._free(inode)

    def _free(self, inode: Inode) -> None:
        nodeid = inode.nodeid
        if inode.filesystem is self.root.filesystem and inode.handle and nodeid < FOREIGN:
            self._forgotten[nodeid] = (inode.handle, inode.position)
            if len(self._forgotten) > _REMEMBERED:
                self._forgotten.popitem(last=False)
        self._drop(inode)

    def _drop(self, inode: Inode) -> None:
        if inode.attached is not None and self.dropped is not None:
            self.dropped(inode)
        watch = self.watch
        if watch is not None:
            watch.forget(inode)
        self.descriptors.drop(inode.nodeid)
        if inode.descriptor >= 0:
            self._release_descriptor(inode)

    def _release_descriptor(self, inode: Inode) -> None:
        # Another thread may have its number: it is closed like any evicted one.
        descriptor, inode.descriptor = inode.descriptor, -1
        self.descriptors.held -= 1
        self.descriptors.retire(descriptor)
