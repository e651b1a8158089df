"""``inopt overlay export``: an upper layer as a tar archive of an OCI image.

Source: OCI image specification, layer.md: ``.wh.NAME`` says that a name is no more,
``.wh..wh..opq`` that nothing of the layers below shows in its directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from inopt.exceptions import InoptError, UsageError
from inopt.layers.contents import Told, data_ranges
from inopt.layers.tools import tar
from inopt.layers.tools.comparing import read_link, require_here
from inopt.layers.tools.entries import Entry, Layer, join
from inopt.layers.tools.places import failed, shown

_PREFIX: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_PIECE: Final = 1 << 20
_KINDS: Final = {
    stat.S_IFREG: tar.FILE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK,
    stat.S_IFIFO: tar.FIFO,
}


class Export:
    """One run. *write* takes the archive's bytes; *seen*, *told*: see `Comparison`."""

    def __init__(
        self,
        layer: Layer,
        write: tar.Write,
        seen: Callable[[bytes], object] = lambda _path: None,
        told: Told = lambda _bytes: None,
    ) -> None:
        self._layer = layer
        self._archive = tar.Archive(write)
        self._seen = seen
        self._told = told
        self._linked: dict[int, bytes] = {}
        self.skipped: list[bytes] = []
        """The paths of sockets, which a tar archive cannot have."""

    def run(self) -> None:
        """Write all of it. Raises `InoptError`, and what *write* raises."""
        top = self._layer.top()
        require_here(top, self._layer)
        self._archive.add(self._member(top, b"."))
        self._directory(top, hidden=False)
        self._archive.close()

    def _directory(self, parent: Entry, *, hidden: bool) -> None:
        """*hidden*: the archive says already that nothing of the layers below shows here."""
        if parent.is_opaque and not hidden:
            self._archive.add(tar.Member(join(parent.path, _OPAQUE), tar.FILE))
        hidden = hidden or parent.is_opaque
        directory = parent.open_directory()
        try:
            entries = self._layer.entries(directory, parent.path)
            for entry in entries:
                _require_nameable(entry)
                if entry.is_whiteout and not hidden:
                    path = join(parent.path, _PREFIX + entry.name)
                    self._archive.add(tar.Member(path, tar.FILE))
            for entry in entries:
                self._seen(entry.path)
                if not entry.is_whiteout:
                    self._entry(entry, hidden=hidden)
        finally:
            os.close(directory)

    def _entry(self, entry: Entry, *, hidden: bool) -> None:
        require_here(entry, self._layer)
        if stat.S_ISSOCK(entry.status.st_mode):
            self.skipped.append(entry.path)
            return
        first = self._linked.get(entry.status.st_ino)
        if first is not None:
            self._archive.add(self._member(entry, entry.path, link=first))
            return
        if entry.status.st_nlink > 1 and not entry.is_directory:
            self._linked[entry.status.st_ino] = entry.path
        self._archive.add(self._member(entry, entry.path))
        if entry.is_file:
            self._contents(entry)
        elif entry.is_directory:
            self._directory(entry, hidden=hidden)

    def _member(self, entry: Entry, name: bytes, *, link: bytes = b"") -> tar.Member:
        status = entry.status
        target = read_link(entry) if stat.S_ISLNK(status.st_mode) and not link else link
        special = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        attributes = self._layer.attributes(entry) if not link else {}
        for attribute in attributes:
            if "=" in attribute:
                raise InoptError(
                    f"'{shown(entry.path)}': its attribute '{attribute}' has a name that no tar "
                    "archive can hold: remove it"
                )
        return tar.Member(
            name,
            tar.LINK if link else _KINDS[stat.S_IFMT(status.st_mode)],
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_size if entry.is_file and not link else 0,
            status.st_mtime_ns,
            target,
            os.major(status.st_rdev) if special else 0,
            os.minor(status.st_rdev) if special else 0,
            tuple(attributes.items()),
        )

    def _contents(self, entry: Entry) -> None:
        """The bytes of a file, holes written out: few readers know of them."""
        size, position = entry.status.st_size, 0
        if not size:
            return
        descriptor = entry.open_file()
        try:
            for begin, end in (*_ranges(descriptor, size, entry.path), (size, size)):
                while position < begin:
                    self._put(bytes(min(_PIECE, begin - position)))
                    position += min(_PIECE, begin - position)
                while position < end:
                    block = _read(descriptor, min(_PIECE, end - position), position, entry.path)
                    self._put(block)
                    position += len(block)
        finally:
            os.close(descriptor)

    def _put(self, block: bytes) -> None:
        self._archive.data(block)
        self._told(len(block))


def _require_nameable(entry: Entry) -> None:
    if entry.name.startswith(_PREFIX):
        raise UsageError(
            f"'{shown(entry.path)}': no layer of a container image can have a name that begins "
            "with '.wh.': rename it ('inopt overlay fsck' tells what it may be)"
        )


def _ranges(descriptor: int, size: int, path: bytes) -> list[tuple[int, int]]:
    try:
        return list(data_ranges(descriptor, size))
    except OSError as error:
        raise failed(path, "find its data", error) from error


def _read(descriptor: int, size: int, position: int, path: bytes) -> bytes:
    try:
        block = os.pread(descriptor, size, position)
    except OSError as error:
        raise failed(path, "read it", error) from error
    if not block:
        raise InoptError(
            f"'{shown(path)}': became shorter while it was read: end what writes to the layer"
        )
    return block
