"""Copy-up: a lower inode gets a copy in the upper layer before it is changed.

The copy takes shape where nobody sees it, is brought to stable storage, and then gets its name in
one step. So whenever the machine stops, either the lower file shows or the whole copy does.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Final

from inopt import syscalls
from inopt.backing.identity import HANDLE_FLAGS, attributes_of
from inopt.backing.inodes import Inode
from inopt.layers.contents import copy_contents
from inopt.layers.facts import Place, copy_facts, copy_times
from inopt.layers.format import beneath, encode_origin
from inopt.layers.stack import Layer
from inopt.layers.standing import standing_of
from inopt.layers.tree import LayeredTree
from inopt.layers.working import remove_tree
from inopt.wire.replies import Attributes

_READING: Final = os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC


def _tell_nobody(_bytes: int) -> None:
    return


class _Turn:
    """Whose turn it is to copy an inode, and how many wait for it or have it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0


class Copier:
    """Copies up for one tree; one copy of an inode at a time, several inodes side by side.

    *permit* is asked whether an inode may be copied up; raises `OSError` if not.
    """

    def __init__(self, tree: LayeredTree, permit: Callable[[Inode], None]) -> None:
        self._tree = tree
        self._stack = tree.stack
        self._marks = tree.stack.format
        self._lock = Lock()
        self._turns: dict[int, _Turn] = {}
        self._names = itertools.count()
        self._permit = permit
        self._may_share: dict[Layer, bool] = {}  # whether it may share data with the upper layer
        if self._stack.has_upper:
            tree.copy_up = self.copy_up

    def temporary(self) -> bytes:
        """A name in the work directory that nothing has."""
        return b"#%x" % next(self._names)

    # --- one inode -----------------------------------------------------------------------------

    def copy_up(self, inode: Inode, content: bool = True) -> None:
        """Have *inode* in the upper layer, also if its name is gone. Raises `OSError`."""
        with self._alone(inode.nodeid):
            if not standing_of(inode).layer.is_upper:
                self._permit(inode)
                self._copy(inode, content)

    @contextmanager
    def _alone(self, nodeid: int) -> Iterator[None]:
        """In the body, nobody else copies the inode."""
        with self._lock:
            turn = self._turns.setdefault(nodeid, _Turn())
            turn.users += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    del self._turns[nodeid]

    def upper_directory(self, directory: Inode) -> int:
        """The upper layer's descriptor of a directory, which is made there if it is not yet."""
        if not standing_of(directory).layer.is_upper:
            if not self._stack.has_upper:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            self.copy_up(directory)
        return self._tree.descriptor(directory)

    def _copy(self, inode: Inode, content: bool) -> None:
        tree = self._tree
        standing = standing_of(inode)
        if standing.parent is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        standing.parent = tree.live(standing.parent)
        parent = self.upper_directory(standing.parent)
        before = attributes_of(parent)
        with tree.descriptors.use():
            attributes = tree.attributes(inode)
            if stat.S_ISREG(attributes.mode):
                copy = self._copy_file(inode, attributes, parent, content)
            else:
                copy = self._copy_other(inode, attributes, parent)
        try:
            copy_times(before, beneath(parent))
        except BaseException:
            os.close(copy)
            raise
        with tree.changing:
            tree.move(inode, copy)

    def _copy_file(self, inode: Inode, attributes: Attributes, parent: int, content: bool) -> int:
        copy = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._stack.work)
        try:
            reading = self._tree.open(inode, _READING)
            try:
                if content and attributes.size:
                    layer = standing_of(inode).layer
                    self._may_share[layer] = copy_contents(
                        reading, copy, attributes.size, _tell_nobody,
                        may_share=self._may_share.get(layer, True),
                    )  # fmt: skip
                self._protect(inode, reading, copy)
                self._dress(inode, reading, attributes, copy, parent)
            finally:
                os.close(reading)
            if not self._stack.volatile:
                os.fsync(copy)
            # A name that is another one's by now: then the copy has none, as the file has none.
            with suppress(FileExistsError):
                syscalls.link_descriptor(copy, parent, standing_of(inode).name)
        except BaseException:
            os.close(copy)
            raise
        return copy

    def _copy_other(self, inode: Inode, attributes: Attributes, parent: int) -> int:
        """Copy what is made with its name: directories, links, and special files."""
        work, made = self._stack.work, self.temporary()
        name, place = standing_of(inode).name, beneath(work, made)
        source = self._tree.descriptor(inode)
        if stat.S_ISDIR(attributes.mode):
            os.mkdir(made, 0o700, dir_fd=work)
        elif stat.S_ISLNK(attributes.mode):
            os.symlink(os.readlink(b"", dir_fd=source), made, dir_fd=work)
        else:
            device = os.makedev(attributes.rdev_major, attributes.rdev_minor)
            os.mknod(made, attributes.mode, device, dir_fd=work)
        try:
            if stat.S_ISDIR(attributes.mode):
                reading = self._tree.open(inode, _READING | os.O_DIRECTORY)
                try:
                    self._protect(inode, reading, place)
                finally:
                    os.close(reading)
            self._dress(inode, beneath(source), attributes, place, parent, follow=False)
            copy = os.open(made, HANDLE_FLAGS, dir_fd=work)
        except BaseException:
            remove_tree(work, made)
            raise
        try:
            try:
                syscalls.renameat2(work, made, parent, name, syscalls.RENAME_NOREPLACE)
            except FileExistsError:
                remove_tree(work, made)
                if stat.S_ISDIR(attributes.mode):
                    # Made meanwhile, under another inode of the same name; else it is gone.
                    os.close(copy)
                    copy = -1
                    copy = os.open(name, HANDLE_FLAGS | os.O_DIRECTORY, dir_fd=parent)
        except BaseException:
            if copy >= 0:
                os.close(copy)
            with suppress(OSError):
                remove_tree(work, made)
            raise
        return copy

    def _protect(self, inode: Inode, reading: int, copy: Place) -> None:
        protection = self._tree.protection
        protection.copy(reading, protection.of(inode), copy)

    def _dress(
        self,
        inode: Inode,
        source: Place,
        attributes: Attributes,
        copy: Place,
        parent: int,
        *,
        follow: bool = True,
    ) -> None:
        marks = self._marks
        copy_facts(
            source, attributes, copy, lambda name: marks.shown(name) is not None, follow=follow
        )
        self._mark_origin(inode, attributes, copy, parent, follow=follow)
        copy_times(attributes, copy, follow=follow)

    def _mark_origin(
        self, inode: Inode, attributes: Attributes, copy: Place, parent: int, *, follow: bool
    ) -> None:
        """Tell the kernel's overlayfs whose copy it is, for inode numbers that stay.

        Not of a file with several names, of which only this one is copied.
        """
        standing, marks = standing_of(inode), self._marks
        if inode.handle and (attributes.links == 1 or stat.S_ISDIR(attributes.mode)):
            with suppress(OSError):  # user.* marks are not for links and special files
                origin = encode_origin(inode.handle, standing.layer.uuid)
                os.setxattr(copy, marks.origin, origin, follow_symlinks=follow)
        if standing.parent is not None:
            with suppress(OSError):
                self._tree.mark_impure(standing.parent, parent)
