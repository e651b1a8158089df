"""Which parts of the layers a directory consists of, and layers that were made otherwise."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from inopt.backing.descriptors import DescriptorCache
from inopt.backing.filesystems import Filesystem
from inopt.backing.inodes import Inode
from inopt.layers.finding import Finder, Found
from inopt.layers.format import origin_number
from inopt.layers.stack import Stack
from inopt.layers.standing import Part, Standing

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_BLOCK: Final = 512
# What the extended attributes of a file without contents of its own may take, in bytes.
_OF_MARKS: Final = 8192


class Parts:
    """Finds the lower parts of directories, and keeps descriptors of them in *descriptors*.

    *descriptor* gives a descriptor of an inode, good until the present request ends.
    """

    def __init__(
        self,
        stack: Stack,
        finder: Finder,
        descriptors: DescriptorCache,
        descriptor: Callable[[Inode], int],
    ) -> None:
        self._stack = stack
        self._finder = finder
        self._descriptors = descriptors
        self._descriptor = descriptor
        self._numbers = itertools.count(-1, -1)
        self._told: set[str] = set()

    def make(self, filesystem: Filesystem, handle: bytes, descriptor: int) -> Inode:
        """What descriptors of a part are kept by; *descriptor* is taken over."""
        number = next(self._numbers)
        part = Inode(number, 0, filesystem, handle, -1, is_directory=True)
        if handle and descriptor >= 0:
            self._descriptors.put(number, descriptor)
        else:
            part.descriptor = descriptor
        return part

    def drop(self, standing: Standing) -> None:
        """Keep no descriptors of the parts of a directory any more."""
        for part in standing.below:
            self._descriptors.drop(part.inode.nodeid)
            if part.inode.descriptor >= 0:
                self._descriptors.retire(part.inode.descriptor)
                part.inode.descriptor = -1

    def of_directory(
        self, directory: int, name: bytes, below: tuple[Part, ...]
    ) -> tuple[tuple[Part, ...], int]:
        """What shows through the topmost part *directory*, called *name* in all of them.

        *below*: the parts of its parent that are looked through. Returns them and the inode number
        of the first, -1 for none, or for one of another device than the topmost layer.

        Raises `PermissionError` for what was made with a feature that is not read.
        """
        parts: list[Part] = []
        number = -1
        if self._hides(directory, name):
            return (), number
        for position, part in enumerate(below):
            try:
                found = self._finder.find_in(self._descriptor(part.inode), part.layer, name)
            except FileNotFoundError:
                break
            if found is None:
                continue
            if not stat.S_ISDIR(found.attributes.mode):
                found.close()
                break
            if not parts and part.layer.device == self._stack.top.device:
                number = found.attributes.inode
            inode = self.make(part.layer.filesystem, found.handle, found.descriptor)
            parts.append(Part(inode, part.layer))
            if position + 1 < len(below) and self._hides(self._descriptor(inode), name):
                break
        return tuple(parts), number

    def _hides(self, directory: int, name: bytes) -> bool:
        """Whether nothing shows through a directory that has others below it."""
        marks = self._stack.format
        if marks.read(marks.redirect, directory) is not None:
            self._refuse("redirect_dir", name)
        return marks.opaqueness(directory) == b"y"

    def number_of_file(self, found: Found, name: bytes, *, was_below: bool) -> int:
        """The inode number that a regular file had before it was copied up; -1 for none.

        *was_below*: it may have been. Raises `PermissionError` for a file whose contents are
        another one's (metacopy).
        """
        attributes = found.attributes
        allocated = attributes.blocks * _BLOCK
        may_lack = allocated < attributes.size or (attributes.size and allocated <= _OF_MARKS)
        if not may_lack and not was_below:
            return -1
        # By its name: for a first look, to open it would cost more than all else.
        marks, directory = self._stack.format, found.directory
        if may_lack and marks.has(marks.metacopy, directory, name):
            self._refuse("metacopy", name)
        if not was_below:
            return -1
        return origin_number(marks.read(marks.origin, directory, name), self._stack.top.uuid)

    def _refuse(self, feature: str, name: bytes) -> NoReturn:
        if feature not in self._told:
            self._told.add(feature)
            _log.warning(
                "not shown: a layer was made with a feature that inopt does not read",
                feature=feature,
                name=os.fsdecode(name),
            )
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
