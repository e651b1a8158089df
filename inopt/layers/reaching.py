"""From names to inodes over layers: each name leads to what the topmost layer that has it says.

An inode is that of one layer's file; a directory may go on in layers further down.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from inopt.backing.identity import attributes_of
from inopt.backing.inodes import FOREIGN, Inode, Key, inode_number_of
from inopt.backing.tree import Tree
from inopt.layers.finding import Finder, Found
from inopt.layers.parts import Parts
from inopt.layers.protection import protection_of
from inopt.layers.stack import Layer, Stack
from inopt.layers.standing import Part, Standing, standing_of
from inopt.wire.directory import DOTS
from inopt.wire.replies import Attributes

_FORMAT: Final = 0o170000


class StackedNames(Tree):
    """What the names in a `Stack` lead to, and where that stands. The stack is taken over."""

    has_layers = True

    def __init__(self, stack: Stack, budget: int) -> None:
        self.stack = stack
        self.finder = Finder(stack, self.descriptor)
        # What an inode is to be called that took the place of another one.
        self._numbers: dict[Key, tuple[bytes, int]] = {}
        top = stack.top
        super().__init__(top.path, budget, top.root)
        self._parts = Parts(stack, self.finder, self.descriptors, self.descriptor)
        self.has_handles = all(layer.filesystem.has_handles for layer in stack.layers)
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

    def leave_access_times(self) -> None:
        """The stack has been made so; its layers are on private mounts, which nobody can copy."""

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

    def number_of(self, directory: Inode, name: bytes) -> int:
        """The inode number of *name*, as a lookup tells it; nothing is counted."""
        inode, _ = self.resolve(directory, name)
        self.forget(inode.nodeid, 1)
        return inode.number

    def has_twin(self, key: Key) -> bool:
        """Whether what *key* leads to may be a copy of what the kernel still reads."""
        return key in self._numbers

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
            if layer.has(attributes):
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
            was_below = found.layer.is_upper and (bool(below) or self._is_impure(parent))
            number = self._parts.number_of_file(found, name, was_below=was_below)
        elif kind == stat.S_IFDIR and below:
            directory = self.descriptor(inode)
            standing.below, number = self._parts.of_directory(directory, name, below)
        if number < 0 and inode.nodeid >= FOREIGN and found.layer.has(attributes):
            number = found.layer.number(attributes.inode)  # its nodeid is another
        if self._numbers:
            handle, earlier = self._numbers.get(self.key_in(found.layer, attributes), (b"", 0))
            if handle and handle == found.handle:
                number = earlier
                standing.has_twin = True
        if number > 0:
            inode.number = number
        inode.layers = standing

    def _is_impure(self, directory: Inode) -> bool:
        """Whether files of lower layers have been copied up and moved into *directory*."""
        standing = standing_of(directory)
        if standing.impure is None:
            marks = self.stack.format
            standing.impure = marks.read(marks.impure, self.descriptor(directory)) is not None
        return standing.impure

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
