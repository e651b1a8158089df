"""What ``inopt overlay fsck --fix`` does to a layer. A directory keeps its times meanwhile."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from inopt.layers.format import beneath, make_whiteout


@contextmanager
def keeping_times(directory: int) -> Iterator[None]:
    """Names may come and go: the overlay shows this directory's times, which did not change."""
    before = os.fstat(directory)
    try:
        yield
    finally:
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(directory: int, name: bytes) -> None:
    """Remove one that is no directory. Raises `OSError`."""
    with keeping_times(directory):
        os.unlink(name, dir_fd=directory)


def become_whiteout(directory: int, name: bytes) -> None:
    """Put a whiteout in the place of *name*, in one step. Raises `OSError`."""
    spare = b".inopt-fsck-" + secrets.token_hex(8).encode()
    with keeping_times(directory):
        make_whiteout(directory, spare)
        try:
            os.rename(spare, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(spare, dir_fd=directory)
            raise


def set_mark(directory: int, mark: str, value: bytes) -> None:
    """Mark a directory. Raises `OSError`."""
    os.setxattr(beneath(directory), mark, value)


def mark_remover(directory: int, name: bytes, mark: str) -> Callable[[], None]:
    """What removes a mark; it raises `OSError`."""
    return lambda: os.removexattr(beneath(directory, name), mark, follow_symlinks=not name)


def tree_remover(directory: int, name: bytes) -> Callable[[], None]:
    """What removes *name* and all below it; it raises `OSError`."""
    return lambda: remove_tree(directory, name)


def remove_tree(directory: int, name: bytes) -> None:
    """Remove *name* and all below it, not across a mount (``EXDEV``). Raises `OSError`."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    inner = os.open(name, flags, dir_fd=directory)
    try:
        if status.st_dev != os.fstat(directory).st_dev:
            raise OSError(18, "a filesystem is mounted there", os.fsdecode(name))
        with suppress(PermissionError):
            os.fchmod(inner, 0o700)
        for below in os.listdir(inner):
            remove_tree(inner, os.fsencode(below))
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)
