"""The backing tree: every step is one name beneath a directory descriptor, nothing else.

Paths are never built. An inode is reopened by its file handle; symbolic links are returned, never
followed; ``..`` is only answered after walking up to the root. So nothing outside the root can be
reached, whatever is renamed or replaced underneath meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import ClassVar

from inopt import syscalls
from inopt.backing.filesystems import Filesystem, mount_descriptor
from inopt.backing.identity import HANDLE_FLAGS, attributes_of, identify, key_of
from inopt.backing.inodes import Inode, Key
from inopt.backing.keeping import KnownInodes
from inopt.ops import OpsMask
from inopt.wire.directory import DOTS
from inopt.wire.replies import Attributes


class Tree(KnownInodes):
    """One directory and all that is below it, reached by their names.

    Made like `KnownInodes`.
    """

    has_layers: ClassVar[bool] = False
    """Whether several directories are seen as one."""

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

    def require_permitted(self, inode: Inode, *, appends: bool = False) -> None:
        """Raise ``EPERM`` for a change that flags of chattr(1) forbid, if nobody else does.

        *appends*: one that append-only files and directories permit.
        """

    def show_flags(self, inode: Inode, command: int, argument: bytearray) -> None:
        """Add to what ioctl(2) *command* has read the flags that the backing file has not."""

    def keep_flags(self, inode: Inode, command: int, argument: bytearray) -> None:
        """Take from what ioctl(2) *command* is to set the flags that are kept elsewhere."""

    def prepare_change(self, inode: Inode, *, content: bool = True) -> None:
        """*inode* is about to be changed; *content*: not only to be truncated to nothing."""

    def prepare_removal(self, inode: Inode, name: bytes) -> None:
        """An extended attribute of *inode* is about to be removed, if it has it."""

    def prepare_open(self, inode: Inode, flags: int, *, appends: bool) -> int:
        """*inode* is about to be opened with flags of open(2); returns those for the backing.

        *appends*: for appending, which is not among *flags*.
        """
        del inode, appends
        return flags

    def stays(self, inode: Inode) -> bool:
        """Whether the backing file of *inode* is neither changed nor removed while it is known."""
        del inode
        return False

    def settle(self) -> None:
        """No request comes any more: bring what was changed to where it is to stay."""

    def require_openable(self, inode: Inode) -> None:
        """Raise ``ESTALE`` if *inode* is to be looked up again before it is opened."""

    def attachable(self, inode: Inode, mask: OpsMask) -> OpsMask:
        """What of *mask* the backing file of *inode* answers rightly as long as it is known."""
        del inode
        return mask

    def stored(self, name: bytes) -> bytes:
        """What an extended attribute is called in the backing tree."""
        return name

    def shown(self, name: str) -> str | None:
        """What an extended attribute of the backing tree is called here; None: not at all."""
        return name
