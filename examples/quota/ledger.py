"""Who has used how much: limited directories, and which inodes are counted in them."""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from dataclasses import dataclass
from typing import TypeAlias

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
NO_LIMIT = 1 << 62


def number_of(text: str | int) -> int:
    """A number, with a unit if it is a text: 1M is 1048576."""
    if isinstance(text, int):
        return text
    return int(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else int(text)


@dataclass
class Area:
    """A limited directory. ``above``: a limited one that it is in, which counts all that this does.

    Bytes are those of the files' sizes; files are whatever has an inode.
    """

    path: str
    most_bytes: int
    most_files: int
    above: Area | None = None
    bytes: int = 0
    files: int = 0

    def room(self) -> int:
        """How many bytes still fit here and above."""
        here = self.most_bytes - self.bytes
        return here if self.above is None else min(here, self.above.room())

    def free_files(self) -> int:
        """How many files still fit here and above."""
        here = self.most_files - self.files
        return here if self.above is None else min(here, self.above.free_files())

    def count(self, more_bytes: int, more_files: int) -> None:
        """Something has come, or gone (negative)."""
        self.bytes += more_bytes
        self.files += more_files
        if self.above is not None:
            self.above.count(more_bytes, more_files)

    def require(self, more_bytes: int, more_files: int) -> None:
        """Raise ``EDQUOT`` unless so much more fits."""
        if more_bytes > max(self.room(), 0) or more_files > max(self.free_files(), 0):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), self.path)


Key: TypeAlias = tuple[int, int]


def key_of(status: os.stat_result) -> Key:
    """What tells an inode from all others."""
    return status.st_dev, status.st_ino


def size_of(status: os.stat_result) -> int:
    """The bytes that an inode counts for."""
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


class Ledger:
    """The areas, and by inode in which one it is; inodes that are in none are not in here.

    For a directory it is the area of what is in it. *limits* is the path of a TOML file.
    """

    def __init__(self, limits: str) -> None:
        with open(limits, "rb") as file:
            self._limits = {path.strip("/"): limit for path, limit in tomllib.load(file).items()}
        self.areas: dict[Key, Area] = {}
        self.tops: set[Key] = set()

    def scan(self, root: int) -> None:
        """Find out what is in the limited directories of *root*, a descriptor.

        Raises `LookupError` for one that is not there: its limit would hold for nothing.
        """
        missing = set(self._limits)
        self._scan(root, "", None, missing)
        if missing:
            raise LookupError(f"no such directories in the source: {', '.join(sorted(missing))}")

    def _scan(self, directory: int, path: str, area: Area | None, missing: set[str]) -> None:
        status = os.fstat(directory)
        if path in self._limits:
            missing.discard(path)
            limit = {key: number_of(value) for key, value in self._limits[path].items()}
            area = Area(path, limit.get("bytes", NO_LIMIT), limit.get("files", NO_LIMIT), area)
            self.tops.add(key_of(status))
        if area is not None:
            self.areas[key_of(status)] = area
        for name in os.listdir(directory):
            self._enter(directory, name, os.path.join(path, name), area, missing)

    def _enter(
        self, directory: int, name: str, path: str, area: Area | None, missing: set[str]
    ) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        if area is not None and key_of(status) not in self.areas:
            self.areas[key_of(status)] = area
            area.count(size_of(status), 1)
        leads_on = area is not None or any(
            (f"{limit}/").startswith(f"{path}/") for limit in missing
        )
        if is_directory and leads_on and status.st_dev == os.fstat(directory).st_dev:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                self._scan(below, path, area, missing)
            finally:
                os.close(below)
