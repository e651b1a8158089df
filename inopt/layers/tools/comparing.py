"""``inopt overlay diff``: what an upper layer changes.

With the lowers at hand, the tree that a mount shows is compared with the one that shows without
the upper layer, wherever that has something: so a file that was copied up and is the same again is
no change, and a directory that was made anew differs by what it lacks. Without them only the marks
tell: a copy has an origin (unless it had hard links), and what whiteouts hide is not known.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from inopt.exceptions import UsageError
from inopt.layers.contents import Told, are_alike
from inopt.layers.tools.below import NOTHING, Below, require_plain
from inopt.layers.tools.entries import Entry, Layer
from inopt.layers.tools.places import failed, shown


class Kind(Enum):
    """What happened to a name."""

    ADDED = "added"
    MODIFIED = "modified"
    METADATA = "metadata"
    REMOVED = "removed"
    REPLACED = "replaced"
    OPAQUE = "opaque"


class Change(NamedTuple):
    """One name that is another thing than before.

    ``type`` is that of what is there now (of what was there, for a removed one), ``was`` that of
    what it replaced; both may be empty: not known. ``fields`` are ``contents``, ``mode``,
    ``owner``, ``mtime`` and ``xattrs`` as far as they differ. Sizes are those of regular files,
    in bytes; -1: it is none.
    """

    path: bytes
    kind: Kind
    type: str
    was: str = ""
    fields: tuple[str, ...] = ()
    size: int = -1
    size_before: int = -1


class Comparison:
    """A look for changes. *seen* is called for each entry, *told* with bytes compared."""

    def __init__(
        self,
        layer: Layer,
        below: Below | None,
        seen: Callable[[bytes], object] = lambda _path: None,
        told: Told = lambda _bytes: None,
    ) -> None:
        self._layer = layer
        self._below = below
        self._seen = seen
        self._told = told

    def changes(self) -> Iterator[Change]:
        """All of them, a directory before what is in it, by name. Raises `InoptError`."""
        top = self._layer.top()
        require_plain(top)
        below = self._below
        if below is None:
            if top.is_opaque:
                yield Change(b"", Kind.OPAQUE, top.type)
            yield from self._by_marks(top, fresh=top.is_opaque)
            return
        lower = below.top()
        if lower is not None:
            yield from self._same_type(top, lower, below)
        yield from self._in_directory(top, below, hides=top.is_opaque)

    def _in_directory(self, parent: Entry, below: Below, *, hides: bool) -> Iterator[Change]:
        """*hides*: what the lowers have here does not show, it is only compared with."""
        directory = parent.open_directory()
        there = set()
        try:
            for entry in self._layer.entries(directory, parent.path):
                self._look_at(entry)
                lower = below.find(entry.name)
                if not entry.is_whiteout:
                    there.add(entry.name)
                    yield from self._entry(entry, lower, below, hides=hides)
                elif lower is not None and not hides:
                    yield _removed(lower)
        finally:
            os.close(directory)
        if hides:
            for name in below.names():
                lower = below.find(name)
                if name not in there and lower is not None:
                    yield _removed(lower)

    def _entry(
        self, entry: Entry, lower: Entry | None, below: Below, *, hides: bool
    ) -> Iterator[Change]:
        merges = False
        if lower is None:
            yield Change(entry.path, Kind.ADDED, entry.type, size=_size(entry))
        elif entry.type != lower.type:
            yield Change(
                entry.path, Kind.REPLACED, entry.type, lower.type,
                size=_size(entry), size_before=_size(lower),
            )  # fmt: skip
        else:
            yield from self._same_type(entry, lower, below)
            merges = entry.is_directory
        if merges:
            with below.enter(entry.name) as deeper:
                yield from self._in_directory(entry, deeper, hides=hides or entry.is_opaque)
        elif entry.is_directory:
            yield from self._in_directory(entry, NOTHING, hides=True)

    def _same_type(self, entry: Entry, lower: Entry, below: Below) -> Iterator[Change]:
        fields = [] if self._same_contents(entry, lower) else ["contents"]
        now, before = entry.status, lower.status
        if stat.S_IMODE(now.st_mode) != stat.S_IMODE(before.st_mode):
            fields.append("mode")
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            fields.append("owner")
        # A directory's changes whenever a name comes or goes, which is told by itself.
        if not entry.is_directory and now.st_mtime_ns != before.st_mtime_ns:
            fields.append("mtime")
        if self._layer.attributes(entry) != below.attributes(lower):
            fields.append("xattrs")
        if fields:
            kind = Kind.MODIFIED if fields[0] == "contents" else Kind.METADATA
            yield Change(
                entry.path, kind, entry.type, fields=tuple(fields),
                size=_size(entry), size_before=_size(lower),
            )  # fmt: skip

    def _same_contents(self, entry: Entry, lower: Entry) -> bool:
        if entry.is_directory:
            return True
        if stat.S_ISLNK(entry.status.st_mode):
            return read_link(entry) == read_link(lower)
        if not entry.is_file:
            return entry.status.st_rdev == lower.status.st_rdev
        size = entry.status.st_size
        if size != lower.status.st_size:
            return False
        if not size:
            return True
        one = entry.open_file()
        try:
            other = lower.open_file()
            try:
                return are_alike(one, other, size, self._told)
            except OSError as error:
                raise failed(entry.path, "compare the contents", error) from error
            finally:
                os.close(other)
        finally:
            os.close(one)

    def _by_marks(self, parent: Entry, *, fresh: bool) -> Iterator[Change]:
        """*fresh*: the directory was made in this layer, and so was all in it."""
        directory = parent.open_directory()
        try:
            for entry in self._layer.entries(directory, parent.path):
                self._look_at(entry)
                copied = "origin" in entry.marks and not fresh
                if entry.is_whiteout:
                    if not fresh:
                        yield Change(entry.path, Kind.REMOVED, "")
                elif not entry.is_directory:
                    kind = Kind.MODIFIED if copied else Kind.ADDED
                    yield Change(entry.path, kind, entry.type, size=_size(entry))
                elif entry.is_opaque and not fresh:
                    yield Change(entry.path, Kind.OPAQUE, entry.type)
                elif not copied:
                    yield Change(entry.path, Kind.ADDED, entry.type)
                if entry.is_directory:
                    # One that shows what lies below may lack an origin: it was made by a program.
                    yield from self._by_marks(entry, fresh=fresh or entry.is_opaque)
        finally:
            os.close(directory)

    def _look_at(self, entry: Entry) -> None:
        self._seen(entry.path)
        require_here(entry, self._layer)


def require_here(entry: Entry, layer: Layer) -> None:
    """Raise `UsageError` for an entry that the layer's own filesystem does not tell all of."""
    require_plain(entry)
    if entry.status.st_dev != layer.device:
        raise UsageError(
            f"'{shown(entry.path)}': another filesystem is mounted there, which is no part of the "
            "layer: unmount it"
        )


def read_link(entry: Entry) -> bytes:
    """The target of a symbolic link. Raises `InoptError`."""
    try:
        return os.readlink(entry.name, dir_fd=entry.directory)
    except OSError as error:
        raise failed(entry.path, "read the link", error) from error


def _removed(lower: Entry) -> Change:
    return Change(lower.path, Kind.REMOVED, lower.type, size_before=_size(lower))


def _size(entry: Entry) -> int:
    return entry.status.st_size if entry.is_file else -1
