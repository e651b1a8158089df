"""A tree over layers whose inodes change: what that needs before, and what becomes of them.

When something is copied up, its inode stays the same and leads to the copy from then on, except
where the kernel reads the lower file by itself: see `moved`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from threading import RLock
from typing import Final

import structlog

from inopt import syscalls
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.layers.format import beneath
from inopt.layers.protection import Protection, require_permitted
from inopt.layers.reaching import StackedNames
from inopt.layers.stack import Stack
from inopt.layers.standing import Part, standing_of
from inopt.ops import Op, OpsMask

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_NOTHING: Final = OpsMask()
_LISTING: Final = OpsMask.of(Op.READDIR)
_WRITING: Final = OpsMask.of(Op.SETATTR, Op.WRITE)


class LayeredTree(StackedNames):
    """The tree that a `Stack` makes up. The stack is taken over.

    ``changing``: held while it is decided by which file an inode is opened, or that another one
    takes its place.
    """

    def __init__(self, stack: Stack, budget: int) -> None:
        # Whether the kernel has an inode's file for good, or for its opens; asked under the lock.
        self.is_bound: Callable[[Inode], bool] = lambda _inode: False
        # Told of an inode that leads to another file from now on.
        self.moved: Callable[[Inode], None] | None = None
        # Makes an inode one of the upper layer; False: without what is in it.
        self.copy_up: Callable[[Inode, bool], None] = _refuse_copying
        self._has_changed = False
        super().__init__(stack, budget)
        self.changing = RLock()
        self.protection = Protection(stack.format, self.descriptor)

    def settle(self) -> None:
        """Bring a volatile upper layer to stable storage; from then on others may mount it."""
        self.stack.settle()

    # --- before something is changed -----------------------------------------------------------

    def prepare_change(self, inode: Inode, *, content: bool = True) -> None:
        """Have *inode* in the upper layer. Raises `OSError`."""
        if not standing_of(inode).layer.is_upper:
            self.copy_up(inode, content)

    def prepare_removal(self, inode: Inode, name: bytes) -> None:
        """Have *inode* in the upper layer. Raises `OSError`, also if there is nothing to remove."""
        if not standing_of(inode).layer.is_upper:
            os.getxattr(self.path(inode), name)
        self.prepare_change(inode)

    def prepare_open(self, inode: Inode, flags: int, *, appends: bool) -> int:
        """Have *inode* in the upper layer if it may be written to.

        What may only be appended to is opened for that, whatever its opener does afterwards.
        """
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return flags
        protection = self.protection.of(inode)
        if protection:
            require_permitted(protection, appends=appends and not flags & os.O_TRUNC)
            flags |= os.O_APPEND
        self.prepare_change(inode, content=not flags & os.O_TRUNC)
        return flags

    def require_permitted(self, inode: Inode, *, appends: bool = False) -> None:
        """Raise ``EPERM`` for a change that flags of chattr(1) forbid: see `layers.protection`."""
        require_permitted(self.protection.of(inode), appends=appends)

    def show_flags(self, inode: Inode, command: int, argument: bytearray) -> None:
        """Add to what ioctl(2) *command* has read the flags that the upper file has not."""
        if standing_of(inode).layer.is_upper:
            self.protection.show(inode, command, argument)

    def keep_flags(self, inode: Inode, command: int, argument: bytearray) -> None:
        """Take from what ioctl(2) *command* is to set the flags that are kept as an attribute.

        Not where the kernel changes the file by itself: then it must have them.
        """
        if inode.attached is None:
            self.protection.keep(inode, command, argument)

    def stays(self, inode: Inode) -> bool:
        """Whether *inode* is a lower layer's."""
        return not standing_of(inode).layer.is_upper

    def require_openable(self, inode: Inode) -> None:
        """Raise ``ESTALE`` for an inode of which the copy is another one.

        The kernel then looks the name up again, and finds that.
        """
        if standing_of(inode).replaced:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def attachable(self, inode: Inode, mask: OpsMask) -> OpsMask:
        """Nothing of what may be copied up, nor of a directory of several layers.

        No listings either: layers know what was copied up, and the parents of directories, by
        other inode numbers. And lower layers are only read.
        """
        standing = standing_of(inode)
        if standing.below:
            return _NOTHING
        if standing.layer.is_upper:
            return _NOTHING if self.protection.of(inode) else mask - _LISTING
        return _NOTHING if self.stack.has_upper else mask - _LISTING - _WRITING

    # --- marks ---------------------------------------------------------------------------------

    def mark_impure(self, directory: Inode, upper: int) -> None:
        """Mark *directory*, which is *upper* in the upper layer, as one with a copy in it.

        Raises `OSError`.
        """
        standing = standing_of(directory)
        if not standing.impure:
            os.setxattr(beneath(upper), self.stack.format.impure, b"y")
            standing.impure = True

    def stored(self, name: bytes) -> bytes:
        """What an extended attribute is called in the layers: marks are out of reach.

        Raises ``EINVAL`` for what is the beginning of names, but none.
        """
        marks = self.stack.format
        stored = marks.stored(os.fsdecode(name))
        if stored == marks.escaped:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.fsencode(stored)

    def shown(self, name: str) -> str | None:
        """What an extended attribute of a layer is called in the overlay; None: it is a mark."""
        return self.stack.format.shown(name)

    def _open_handle(self, inode: Inode, flags: int) -> int:
        try:
            return super()._open_handle(inode, flags)
        except OSError as error:
            upper = self.stack.has_upper and inode.filesystem is self.root.filesystem
            if error.errno == errno.ESTALE and not upper and not self._has_changed:
                self._has_changed = True
                _log.warning("a lower layer has been changed while it is mounted: leave it alone")
            raise

    # --- the file behind an inode becomes another one -------------------------------------------

    def move(self, inode: Inode, descriptor: int) -> None:
        """From now on *inode* leads to what *descriptor* is, in the upper layer; it is taken over.

        Where the kernel has the lower file by itself, for an open or for good, it cannot be given
        another one: then the copy is an inode of its own, and this one only leads to its
        attributes. The caller holds ``changing``.
        """
        layer, standing = self.stack.top, standing_of(inode)
        try:
            attributes = attributes_of(descriptor)
            handle = syscalls.name_to_handle(descriptor)[0] if layer.filesystem.has_handles else b""
            is_bound = self.is_bound(inode)
            is_kept = not handle or not attributes.links or is_bound
            if is_kept:
                descriptor = _without_writing(descriptor)
            if inode.is_directory:
                lower = self._parts.make(inode.filesystem, inode.handle, self._kept(inode))
                standing.below = (Part(lower, standing.layer), *standing.below)
                standing.impure = None  # what was known is about the lower part
        except BaseException:
            os.close(descriptor)
            raise
        key = self.key_in(layer, attributes)
        if is_bound:
            standing.replaced = True
            self._numbers[key] = handle, inode.number
        else:
            self.table.rename(inode, key)
        kept = inode.descriptor
        # Readers look at the descriptor first: so they never meet one file's handle on the
        # other's mount.
        inode.descriptor = descriptor
        self.descriptors.held += 1
        inode.filesystem, inode.handle = layer.filesystem, handle
        standing.layer = layer
        if kept >= 0:
            self.descriptors.held -= 1
            self.descriptors.retire(kept)
        self.descriptors.drop(inode.nodeid)
        if not is_kept:
            self.unpin(inode)
        if self.moved is not None:
            self.moved(inode)

    def unpin(self, inode: Inode) -> None:
        """Keep no descriptor of an inode that has a name, unless it is a replaced one.

        Nobody will notice when its copy, which is another inode, loses the last name.
        """
        if not standing_of(inode).replaced:
            super().unpin(inode)

    def _kept(self, inode: Inode) -> int:
        return os.dup(inode.descriptor) if inode.descriptor >= 0 else -1


def _without_writing(descriptor: int) -> int:
    """Another descriptor of the same inode, good for nobody's ``ETXTBSY``; the first is closed."""
    kept = os.open(beneath(descriptor), os.O_PATH | os.O_CLOEXEC)
    os.close(descriptor)
    return kept


def _refuse_copying(_inode: Inode, _content: bool) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
