"""A whole tree as a value: what is compared of a bare tree, a backing tree and a mount."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

# The same bytes for both runs, but chosen by the filesystem, not by who asked.
_OWN_TO_A_TREE: Final = ("ino", "mtime", "ctime")


def snapshot(root: Path) -> dict[bytes, dict[str, Any]]:
    """Everything below *root* by its path, the root itself as ``.``."""
    taken: dict[bytes, dict[str, Any]] = {}
    home = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        taken[b"."] = _entry(home, b".")
        _walk(home, b"", taken)
    finally:
        os.close(home)
    return taken


def _walk(directory: int, prefix: bytes, taken: dict[bytes, dict[str, Any]]) -> None:
    for name in sorted(os.fsencode(name) for name in os.listdir(directory)):
        if prefix.count(b"/") > 40:
            break  # deep chains are compared by the scenario that makes them
        path = prefix + name
        entry = taken[path] = _entry(directory, name)
        if stat.S_ISDIR(entry["mode"]):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
            try:
                _walk(below, path + b"/", taken)
            finally:
                os.close(below)


def _entry(directory: int, name: bytes) -> dict[str, Any]:
    status = os.lstat(name, dir_fd=directory)
    entry: dict[str, Any] = {
        "mode": status.st_mode,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "nlink": status.st_nlink,
        "rdev": status.st_rdev,
        "ino": status.st_ino,
        "mtime": status.st_mtime_ns,
        "ctime": status.st_ctime_ns,
    }
    here = b"/proc/self/fd/%d/" % directory + name
    entry["xattrs"] = {
        attribute: os.getxattr(here, attribute, follow_symlinks=False)
        for attribute in sorted(os.listxattr(here, follow_symlinks=False))
    }
    if stat.S_ISLNK(status.st_mode):
        entry["target"] = os.readlink(name, dir_fd=directory)
    if not stat.S_ISDIR(status.st_mode):
        entry["size"] = status.st_size
    if stat.S_ISREG(status.st_mode):
        entry["bytes"] = _content(directory, name)
    return entry


def _content(directory: int, name: bytes) -> bytes | str:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        size = os.fstat(descriptor).st_size
        if size > 64 << 20:
            return f"{size} bytes"
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read()
    finally:
        os.close(descriptor)


def differences(
    one: dict[bytes, dict[str, Any]],
    other: dict[bytes, dict[str, Any]],
    labels: tuple[str, str],
    *,
    same_tree: bool,
) -> list[str]:
    """What two snapshots do not agree on; *same_tree* ones agree on inodes and times, too."""
    found: list[str] = []
    for path in sorted({*one, *other}):
        if path not in one or path not in other:
            found.append(f"{path!r}: only in {labels[0] if path in one else labels[1]}")
            continue
        for key in one[path]:
            if not same_tree and key in _OWN_TO_A_TREE:
                continue
            mine, theirs = one[path][key], other[path].get(key)
            if mine != theirs:
                found.append(
                    f"{path!r} {key}: {labels[0]} {_short(mine)}, {labels[1]} {_short(theirs)}"
                )
    return found


def _short(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 80:
        return f"{len(value)} bytes {value[:32]!r}…{value[-32:]!r}"
    if isinstance(value, int) and value > 4096:
        return f"{value} ({value:#o})"
    return repr(value)


def one_to_one(
    mount: dict[bytes, dict[str, Any]], backing: dict[bytes, dict[str, Any]]
) -> list[str]:
    """Whether two names are one inode in the mount just when they are in the backing tree."""
    pairs = {(mount[path]["ino"], backing[path]["ino"]) for path in mount.keys() & backing.keys()}
    if len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}):
        return []
    return [f"inodes are not one to one: {sorted(pairs)}"]
