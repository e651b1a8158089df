"""A tree over layers: each name leads to what the topmost layer that has it says.

An inode is that of one layer's file; a directory may go on in layers further down. When something
is copied up, its inode stays the same and leads to the copy from then on, except where the kernel
reads the lower file by itself: see `moved`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Final

import structlog

from inopt import syscalls
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import FOREIGN, Inode, Key, inode_number_of
from inopt.backing.tree import Tree
from inopt.layers.finding import Finder, Found
from inopt.layers.parts import Parts
from inopt.layers.protection import Protection, protection_of, require_permitted
from inopt.layers.stack import Layer, Stack
from inopt.layers.standing import Part, Standing, standing_of
from inopt.ops import Op, OpsMask
from inopt.wire.directory import DOTS
from inopt.wire.replies import Attributes

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_FORMAT: Final = 0o170000
_NOTHING: Final = OpsMask()
_LISTING: Final = OpsMask.of(Op.READDIR)
_WRITING: Final = OpsMask.of(Op.SETATTR, Op.WRITE)


class LayeredTree(Tree):
    """The tree that a `Stack` makes up. The stack is taken over.

    ``changing``: held while it is decided by which file an inode is opened, or that another one
    takes its place.
    """

    has_layers = True

    def __init__(self, stack: Stack, budget: int) -> None:
        self.stack = stack
        # Whether the kernel has an inode's file for good, or for its opens; asked under the lock.
        self.is_bound: Callable[[Inode], bool] = lambda _inode: False
        # Told of an inode that leads to another file from now on.
        self.moved: Callable[[Inode], None] | None = None
        # Makes an inode one of the upper layer; False: without what is in it.
        self.copy_up: Callable[[Inode, bool], None] = _refuse_copying
        self.finder = Finder(stack, self.descriptor)
        # What an inode is to be called that took the place of another one.
        self._numbers: dict[Key, tuple[bytes, int]] = {}
        self._has_changed = False
        top = stack.top
        super().__init__(top.path, budget, top.root)
        self._parts = Parts(stack, self.finder, self.descriptors, self.descriptor)
        self.changing = RLock()
        self.has_handles = all(layer.filesystem.has_handles for layer in stack.layers)
        self.protection = Protection(stack.format, self.descriptor)
        top.filesystem.close()
        top.filesystem = self.root.filesystem
        for layer in stack.layers:
            self._filesystems[layer.filesystem.mount_id] = layer.filesystem
        standing = Standing(None, b"", top)
        standing.below = tuple(
            Part(self._parts.make(layer.filesystem, b"", layer.root), layer)
            for layer in stack.layers[1:]
        )
        self.root.layers = standing

    def close(self) -> None:
        """Close every descriptor. No request may be running."""
        for part in standing_of(self.root).below:
            os.close(part.inode.descriptor)
        super().close()
        self.stack.close()

    def settle(self) -> None:
        """Bring a volatile upper layer to stable storage; from then on others may mount it."""
        self.stack.settle()

    # --- from a name to an inode ---------------------------------------------------------------

    def resolve(self, parent: Inode, name: bytes) -> tuple[Inode, Attributes]:
        """Look *name* up in *parent*, and count the lookup."""
        if name in DOTS:
            return self._resolve_dots(parent, name)
        found, below = self.finder.find(parent, name)
        try:
            attributes = found.attributes
            inode, new = self.table.adopt(
                self._key(found, parent, name),
                found.layer.filesystem,
                found.handle,
                found.descriptor,
                is_directory=attributes.mode & _FORMAT == stat.S_IFDIR,
            )
            if found.descriptor >= 0 and inode.descriptor == found.descriptor:
                found.descriptor = -1
                self.descriptors.held += 1
            standing = inode.layers
            if new or standing is None:
                try:
                    self._place(inode, parent, name, found, below)
                except BaseException:
                    self.forget(inode.nodeid, 1)
                    raise
            elif standing.parent is None:
                standing.parent, standing.name = parent, name
            return inode, _told(inode, attributes) if inode.is_directory else attributes
        finally:
            if found.descriptor >= 0:
                found.close()

    def holder(self, directory: Inode, name: bytes) -> int:
        """A descriptor of the backing directory that has *name*; for no name, of the top layer."""
        if not name:
            return self.root.descriptor
        top = self.descriptor(directory)
        standing = standing_of(directory)
        try:
            found = self.finder.find_in(top, standing.layer, name)
            if found is None:
                found, part = self.finder.find_below(standing, name)
                found.close()
                return self.descriptor(part.inode)
            found.close()
        except FileNotFoundError:
            pass
        return top

    def shows_below(self, directory: Inode, name: bytes) -> bool:
        """Whether *name* would show if the topmost part of *directory* had it not."""
        try:
            self.finder.find_below(standing_of(directory), name)[0].close()
        except FileNotFoundError:
            return False
        return True

    def _key(self, found: Found, parent: Inode, name: bytes) -> Key:
        attributes, layer = found.attributes, found.layer
        if (
            attributes.links > 1
            and self.stack.has_upper
            and not layer.is_upper
            and not stat.S_ISDIR(attributes.mode)
        ):
            # Each name is copied up for itself, so each is an inode of its own.
            number = attributes.inode
            return (layer.key_mount, hash((parent.nodeid, name)), -number, number)
        return self.key_in(layer, attributes)

    def key(self, attributes: Attributes) -> Key:
        """By what the table finds the inode that has these attributes, in whatever layer."""
        for layer in self.stack.layers:
            if layer.device == (attributes.dev_major, attributes.dev_minor):
                return self.key_in(layer, attributes)
        return super().key(attributes)

    def open_names(self, above: int, names: Sequence[bytes]) -> int:
        """An ``O_PATH`` descriptor of what *names* lead to; nothing is counted."""
        del above
        inode = self.root
        with self.descriptors.use():
            try:
                for name in names:
                    parent, (inode, _) = inode, self.resolve(inode, name)
                    self.forget(parent.nodeid, 1)
                return os.dup(self.descriptor(inode))
            finally:
                self.forget(inode.nodeid, 1)

    def describe(self, inode: Inode) -> str:
        """In which layer *inode* is, and with how many others it is merged."""
        standing = standing_of(inode)
        which = f"{'upper' if standing.layer.is_upper else 'lower'} layer {standing.layer.path}"
        if standing.replaced:
            return f"{which}; what was open before it was copied up goes on with the lower file"
        return f"{which}, merged with {len(standing.below)} below" if standing.below else which

    def key_in(self, layer: Layer, attributes: Attributes) -> Key:
        """By what the table knows the inode of a name in the upper layer."""
        return (layer.key_mount, attributes.dev_major, attributes.dev_minor, attributes.inode)

    # --- where it stands -----------------------------------------------------------------------

    def _place(
        self, inode: Inode, parent: Inode, name: bytes, found: Found, below: tuple[Part, ...]
    ) -> None:
        standing = Standing(parent, name, found.layer)
        attributes = found.attributes
        if not found.layer.is_upper:
            standing.protection = protection_of(attributes)
        number = -1
        kind = attributes.mode & _FORMAT
        if kind == stat.S_IFREG:
            was_below = bool(below) and found.layer.is_upper
            number = self._parts.number_of_file(found, name, was_below=was_below)
        elif kind == stat.S_IFDIR and below:
            directory = self.descriptor(inode)
            standing.below, number = self._parts.of_directory(directory, name, below)
        if number < 0 and inode.nodeid >= FOREIGN and found.layer.device == self.stack.top.device:
            number = attributes.inode  # a nodeid of its own, but the number is free to be told
        if self._numbers:
            handle, earlier = self._numbers.get(self.key_in(found.layer, attributes), (b"", 0))
            if handle and handle == found.handle:
                number = earlier
                standing.has_twin = True
        if number > 0:
            inode.number = number
        inode.layers = standing

    def _resolve_dots(self, parent: Inode, name: bytes) -> tuple[Inode, Attributes]:
        above = parent if name == b"." else standing_of(parent).parent or self.root
        if above is not self.root and not self.table.count_again(above):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return above, self.attributes(above)

    def adopt_open(self, descriptor: int) -> tuple[Inode, Attributes]:
        """Count a lookup of an inode just created; its name is filled in when it is looked up."""
        inode, attributes = super().adopt_open(descriptor)
        if inode.layers is None:
            inode.layers = Standing(None, b"", self.stack.top, protection=0)
        return inode, attributes

    def revive(self, nodeid: int) -> tuple[Inode, Attributes]:
        """Nothing tells in which layer a forgotten inode was. Raises ``ESTALE``."""
        del nodeid
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def location(self, inode: Inode) -> list[bytes]:
        """The names that lead from the root to an inode at this moment. Raises ``ESTALE``."""
        names: list[bytes] = []
        while inode is not self.root:
            standing = standing_of(inode)
            if standing.parent is None:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            names.append(standing.name)
            inode = standing.parent
        return names[::-1]

    def attributes(self, inode: Inode, descriptor: int = -1) -> Attributes:
        """The attributes of *inode* now; *descriptor*: one of it, if there is one already."""
        if inode.is_directory:
            return _told(inode, super().attributes(inode, descriptor))
        if descriptor < 0 and inode.descriptor < 0:
            found = self._attributes_by_name(inode)
            if found is not None:
                return found
        return super().attributes(inode, descriptor)

    def _attributes_by_name(self, inode: Inode) -> Attributes | None:
        """Those of a lower file, which keeps its name; None if it has another one after all.

        To open it by its handle, and to close it, takes three times as long.
        """
        standing = standing_of(inode)
        layer, parent = standing.layer, standing.parent
        if layer.is_upper or parent is None:
            return None
        above = standing_of(parent)
        if above.layer is not layer:
            for part in above.below:
                if part.layer is layer:
                    parent = part.inode
                    break
            else:
                return None
        try:
            attributes = attributes_of(self.descriptor(parent), standing.name)
        except FileNotFoundError:
            return None
        return attributes if attributes.inode == inode_number_of(inode.handle) else None

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

    def live(self, directory: Inode) -> Inode:
        """The inode by which the kernel knows *directory* at the moment, if it does.

        It may have forgotten one that something below it still refers to, and looked it up anew.
        """
        if directory is self.root or self.table.get_or_none(directory.nodeid) is directory:
            return directory
        standing = standing_of(directory)
        if standing.parent is None:
            return directory
        found, _ = self.resolve(self.live(standing.parent), standing.name)
        self.forget(found.nodeid, 1)
        return found

    # --- the file behind an inode becomes another one -------------------------------------------

    def move(self, inode: Inode, descriptor: int) -> None:
        """From now on *inode* leads to what *descriptor* is, in the upper layer.

        Where the kernel has the lower file by itself, for an open or for good, it cannot be given
        another one: then the copy is an inode of its own, and this one only leads to its
        attributes. The caller holds ``changing``.
        """
        attributes = attributes_of(descriptor)
        layer = self.stack.top
        handle = syscalls.name_to_handle(descriptor)[0] if layer.filesystem.has_handles else b""
        standing = standing_of(inode)
        if inode.is_directory:
            lower = self._parts.make(inode.filesystem, inode.handle, self._kept(inode))
            standing.below = (Part(lower, standing.layer), *standing.below)
        key = self.key_in(layer, attributes)
        if self.is_bound(inode):
            standing.replaced = True
            self._numbers[key] = handle, inode.number
        else:
            self.table.rename(inode, key)
        kept = inode.descriptor
        # Readers look at the descriptor first: so they never meet one file's handle on the
        # other's mount.
        inode.descriptor = os.dup(descriptor)
        self.descriptors.held += 1
        inode.filesystem, inode.handle = layer.filesystem, handle
        standing.layer = layer
        if kept >= 0:
            self.descriptors.held -= 1
            self.descriptors.retire(kept)
        self.descriptors.drop(inode.nodeid)
        # Nobody will notice when the copy of a replaced one loses its name: that is kept.
        if handle and attributes.links and not standing.replaced:
            self.unpin(inode)
        if self.moved is not None:
            self.moved(inode)

    def _kept(self, inode: Inode) -> int:
        return os.dup(inode.descriptor) if inode.descriptor >= 0 else -1

    def _drop(self, inode: Inode) -> None:
        standing = inode.layers
        if isinstance(standing, Standing):
            self._parts.drop(standing)
        super()._drop(inode)


def _told(inode: Inode, attributes: Attributes) -> Attributes:
    """What an inode's attributes say: nobody counts the subdirectories of several layers."""
    if inode.is_directory and standing_of(inode).below:
        attributes.links = 1
    return attributes


def _refuse_copying(_inode: Inode, _content: bool) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
