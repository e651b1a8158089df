"""The directories that the tools are given: opened once, and refused where they must not be.

A layer is read by descriptors below one that is opened here, so nothing that is done to the paths
afterwards leads anywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from inopt import syscalls
from inopt.exceptions import InoptError, UsageError
from inopt.layers.format import Format

_ALL_USERS: Final = "0 0 4294967295"


class Directory:
    """A directory that was named on the command line; ``descriptor`` is open for reading."""

    __slots__ = ("descriptor", "device", "number", "path", "real")

    def __init__(self, path: str, what: str) -> None:
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"'{path}': cannot be the {what}: {error.strerror}: name a directory that can be "
                "read"
            ) from error
        self.path = path
        self.real = os.path.realpath(path)
        status = os.fstat(self.descriptor)
        self.device, self.number = status.st_dev, status.st_ino

    def is_same(self, other: Directory) -> bool:
        """Whether two paths lead to one directory."""
        return (self.device, self.number) == (other.device, other.number)

    def is_inside(self, other: Directory) -> bool:
        """Whether this one is *other*, or somewhere below it."""
        return self.is_same(other) or self.real.startswith(other.real.rstrip("/") + "/")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


@contextmanager
def opened(upper: str, lowers: list[str], work: str = "") -> Iterator[tuple[Directory, ...]]:
    """The upper layer, the work directory if there is one, then the lowers, topmost first.

    Raises `UsageError` where one cannot be opened, or where they lie in one another.
    """
    with ExitStack() as stack:
        places = [Directory(upper, "upper layer")]
        stack.callback(places[0].close)
        if work:
            places.append(Directory(work, "work directory"))
            stack.callback(places[-1].close)
        for lower in lowers:
            places.append(Directory(lower, "lower layer"))
            stack.callback(places[-1].close)
        for other in places[1:]:
            require_apart(places[0], other, "the upper layer")
        yield tuple(places)


def require_apart(one: Directory, other: Directory, what: str) -> None:
    """Raise `UsageError` if one of two directories lies in the other; *what*: who is the first."""
    if one.is_inside(other) or other.is_inside(one):
        how = "is" if one.is_same(other) else "overlaps"
        raise UsageError(f"'{other.path}': {how} {what} '{one.path}': name directories apart")


def require_sight(place: Directory, chosen: Format) -> None:
    """Raise `UsageError` if this process would not see the marks that the layer may have."""
    if chosen.prefix.startswith("trusted.") and not _sees_trusted():
        raise UsageError(
            f"'{place.path}': its trusted.overlay.* marks show themselves to root alone: run as "
            "root, or give --userxattr for a layer of a mount with that option"
        )


def _sees_trusted() -> bool:
    """Whether trusted.* attributes are shown: not to the root of a user namespace (xattr(7))."""
    if not syscalls.has_capability(syscalls.CAP_SYS_ADMIN):
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as lines:
            return " ".join(lines.read().split()) == _ALL_USERS
    except OSError:
        return True


def shown(path: bytes) -> str:
    """A path as people may read it: on one line, without bytes that a terminal would obey."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text or "."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def failed(path: bytes, doing: str, error: OSError) -> InoptError:
    """The error to end with where something cannot be done at *path*, and what may help."""
    ways = {1: ": run as root", 13: ": run as root", 24: ": raise 'ulimit -n'", 28: ": make room"}
    way = ways.get(error.errno or 0, "")
    return InoptError(f"'{shown(path)}': cannot {doing}: {error.strerror}{way}")
