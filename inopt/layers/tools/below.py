"""What lies below the upper layer: the lowers, seen as the one tree that a mount would show.

The rules are those of the kernel's lookup: from the topmost layer down until a whiteout, something
that is no directory, or an opaque directory ends the search.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from inopt.exceptions import UsageError
from inopt.layers.format import Format
from inopt.layers.tools.entries import Entry, Layer, join, names_in
from inopt.layers.tools.places import Directory, shown

FEATURES: Final = {
    "metacopy": "its contents are in another layer (metacopy)",
    "redirect": "what it merges with has another name (redirect_dir)",
}


class Below:
    """The directories of the lowers that merge at one place, topmost first; may be none."""

    __slots__ = ("_levels", "_path")

    def __init__(self, levels: list[tuple[Layer, int]], path: bytes) -> None:
        self._levels = levels
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._levels)

    def find(self, name: bytes) -> Entry | None:
        """What shows at *name*. Raises `InoptError` if it cannot be read, or not by us."""
        found = self._all(name)
        return found[0][1] if found else None

    def names(self) -> list[bytes]:
        """All names that show, sorted."""
        names = {name for layer, level in self._levels for name in names_in(level, self._path)}
        return sorted(name for name in names if self.find(name) is not None)

    def top(self) -> Entry | None:
        """The directory itself, as it shows."""
        if not self._levels:
            return None
        level = self._levels[0][1]
        status = os.fstat(level)
        return Entry(self._path, b"", level, status, {})

    @contextmanager
    def enter(self, name: bytes) -> Iterator[Below]:
        """What lies below the directory *name*; nothing if it does not show as a directory."""
        levels: list[tuple[Layer, int]] = []
        try:
            for layer, entry in self._all(name):
                if entry.is_directory:
                    levels.append((layer, entry.open_directory()))
            yield Below(levels, join(self._path, name))
        finally:
            for _layer, level in levels:
                os.close(level)

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """The extended attributes of one that `find` or `top` has returned, without marks."""
        layer = next(layer for layer, level in self._levels if level == entry.directory)
        return layer.attributes(entry)

    def _all(self, name: bytes) -> list[tuple[Layer, Entry]]:
        """What merges at *name*: one, or directories only."""
        found: list[tuple[Layer, Entry]] = []
        for layer, level in self._levels:
            entry = layer.find(level, name, join(self._path, name))
            if entry is None:
                continue
            if entry.is_whiteout or (found and not entry.is_directory):
                break
            require_plain(entry)
            found.append((layer, entry))
            if not entry.is_directory or entry.is_opaque:
                break
        return found


NOTHING: Final = Below([], b"")


def below_all(places: tuple[Directory, ...], chosen: Format) -> Below:
    """The root of the tree that the lowers make. It ends with *places*, which stay open."""
    return Below([(Layer(place, chosen), place.descriptor) for place in places], b"")


def require_plain(entry: Entry) -> None:
    """Raise `UsageError` if only a mount with other layers tells what *entry* shows."""
    for mark, meaning in FEATURES.items():
        # A file keeps the redirect of the time before its contents were copied.
        if mark in entry.marks and (mark == "metacopy" or entry.is_directory):
            raise UsageError(
                f"'{shown(entry.path)}': {meaning}, which is not read here: mount the layers with "
                "that option and copy the tree"
            )
