"""What ``inopt overlay fsck --fix`` does to a layer. A directory keeps its times meanwhile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inopt.layers.format import beneath, make_whiteout
from inopt.layers.working import remove_tree


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
