"""The marks of one entry: whether they are such as the kernel obeys, and what they ask of it.

Source: fs/overlayfs (overlayfs.h, namei.c, util.c) of Linux 6.18, and what it was seen to do.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

from inopt import syscalls
from inopt.layers.format import Format, decode_origin, filesystem_uuid
from inopt.layers.tools.entries import MARKS, Entry, is_mark, listed, type_of
from inopt.layers.tools.findings import Finding, finding
from inopt.layers.tools.places import Directory, shown

_ORIGIN: Final = struct.Struct("<BBBBB16s")
_ORIGIN_MAGIC: Final = 0xFB
_ON_DIRECTORIES: Final = frozenset({"opaque", "impure", "redirect", "origin", "protattr", "upper"})
_ON_FILES: Final = frozenset({"metacopy", "redirect", "origin", "nlink", "protattr", "whiteout"})
_ON_OTHERS: Final = frozenset({"origin", "nlink", "protattr"})
# The digest comes after version, length, flags and algorithm.
_METACOPY_HEADER: Final = 4


class Marks:
    """What is to be said of marks named by *chosen*; *lowers*: whose inodes origins may name."""

    def __init__(self, chosen: Format, lowers: tuple[Directory, ...] = ()) -> None:
        self._format = chosen
        user = chosen.prefix.startswith("user.")
        self._other = Format(user=not user)
        self._option = "without --userxattr" if user else "with --userxattr"
        uuids = [(filesystem_uuid(place.descriptor), place) for place in lowers]
        # Where filesystems have no numbers of their own, an origin may name a file of any.
        if len({place.device for place in lowers}) > 1:
            uuids = [(uuid, place) for uuid, place in uuids if any(uuid)]
        self._by_uuid = {uuid: place.descriptor for uuid, place in reversed(uuids)}

    def of(self, entry: Entry, *, top: bool = False) -> Iterator[tuple[Finding, str]]:
        """Findings, each with the attribute that it is about; *top*: the layer's own root."""
        for attribute in listed(entry.directory, entry.name, entry.path):
            if is_mark(attribute, self._other):
                yield (
                    finding(
                        "OVL121",
                        entry.path,
                        mark=attribute,
                        prefix=self._format.prefix,
                        option=self._option,
                    ),
                    attribute,
                )
        for name, value in entry.marks.items():
            found = self._mark(entry, name, value, top=top)
            if found is not None:
                yield found, self._format.prefix + name

    def _mark(self, entry: Entry, name: str, value: bytes, *, top: bool) -> Finding | None:
        mark = self._format.prefix + name
        if name not in MARKS:
            return finding("OVL124", entry.path, mark=mark)
        if not _belongs(entry, name, top=top):
            return finding("OVL122", entry.path, mark=mark, type=entry.type)
        text = repr(shown(value)) if value else "''"
        match name:
            case "opaque" if value == b"x":
                return finding("OVL106", entry.path)
            case "opaque" if value != b"y":
                return finding("OVL105", entry.path, mark=mark, value=text)
            case "impure" if value != b"y":
                return finding("OVL123", entry.path, mark=mark, value=text)
            case "uuid" if len(value) != 16:
                return finding("OVL123", entry.path, mark=mark, value=text)
            case "origin":
                return self._origin(entry, value)
            case "redirect":
                # That of a file whose contents are elsewhere is told with those.
                moved = "metacopy" not in entry.marks and entry.is_directory
                return finding("OVL131", entry.path, value=text) if moved else None
            case "metacopy":
                return _metacopy(entry, value)
            case "nlink" | "upper":
                return finding("OVL135", entry.path)
            case "protattr":
                return finding("OVL137", entry.path, value=text)
        return None

    def _origin(self, entry: Entry, value: bytes) -> Finding | None:
        why = _broken(value)
        if why:
            return finding("OVL125", entry.path, why=why)
        decoded = decode_origin(value)
        descriptor = self._by_uuid.get(decoded[1]) if decoded else None
        if decoded is None or descriptor is None:
            return None
        try:
            lower = syscalls.open_by_handle(descriptor, decoded[0], os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None  # it is gone, or not to be looked for: the kernel takes it as unknown
        try:
            status = os.fstat(lower)
        finally:
            os.close(lower)
        if stat.S_IFMT(status.st_mode) == stat.S_IFMT(entry.status.st_mode):
            return None
        return finding("OVL126", entry.path, other=type_of(status), type=entry.type)


def _belongs(entry: Entry, name: str, *, top: bool) -> bool:
    if name == "uuid":
        return top
    if entry.is_directory:
        return name in _ON_DIRECTORIES
    if name == "whiteout" and entry.status.st_size:
        return False
    return name in (_ON_FILES if entry.is_file else _ON_OTHERS)


def _broken(value: bytes) -> str:
    """Why the kernel does not take an origin; empty if it does. An empty one is of no one."""
    if not value:
        return ""
    if len(value) < _ORIGIN.size:
        return f"{len(value)} bytes"
    _version, magic, length, _flags, _kind, _uuid = _ORIGIN.unpack_from(value)
    if len(value) < length:
        return f"{len(value)} of {length} bytes"
    return "" if magic == _ORIGIN_MAGIC else f"magic number {magic:#x}"


def _metacopy(entry: Entry, value: bytes) -> Finding:
    redirect = entry.marks.get("redirect", b"")
    if len(value) > _METACOPY_HEADER:
        return finding("OVL134", entry.path)
    if redirect.startswith(b"/"):
        return finding("OVL133", entry.path, value=repr(shown(redirect)))
    return finding("OVL132", entry.path)
