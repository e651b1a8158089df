"""The work directory: ``work`` in it is where what is made takes shape before it shows.

A volatile mount, which brings nothing to stable storage, has a mark there while it lasts. So no
mount takes its upper layer for whole after a crash, neither the kernel's nor ours.

Source: Documentation/filesystems/overlayfs.rst (volatile mount), fs/overlayfs/super.c and readdir.c
of Linux 6.18 (``work/incompat/volatile/dirty``; whatever is in ``incompat`` has a mount refused).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Final, NoReturn

from inopt import syscalls
from inopt.exceptions import UsageError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
INCOMPATIBLE: Final = b"incompat"
VOLATILE: Final = b"volatile"
_DIRTY: Final = b"dirty"


def take_work(path: str, holder: int) -> tuple[int, bool]:
    """A descriptor of ``work`` in the directory *holder*, cleared; and whether it had to be made.

    Raises `UsageError`, and has cleared nothing then; or `OSError`.
    """
    foreign = set(os.listdir(holder)) - {"work", "index"}
    if foreign:
        _refuse(path, f"not empty: it has '{min(foreign)}'", "name an empty one")
    if entries_of(holder, b"index"):
        _refuse_feature(path, "index")
    try:
        os.mkdir("work", 0o700, dir_fd=holder)
        made = True
    except FileExistsError:
        made = False
    work = os.open("work", _DIRECTORY, dir_fd=holder)
    try:
        _inherit_nothing(work)
        marks = entries_of(work, INCOMPATIBLE)
        if VOLATILE in marks:
            _refuse(
                path,
                "marked as volatile: its upper layer may lack what was written before a crash "
                "(the kernel's overlayfs never takes the mark away)",
                f"remove '{path}/work/incompat' if there was no crash, else use new directories",
            )
        if marks:
            _refuse_feature(path, os.fsdecode(marks[0]))
        clear(work)
    except BaseException:
        os.close(work)
        raise
    return work, made


def _inherit_nothing(work: int) -> None:
    """What is made in it is to have what its maker gives it, whatever the directory above has."""
    os.fchmod(work, 0)
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        with suppress(OSError):  # there is none, or none can be
            os.removexattr(work, name)


def mark_volatile(work: int) -> None:
    """Keep others from mounting the layer until `unmark_volatile`. Raises `OSError`."""
    directories = [os.dup(work)]
    try:
        for name in (INCOMPATIBLE, VOLATILE):
            os.mkdir(name, 0o700, dir_fd=directories[-1])
            directories.append(os.open(name, _DIRECTORY, dir_fd=directories[-1]))
        os.mknod(_DIRTY, stat.S_IFREG | 0o600, dir_fd=directories[-1])
        for directory in directories:
            os.fsync(directory)
    finally:
        for directory in directories:
            os.close(directory)


def unmark_volatile(work: int) -> None:
    """Bring everything to stable storage, and take the mark away. Raises `OSError`: it stays."""
    syscalls.syncfs(work)
    remove_tree(work, INCOMPATIBLE)


def entries_of(directory: int, name: bytes) -> list[bytes]:
    """What is in a directory of *directory*; nothing if it is none."""
    try:
        below = os.open(name, _DIRECTORY, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return sorted(map(os.fsencode, os.listdir(below)))
    finally:
        os.close(below)


def clear(directory: int) -> None:
    """Remove everything in a directory of ours, not following links. Raises `OSError`."""
    for name in os.listdir(directory):
        remove_tree(directory, os.fsencode(name))


def remove_tree(directory: int, name: bytes) -> None:
    """Remove *name* and all below it, not across a mount (``EXDEV``). Raises `OSError`."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    inner = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        if status.st_dev != os.fstat(directory).st_dev:
            raise OSError(errno.EXDEV, "a filesystem is mounted there", os.fsdecode(name))
        try:
            clear(inner)
        except PermissionError:
            # Not before: who has the directory open sees its mode.
            os.fchmod(inner, 0o700)
            clear(inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)


def _refuse_feature(path: str, feature: str) -> NoReturn:
    _refuse(
        path,
        f"its upper layer was made with a feature that inopt does not read: {feature}",
        "mount it with the kernel's overlayfs, or use other directories",
    )


def _refuse(path: str, reason: str, way_out: str) -> NoReturn:
    raise UsageError(f"--work '{path}': {reason}: {way_out}")
