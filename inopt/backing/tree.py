"""The backing tree: every step is one name beneath a directory descriptor, nothing else.

Paths are never built. An inode is reopened by its file handle; symbolic links are returned, never
followed; ``..`` is only answered after walking up to the root. So nothing outside the root can be
reached, whatever is renamed or replaced underneath meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Final

from inopt import syscalls
from inopt.backing.descriptors import DescriptorCache
from inopt.backing.filesystems import Filesystem, flushes_at_close, mount_descriptor
from inopt.backing.inodes import FOREIGN, ROOT_NODEID, Inode, InodeTable, Key, inode_number_of
from inopt.backing.watch.changes import Watch
from inopt.wire.directory import DOTS
from inopt.wire.replies import Attributes

HANDLE_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# File handles kept for NFS clients after the kernel has forgotten the inode: some 200 bytes each.
_REMEMBERED: Final = 20_000
_BTIME: Final = syscalls.STATX_BTIME


def attributes_of(descriptor: int, name: bytes = b"") -> Attributes:
    """The attributes of an open inode, or of a name beneath it (a link is not followed)."""
    (
        mask, block_size, attributes, links, user, group, mode, inode, size, blocks,
        attributes_mask, atime, atime_ns, btime, btime_ns, ctime, ctime_ns, mtime, mtime_ns,
        rdev_major, rdev_minor, dev_major, dev_minor, mount_id,
    ) = syscalls.statx(descriptor, name)  # fmt: skip
    return Attributes(
        inode, size, blocks, atime, mtime, ctime, btime, atime_ns, mtime_ns, ctime_ns, btime_ns,
        mode, links, user, group, rdev_major, rdev_minor, block_size, bool(mask & _BTIME),
        attributes, attributes_mask, dev_major, dev_minor, mount_id,
    )  # fmt: skip


def key_of(attributes: Attributes) -> Key:
    """What tells a backing inode from all others of this moment."""
    return (
        attributes.mount_id,
        attributes.dev_major,
        attributes.dev_minor,
        attributes.inode,
    )


def identify(directory: int, name: bytes) -> tuple[bytes, Attributes] | None:
    """The file handle and the attributes of a name; None where only a descriptor can tell.

    The name may be given to another inode between the two calls. So the handle comes first, and
    counts only if it tells its inode number and that is the one of the attributes: then the worst
    is a handle of an inode that is gone, which answers ``ESTALE`` when it is used.
    """
    try:
        handle = syscalls.name_to_handle(directory, name)[0]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    attributes = attributes_of(directory, name)
    return (handle, attributes) if inode_number_of(handle) == attributes.inode else None


class Tree:
    """One directory and all that is below it.

    Parameters: *source*, the directory; *budget*, how many descriptors the daemon may hold;
    *descriptor*, one of the directory, if it is open already (it is taken over).
    Raises `OSError` if *source* cannot be opened as a directory.
    """

    has_layers: ClassVar[bool] = False
    """Whether several directories are seen as one."""

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

    # --- from a name to an inode ---------------------------------------------------------------

    def resolve(self, parent: Inode, name: bytes) -> tuple[Inode, Attributes]:
        """Look *name* up in *parent*, and count the lookup."""
        if name in DOTS:
            return self._resolve_dots(parent, name)
        watch = self.watch
        if watch is not None:
            watch.approach(parent)
        return self.resolve_at(self.descriptor(parent), name)

    def resolve_at(self, directory: int, name: bytes) -> tuple[Inode, Attributes]:
        """Look *name* (not a dot) up beneath a directory's descriptor, and count the lookup."""
        if self.has_handles:
            found = self._resolve_by_name(directory, name)
            if found is not None:
                return found
        return self.adopt(os.open(name, HANDLE_FLAGS, dir_fd=directory))

    def _resolve_by_name(self, directory: int, name: bytes) -> tuple[Inode, Attributes] | None:
        """Look up without opening; None where only a descriptor can tell."""
        identity = identify(directory, name)
        if identity is None:
            return None
        handle, attributes = identity
        known = self.watch is None or handle in (self.table.by_handle or ())
        filesystem = self._filesystems.get(attributes.mount_id)
        if filesystem is None:
            return None
        key = key_of(attributes)
        if key == self._root_key:
            return None
        is_directory = stat.S_ISDIR(attributes.mode)
        inode, new = self.table.adopt(key, filesystem, handle, -1, is_directory=is_directory)
        if not known or (new and self.watch is not None):
            attributes = self._read_again(inode, directory, name)
            if key_of(attributes) != key:
                self.forget(inode.nodeid, 1)
                return None
        return inode, attributes

    def _read_again(self, inode: Inode, descriptor: int, name: bytes = b"") -> Attributes:
        """The attributes of an inode that the watch has not known before.

        A change after the first reading went past it; one after this will not.
        """
        try:
            return attributes_of(descriptor, name)
        except OSError:
            self.forget(inode.nodeid, 1)
            raise

    def adopt(self, descriptor: int) -> tuple[Inode, Attributes]:
        """Count a lookup of what *descriptor* (``O_PATH``) is; the descriptor is taken over."""
        try:
            attributes = attributes_of(descriptor)
            inode = self._adopt(descriptor, attributes)
            if self.watch is not None:
                attributes = self._read_again(inode, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if inode.descriptor < 0 and inode.is_directory:
            self.descriptors.put(inode.nodeid, descriptor)
        elif inode.descriptor != descriptor:
            os.close(descriptor)
        return inode, attributes

    def adopt_open(self, descriptor: int) -> tuple[Inode, Attributes]:
        """Count a lookup of an inode just created; the descriptor stays the caller's.

        An inode without a name (``O_TMPFILE``) is pinned.
        """
        attributes = attributes_of(descriptor)
        if self.has_handles and attributes.links:
            inode = self._adopt(descriptor, attributes)
            if self.watch is not None:
                attributes = self._read_again(inode, descriptor)
            return inode, attributes
        path_only = os.open(f"/proc/self/fd/{descriptor}", os.O_PATH | os.O_CLOEXEC)
        try:
            inode = self._adopt(path_only, attributes)
            if inode.descriptor < 0 and not attributes.links:
                self._pin(inode, path_only)
        except BaseException:
            os.close(path_only)
            raise
        if inode.descriptor != path_only:
            os.close(path_only)
        return inode, attributes

    def _adopt(self, descriptor: int, attributes: Attributes) -> Inode:
        filesystem = self._filesystems.get(attributes.mount_id)
        if filesystem is None:
            filesystem = self._enter(descriptor, attributes)
        handle = b""
        if filesystem.descriptor >= 0:
            try:
                handle = syscalls.name_to_handle(descriptor)[0]
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EOVERFLOW):
                    raise
        key = key_of(attributes)
        if key == self._root_key:
            return self.root
        inode, new = self.table.adopt(
            key, filesystem, handle, descriptor, is_directory=stat.S_ISDIR(attributes.mode)
        )
        if new and inode.descriptor >= 0:
            try:
                self.descriptors.hold()
            except OSError:
                inode.descriptor = -1
                self.table.forget(inode.nodeid, 1)
                raise
        return inode

    def _enter(self, descriptor: int, attributes: Attributes) -> Filesystem:
        """Meet another mount below the root."""
        filesystem = Filesystem(
            attributes.mount_id,
            attributes.dev_major,
            attributes.dev_minor,
            mount_descriptor(descriptor),
        )
        present = self._filesystems.setdefault(attributes.mount_id, filesystem)
        if present is not filesystem:
            filesystem.close()
        return present

    def _resolve_dots(self, parent: Inode, name: bytes) -> tuple[Inode, Attributes]:
        """``.`` and ``..`` are only asked for by an NFS server that has lost its dentries."""
        if name == b"." or parent is self.root:
            if parent is not self.root:
                self.table.count_again(parent)
            return parent, self.attributes(parent)
        above = os.open(b"..", HANDLE_FLAGS, dir_fd=self.descriptor(parent))
        try:
            self._require_below_root(above)
        except BaseException:
            os.close(above)
            raise
        return self.adopt(above)

    def revive(self, nodeid: int) -> tuple[Inode, Attributes]:
        """Count a lookup of an inode that the kernel has forgotten and an NFS client has not.

        Only what has been reached from the root before: a made-up number leads nowhere. Raises
        `OSError` ``ESTALE``.
        """
        handle, position = self._forgotten.pop(nodeid, (b"", None))
        if not handle:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        filesystem = self.root.filesystem
        descriptor = syscalls.open_by_handle(filesystem.descriptor, handle, HANDLE_FLAGS)
        inode, attributes = self.adopt(descriptor)
        if inode.position is None:
            inode.position = position
        return inode, attributes

    def _require_below_root(self, directory: int) -> None:
        """Raise ``ESTALE`` unless walking up from *directory* meets the root."""
        step = os.dup(directory)
        try:
            key = key_of(attributes_of(step))
            while key != self._root_key:
                above = os.open(b"..", HANDLE_FLAGS, dir_fd=step)
                os.close(step)
                step = above
                previous, key = key, key_of(attributes_of(step))
                if key == previous:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        finally:
            os.close(step)

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

    def location(self, inode: Inode) -> list[bytes]:
        """The names that lead from the root to an inode at this moment.

        Raises `OSError` ``ESTALE`` if that cannot be told: it is not below the root any more, or
        it is no directory and has several names, or the system does not remember its one.
        """
        if inode is self.root:
            return []
        root, path = os.readlink(self.path(self.root)), os.readlink(self.path(inode))
        above = root.rstrip(b"/") + b"/"
        attributes = self.attributes(inode)
        known = path.startswith(above) and attributes.links > 0
        if known and not inode.is_directory:
            known = attributes.links == 1 and self._is_at(path, attributes)
        if not known:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return path[len(above) :].split(b"/")

    def _is_at(self, path: bytes, attributes: Attributes) -> bool:
        try:
            there = os.lstat(path)
        except OSError:
            return False
        device = os.makedev(attributes.dev_major, attributes.dev_minor)
        return (there.st_dev, there.st_ino) == (device, attributes.inode)

    def attributes(self, inode: Inode) -> Attributes:
        """The attributes of *inode* now."""
        return attributes_of(self.descriptor(inode))

    # --- what other kinds of trees do otherwise ------------------------------------------------

    def key(self, attributes: Attributes) -> Key:
        """By what the table finds the inode that has these attributes."""
        return key_of(attributes)

    def open_names(self, above: int, names: Sequence[bytes]) -> int:
        """An ``O_PATH`` descriptor of what *names* lead to; nothing is counted.

        *above* is one of what all of them but the last lead to.
        """
        return os.open(names[-1], HANDLE_FLAGS, dir_fd=above)

    def describe(self, inode: Inode) -> str:
        """In which of several layers *inode* is, for people; empty where there are none."""
        del inode
        return ""

    def holder(self, directory: Inode, name: bytes) -> int:
        """A descriptor of the backing directory that has *name* of *directory*, if any has."""
        del name
        return self.descriptor(directory)

    def prepare_change(self, inode: Inode, *, content: bool = True) -> None:
        """*inode* is about to be changed; *content*: not only to be truncated to nothing."""

    def prepare_removal(self, inode: Inode, name: bytes) -> None:
        """An extended attribute of *inode* is about to be removed, if it has it."""

    def prepare_open(self, inode: Inode, flags: int) -> int:
        """*inode* is about to be opened with flags of open(2); returns those for the backing."""
        del inode
        return flags

    def require_openable(self, inode: Inode) -> None:
        """Raise ``ESTALE`` if *inode* is to be looked up again before it is opened."""

    def may_attach(self, inode: Inode) -> bool:
        """Whether *inode* leads to one backing file, and to all of it, as long as it is known."""
        del inode
        return True

    def stored(self, name: bytes) -> bytes:
        """What an extended attribute is called in the backing tree."""
        return name

    def shown(self, name: str) -> str | None:
        """What an extended attribute of the backing tree is called here; None: not at all."""
        return name

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
