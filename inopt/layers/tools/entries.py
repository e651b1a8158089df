"""A layer as it lies on the disk: its entries, one directory at a time, with their marks.

Everything is reached by the descriptor of its directory and never through a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

from inopt.layers.format import Format, beneath
from inopt.layers.tools.places import Directory, failed

_NONE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
MARKS: Final = frozenset(
    {
        "opaque", "redirect", "origin", "impure", "nlink", "upper", "uuid", "metacopy", "protattr",
        "whiteout",
    }
)  # fmt: skip
"""The names after the prefix that Linux 6.18 gives a meaning."""

_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class Entry(NamedTuple):
    """One name in a layer.

    ``path`` is relative to the layer, empty for its root; ``directory`` is the descriptor of the
    directory that has ``name`` (of the root itself, with an empty name). ``marks`` are the
    overlay's extended attributes without their prefix.
    """

    path: bytes
    name: bytes
    directory: int
    status: os.stat_result
    marks: dict[str, bytes]

    @property
    def is_directory(self) -> bool:
        """Whether it has names of its own."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it has contents."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether the name is no more, said in one way or the other."""
        return is_device_whiteout(self.status) or self.is_xattr_whiteout

    @property
    def is_xattr_whiteout(self) -> bool:
        """Whether it is an empty file whose mark says so."""
        return "whiteout" in self.marks and self.is_file and not self.status.st_size

    @property
    def is_opaque(self) -> bool:
        """Whether it is a directory below which nothing of the lower layers shows."""
        return self.is_directory and self.marks.get("opaque") == b"y"

    @property
    def type(self) -> str:
        """What it is, in words."""
        return type_of(self.status)

    def open_directory(self) -> int:
        """A new descriptor of a directory. Raises `InoptError`."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self.name or b".", flags, dir_fd=self.directory)
        except OSError as error:
            raise failed(self.path, "open the directory", error) from error

    def open_file(self) -> int:
        """A new descriptor of a regular file, for reading. Raises `InoptError`."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self.name, flags, dir_fd=self.directory)
        except OSError as error:
            raise failed(self.path, "open the file", error) from error


def type_of(status: os.stat_result) -> str:
    """The type of an inode, in words."""
    if is_device_whiteout(status):
        return "whiteout"
    return _TYPES.get(stat.S_IFMT(status.st_mode), "unknown")


def is_device_whiteout(status: os.stat_result) -> bool:
    """Whether an inode is a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and not status.st_rdev


class Layer:
    """A layer's root and the names of its marks."""

    __slots__ = ("device", "format", "root")

    def __init__(self, place: Directory, chosen: Format) -> None:
        self.root = place.descriptor
        self.device = place.device
        self.format = chosen

    def top(self) -> Entry:
        """The layer's root directory."""
        return Entry(b"", b"", self.root, os.fstat(self.root), self._marks(self.root, b"", b""))

    def find(self, directory: int, name: bytes, path: bytes) -> Entry | None:
        """What has *name*; None if nothing has. Raises `InoptError`."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise failed(path, "read its attributes", error) from error
        return Entry(path, name, directory, status, self._marks(directory, name, path))

    def entries(self, directory: int, path: bytes) -> list[Entry]:
        """All that is in a directory, by name. Raises `InoptError`."""
        found = []
        for name in names_in(directory, path):
            entry = self.find(directory, name, join(path, name))
            if entry is not None:
                found.append(entry)
        return found

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """The extended attributes that an overlay shows of *entry*, without marks.

        Raises `InoptError`.
        """
        found = {}
        for name in listed(entry.directory, entry.name, entry.path):
            title = self.format.shown(name)
            if title is None:
                continue
            value = read_attribute(entry.directory, entry.name, entry.path, name)
            if value is not None:
                found[title] = value
        return found

    def _marks(self, directory: int, name: bytes, path: bytes) -> dict[str, bytes]:
        chosen, found = self.format, {}
        for attribute in listed(directory, name, path):
            if chosen.shown(attribute) is None:
                value = read_attribute(directory, name, path, attribute)
                if value is not None:
                    found[attribute[len(chosen.prefix) :]] = value
        return found


def join(path: bytes, name: bytes) -> bytes:
    """The path of *name* in the directory at *path*."""
    return path + b"/" + name if path else name


def names_in(directory: int, path: bytes) -> list[bytes]:
    """The names in a directory, sorted. Raises `InoptError`."""
    try:
        return sorted(os.fsencode(name) for name in os.listdir(directory))
    except OSError as error:
        raise failed(path, "list the directory", error) from error


def listed(directory: int, name: bytes, path: bytes) -> list[str]:
    """The names of all extended attributes. Raises `InoptError`."""
    try:
        return sorted(os.listxattr(beneath(directory, name), follow_symlinks=not name))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise failed(path, "list its extended attributes", error) from error


def read_attribute(directory: int, name: bytes, path: bytes, attribute: str) -> bytes | None:
    """The value of one extended attribute; None if it is gone. Raises `InoptError`."""
    try:
        return os.getxattr(beneath(directory, name), attribute, follow_symlinks=not name)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise failed(path, f"read its attribute {attribute}", error) from error


def is_mark(attribute: str, chosen: Format) -> bool:
    """Whether an extended attribute is a mark that the kernel knows, with *chosen*'s prefix."""
    return attribute.startswith(chosen.prefix) and attribute[len(chosen.prefix) :] in MARKS


def find_format(place: Directory) -> Format:
    """Which marks a layer has: those with ``user.overlay.`` if there are some, and no others."""
    trusted, user = Format(), Format(user=True)
    # A whole layer is read only if it has none of the usual ones.
    return user if _has_only(place, user, trusted) else trusted


def _has_only(place: Directory, wanted: Format, other: Format) -> bool:
    seen = False
    for top, directories, files, descriptor in os.fwalk(b".", dir_fd=place.descriptor):
        path = top.removeprefix(b".").removeprefix(b"/")
        for name in (b"", *files, *directories):
            attributes = listed(descriptor, name, join(path, name))
            if any(is_mark(attribute, other) for attribute in attributes):
                return False
            seen = seen or any(is_mark(attribute, wanted) for attribute in attributes)
        if os.fstat(descriptor).st_dev != place.device:
            directories.clear()
    return seen
