"""From a name to the layer that has it: layers are looked through from the topmost down."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import msgspec

from inopt import syscalls
from inopt.backing.identity import HANDLE_FLAGS, attributes_of, identify
from inopt.backing.inodes import Inode
from inopt.layers.format import is_whiteout
from inopt.layers.stack import Layer, Stack
from inopt.layers.standing import Part, Standing, standing_of
from inopt.wire.replies import Attributes

_FORMAT, _CHARACTER, _REGULAR = 0o170000, stat.S_IFCHR, stat.S_IFREG


class Found(msgspec.Struct, eq=False, gc=False):
    """What a name is in one layer; *directory*: a descriptor of where, as `Finder` gets it."""

    layer: Layer
    directory: int
    handle: bytes
    attributes: Attributes
    descriptor: int = -1

    def close(self) -> None:
        """Close the descriptor, if there is one."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Finder:
    """Finds names in the layers of one mount.

    *descriptor* gives a descriptor of a directory, good until the present request ends.
    ``choose``: the lower layer that is looked at first for a name, counted from 1; 0 for none.
    """

    def __init__(self, stack: Stack, descriptor: Callable[[Inode], int]) -> None:
        self._stack = stack
        self._descriptor = descriptor
        self.choose: Callable[[Inode, bytes], int] = lambda _parent, _name: 0

    def find(self, parent: Inode, name: bytes) -> tuple[Found, tuple[Part, ...]]:
        """What *name* is in the topmost layer that has it, and the parts of *parent* below that.

        Raises `FileNotFoundError`, also for what a layer says is no more.
        """
        standing = standing_of(parent)
        below = standing.below
        if below and (chosen := self.choose(parent, name)):
            return self._find_chosen(parent, name, chosen)
        found = self.find_in(self._descriptor(parent), standing.layer, name)
        while found is None and below:
            part, below = below[0], below[1:]
            found = self.find_in(self._descriptor(part.inode), part.layer, name)
        if found is None:
            raise missing()
        return found, below

    def _find_chosen(
        self, parent: Inode, name: bytes, chosen: int
    ) -> tuple[Found, tuple[Part, ...]]:
        """Like `find`, where one of the lower layers is looked at before the others."""
        standing = standing_of(parent)
        parts = [Part(parent, standing.layer), *standing.below]
        lowers = [layer for layer in self._stack.layers if not layer.is_upper]
        first = lowers[chosen - 1] if chosen <= len(lowers) else None
        parts.sort(key=lambda part: (not part.layer.is_upper, part.layer is not first))
        for position, part in enumerate(parts):
            found = self.find_in(self._descriptor(part.inode), part.layer, name)
            if found is not None:
                return found, tuple(parts[position + 1 :])
        raise missing()

    def find_in(self, directory: int, layer: Layer, name: bytes) -> Found | None:
        """What *name* is in one layer, None if it is not there. Raises as `find`."""
        try:
            identity = identify(directory, name) if layer.filesystem.has_handles else None
            if identity is not None:
                found = Found(layer, directory, *identity)
            else:
                found = self._opened(layer, directory, name)
        except FileNotFoundError:
            return None
        attributes = found.attributes
        kind = attributes.mode & _FORMAT
        if (kind == _CHARACTER and is_whiteout(attributes)) or (
            kind == _REGULAR and not attributes.size and self._is_marked(directory, name)
        ):
            found.close()
            raise missing()
        return found

    def _opened(self, layer: Layer, directory: int, name: bytes) -> Found:
        descriptor = os.open(name, HANDLE_FLAGS, dir_fd=directory)
        try:
            attributes = attributes_of(descriptor)
            handle = b""
            if layer.filesystem.has_handles:
                handle = syscalls.name_to_handle(descriptor)[0]
        except BaseException:
            os.close(descriptor)
            raise
        return Found(layer, directory, handle, attributes, descriptor)

    def _is_marked(self, directory: int, name: bytes) -> bool:
        """Whether an empty file says that a name is no more (made where devices cannot be)."""
        marks = self._stack.format
        if not marks.has(marks.whiteout, directory, name):
            return False
        return marks.opaqueness(directory) == b"x"

    def find_below(self, standing: Standing, name: bytes) -> tuple[Found, Part]:
        """What *name* is below the topmost part of a directory. Raises as `find`."""
        for part in standing.below:
            found = self.find_in(self._descriptor(part.inode), part.layer, name)
            if found is not None:
                return found, part
        raise missing()


def missing() -> FileNotFoundError:
    """What is raised for a name that is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
