"""What overlays and layers look like, as values that two equal ones share."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any, Final

from inopt.backing.inodes import inode_number_of
from inopt.layers.format import decode_origin
from support.snapshot import snapshot

Tree = dict[bytes, dict[str, Any]]
_ORIGINS: Final = ("trusted.overlay.origin", "user.overlay.origin")
# The kernel names each upper layer; a count that only hard links with an index have.
_IMPURE: Final = "trusted.overlay.impure"
_OPAQUE: Final = "trusted.overlay.opaque"
_OWN: Final = ("trusted.overlay.uuid",)
# What a test makes has the time of its making; what layers were filled with is from long ago.
_DECADE: Final = 10 * 365 * 86_400 * 1_000_000_000


def shown(root: Path, *, inodes: bool = False) -> Tree:
    """All that a mount shows, but times of now; *inodes*: the numbers, too."""
    taken = snapshot(root)
    for entry in taken.values():
        _level(entry)
        if not inodes:
            entry.pop("ino")
    return taken


def stored(upper: Path, lowers: tuple[Path, ...]) -> Tree:
    """All that an upper layer holds; an origin as the lower names of that inode."""
    numbers = _names_by_number(lowers)
    taken = snapshot(upper)
    for entry in taken.values():
        _level(entry)
        entry.pop("ino")
        if stat.S_ISCHR(entry["mode"]) and not entry["rdev"]:
            # The kernel makes many whiteouts out of one inode, where it may.
            for key in ("nlink", "mtime"):
                entry.pop(key)
        attributes = entry["xattrs"]
        for name in _OWN:
            attributes.pop(name, None)
        for name in _ORIGINS:
            if name in attributes:
                attributes[name] = _origin(attributes[name], numbers)
    _forget_impure(taken)
    _forget_idle_opaque(taken, (upper, *lowers))
    return taken


def _forget_idle_opaque(taken: Tree, layers: tuple[Path, ...]) -> None:
    """A mark that hides nothing; the kernel's also leaves it at a rename that fails afterwards."""
    for path, entry in taken.items():
        if _OPAQUE in entry["xattrs"] and not _goes_on_below(layers, Path(os.fsdecode(path))):
            entry["xattrs"].pop(_OPAQUE)


def _goes_on_below(layers: tuple[Path, ...], path: Path) -> bool:
    """Whether a directory of the upper layer would show those of lower ones without its mark."""
    reached = layers
    for part in (*reversed(path.parents), path):
        found = []
        for layer in reached:
            mode = _mode(layer / part)
            if stat.S_ISDIR(mode):
                found.append(layer)
            ends_here = part != path and _is_opaque(layer / part)
            if mode and (ends_here or not stat.S_ISDIR(mode)):
                break
        reached = tuple(found)
    return any(layer in reached for layer in layers[1:])


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:
        return False


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _forget_impure(taken: Tree) -> None:
    """A directory is impure for good if a copy is in it; else the kernel clears it when it may."""
    holders = {
        os.path.dirname(path) or b"."
        for path, entry in taken.items()
        if path != b"." and entry["xattrs"].keys() & set(_ORIGINS)
    }
    for path, entry in taken.items():
        if path not in holders:
            entry["xattrs"].pop(_IMPURE, None)


def _level(entry: dict[str, Any]) -> None:
    entry.pop("ctime")
    if time.time_ns() - entry["mtime"] < _DECADE:
        entry["mtime"] = "of now"


def _origin(value: bytes, numbers: dict[int, list[str]]) -> Any:
    decoded = decode_origin(value)
    if decoded is None:
        return "nothing" if not value else f"not readable: {value.hex()}"
    number = inode_number_of(decoded[0])
    return numbers.get(number, [f"no lower inode: {number}"])


def _names_by_number(lowers: tuple[Path, ...]) -> dict[int, list[str]]:
    numbers: dict[int, list[str]] = {}
    for layer, lower in enumerate(lowers):
        for folder, folders, files in os.walk(lower):
            for name in (".", *folders, *files):
                path = os.path.join(folder, name)
                place = f"{layer}:{os.path.relpath(path, lower)}"
                if name != "." or folder == str(lower):
                    numbers.setdefault(os.lstat(path).st_ino, []).append(place)
    return {number: sorted(names) for number, names in numbers.items()}


def apart(one: Tree, other: Tree, labels: tuple[str, str]) -> list[str]:
    """What two of them do not agree on."""
    found: list[str] = []
    for path in sorted({*one, *other}):
        if path not in one or path not in other:
            only = one.get(path) or other[path]
            where = labels[0] if path in one else labels[1]
            found.append(f"{path!r}: only {where} has it, mode {only['mode']:#o}")
            continue
        for key in sorted({*one[path], *other[path]}):
            mine, theirs = one[path].get(key), other[path].get(key)
            if mine != theirs:
                found.append(
                    f"{path!r} {key}: {labels[0]} {_short(mine)}, {labels[1]} {_short(theirs)}"
                )
    return found


def _short(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 60:
        return f"{len(value)} bytes {value[:20]!r}…"
    if isinstance(value, int) and value > 4096:
        return f"{value:#o}"
    return repr(value)
