"""Directories that are written to are one mount's alone: of ours, and of the kernel's overlayfs."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final, NoReturn

from inopt.exceptions import UsageError
from inopt.layers.mounted import layer_mounts

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PATIENCE, _PAUSE = 1.0, 0.02  # seconds for an earlier mount's daemon to end


def take(what: str, path: str, directory: int) -> int:
    """A descriptor that keeps other mounts from using a directory. Raises `UsageError`.

    Who has just been unmounted, or killed, may still be about to end.
    """
    held = os.open(".", _FLAGS, dir_fd=directory)
    try:
        until = time.monotonic() + _PATIENCE
        while not _locked(held):
            if time.monotonic() > until:
                _refuse(what, path, "by another mount", "unmount that, or use another one")
            time.sleep(_PAUSE)
        kernels = _overlay_using(held)
        if kernels is not None:
            _refuse(what, path, f"by the overlay at {kernels}", "unmount that")
    except BaseException:
        os.close(held)
        raise
    return held


def _locked(directory: int) -> bool:
    """Whether the lock on a directory is ours now."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _overlay_using(directory: int) -> str | None:
    """Where the kernel has an overlay mounted that writes to this directory."""
    status = os.fstat(directory)
    for mount in layer_mounts():
        if mount.is_overlay and mount.has(status.st_dev, status.st_ino):
            return mount.point
    return None


def _refuse(what: str, path: str, who: str, way_out: str) -> NoReturn:
    raise UsageError(f"{what} '{path}': in use {who}: {way_out}")
