"""Where a session may be mounted, and what its files in the runtime directory are called."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from inopt.exceptions import UsageError
from inopt.kernel import mounts
from inopt.kernel.mounts import Mounted
from inopt.session import asking


def check_source(path: str) -> str:
    """The real path of a source directory. Raises `UsageError`."""
    _require_name("source", path)
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError as error:
        raise UsageError(
            f"source '{path}': {error.strerror}: name an existing directory"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"source '{path}': not a directory: name a directory")
    return real


def check_mountpoint(path: str, source: str) -> str:
    """The real path of a mountpoint for *source* (a real path). Raises `UsageError`.

    What a killed daemon of inopt has left mounted there is cleared away.
    """
    _require_name("mountpoint", path)
    real = mounts.locate(path)
    mounted = mounts.find_mount(real)
    if mounted is not None and mounts.is_inopt(mounted):
        if is_alive(mounted):
            raise UsageError(
                f"mountpoint '{path}': already an inopt mount of {mounted.source}: "
                f"run 'inopt umount {path}' first"
            )
        clear_dead(mounted)
    try:
        status = os.stat(real)
    except OSError as error:
        hint = "create the directory" if error.errno == errno.ENOENT else "name another directory"
        raise UsageError(f"mountpoint '{path}': {error.strerror}: {hint}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"mountpoint '{path}': not a directory: name a directory")
    if real == source:
        raise UsageError(f"mountpoint '{path}': is the source itself: name another directory")
    if _is_within(real, source):
        raise UsageError(f"mountpoint '{path}': inside the source {source}: name one outside of it")
    if _is_within(source, real):
        raise UsageError(
            f"mountpoint '{path}': the source {source} is inside of it: name another directory"
        )
    return real


def _require_name(what: str, path: str) -> None:
    """An empty path would mean the working directory: a slip in a script, never a wish."""
    if not path:
        raise UsageError(f"{what} '': the path is empty: name a directory")


def _is_within(path: str, directory: str) -> bool:
    """Whether *path* is below *directory*, by identity rather than by name (bind mounts)."""
    wanted = os.stat(directory)
    while True:
        status = os.stat(path)
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
        parent = os.path.dirname(path)
        if parent == path:
            return False
        path = parent


def is_alive(mounted: Mounted) -> bool:
    """Whether the daemon of a mount of inopt runs, without waiting for it to answer requests."""
    alive = asking.is_alive(control_path(mounted.device_minor))
    if alive is None:
        # Its socket may be in another mount namespace: ask the mount itself.
        return not mounts.is_dead(mounted.mountpoint)
    return alive


def clear_dead(mounted: Mounted) -> None:
    """Unmount what a killed daemon has left, and remove its files."""
    mounts.unmount(mounted.mountpoint, lazy=True)
    directory = runtime_directory()
    left = [os.path.basename(control_path(mounted.device_minor))]
    for name in os.listdir(directory):
        stem, kind = os.path.splitext(name)
        if kind == ".log" and not os.path.exists(f"/proc/{stem}/exe"):
            left.append(name)
    for name in left:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))


def runtime_directory() -> str:
    """``/run/inopt`` for root, else below ``$XDG_RUNTIME_DIR``; made if it is missing."""
    base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or "/run"
    path = os.path.join(base, "inopt")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def control_path(device_minor: int) -> str:
    """The control socket of the mount whose filesystem is device 0:*device_minor*."""
    return os.path.join(runtime_directory(), f"{device_minor}.sock")
