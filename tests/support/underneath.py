"""Random changes below a mount and through it, and what both sides say of a tree afterwards.

As a program (``python underneath.py MOUNT SEED``) it walks a mount without end.
"""

from __future__ import annotations

import os
import random
import stat
import sys
from contextlib import suppress
from typing import Any, Final

NAMES: Final = ("a", "b", "c", "e", "d0", "d1")
_KINDS: Final = (
    "write", "append", "mkdir", "unlink", "rmdir", "rename", "chmod", "symlink", "truncate",
    "utime", "replace", "link",
)  # fmt: skip


def change(top: str, chance: random.Random, *, links: bool = True) -> None:
    """Do one random thing somewhere below *top*; mostly it can be done."""
    directories = [top]
    for folder, folders, _ in os.walk(top):
        directories += [os.path.join(folder, name) for name in folders]
    path = os.path.join(chance.choice(directories), chance.choice(NAMES))
    other = os.path.join(chance.choice(directories), chance.choice(NAMES))
    kind = chance.choice(_KINDS if links else _KINDS[:-1])
    with suppress(OSError):
        match kind:
            case "write" | "append":
                with open(path, kind[0], encoding="ascii") as file:
                    file.write("x" * chance.randrange(50))
            case "mkdir":
                os.mkdir(path)
            case "unlink":
                os.unlink(path)
            case "rmdir":
                os.rmdir(path)
            case "rename":
                os.rename(path, other)
            case "chmod":
                os.chmod(path, 0o600 | chance.randrange(64))
            case "symlink":
                os.symlink(f"target{chance.randrange(9)}", path)
            case "truncate":
                os.truncate(path, chance.randrange(9))
            case "utime":
                os.utime(path, (5, chance.randrange(1_000_000)))
            case "replace":
                with open(f"{path}.new", "w", encoding="ascii") as file:
                    file.write(f"new {chance.randrange(99)}")
                os.rename(f"{path}.new", path)
            case "link":
                os.link(path, other, follow_symlinks=False)


def tree(top: str) -> dict[str, Any]:
    """Everything about all names below *top*, and about names that are not there."""
    found: dict[str, Any] = {}
    _add(found, top, "")
    return found


def _add(found: dict[str, Any], folder: str, relative: str) -> None:
    status = os.lstat(folder)
    number = status.st_ino if relative else 0  # the mount's root has one of its own
    found[relative] = (
        status.st_mode, number, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip
    for name in sorted({*os.listdir(folder), *NAMES}):
        path, inner = os.path.join(folder, name), f"{relative}/{name}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            found[inner] = None
            continue
        if stat.S_ISDIR(status.st_mode):
            _add(found, path, inner)
            continue
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        else:
            with open(path, encoding="ascii") as file:
                content = file.read()
        found[inner] = (
            status.st_mode, status.st_ino, status.st_size, status.st_nlink, status.st_mtime_ns,
            status.st_ctime_ns, content,
        )  # fmt: skip


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two trees say differently."""
    return {
        path: (one.get(path), other.get(path))
        for path in sorted({*one, *other})
        if one.get(path) != other.get(path)
    }


def walk(top: str, seed: int) -> None:
    """Look at everything below *top* again and again, so that the kernel remembers it."""
    chance = random.Random(seed)
    print("ready", flush=True)
    while True:
        folders = [top]
        while folders:
            folder = folders.pop()
            with suppress(OSError):
                for name in {*os.listdir(folder), *NAMES}:
                    with suppress(OSError):
                        _visit(os.path.join(folder, name), folders, chance)


def _visit(path: str, folders: list[str], chance: random.Random) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        folders.append(path)
    elif stat.S_ISLNK(mode):
        os.readlink(path)
    elif chance.random() < 0.3:
        with open(path, encoding="ascii") as file:
            file.read()


if __name__ == "__main__":
    walk(sys.argv[1], int(sys.argv[2]))
