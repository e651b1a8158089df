"""``inopt umount``: unmount, wait for the daemon to end, say who is in the way."""

from __future__ import annotations

import errno
import os
import time
from typing import Final

import click

from inopt.exceptions import InoptError, UsageError
from inopt.kernel import mounts
from inopt.kernel.mounts import Mounted
from inopt.session import places

_PATIENCE: Final = 15.0  # seconds for the daemon to finish
# Seconds for whoever just looks at the mount (df does, at all of them) and has nothing open there.
_MOMENT: Final = 1.0
_MOST_NAMED: Final = 8


@click.command(epilog="Example: inopt umount /mnt/data")
@click.argument("mountpoint", type=click.Path())
@click.option(
    "--lazy", "-l", is_flag=True, help="Detach now; what is open is served to its last close."
)
def umount(mountpoint: str, lazy: bool) -> None:
    """Unmount MOUNTPOINT and wait until its daemon has finished; clears a dead mount, too."""
    real = mounts.locate(mountpoint)
    mounted = mounts.find_mount(real)
    if mounted is None or not mounts.is_inopt(mounted):
        raise UsageError(f"'{mountpoint}': not an inopt mount: see 'findmnt -t fuse.inopt'")
    try:
        if not places.is_alive(mounted):
            places.clear_dead(mounted)
            return
        _unmount(real, mounted, lazy=lazy)
    except OSError as error:
        if error.errno == errno.EBUSY:
            users = _users(mounted) or (
                "something in another mount namespace, or another mount on top of it"
            )
            raise InoptError(
                f"'{mountpoint}': in use by {users}: end them, or use --lazy"
            ) from error
        if error.errno == errno.EPERM:
            raise UsageError(f"'{mountpoint}': not allowed to unmount: run as root") from error
        raise InoptError(f"'{mountpoint}': {error.strerror}") from error
    if not lazy:
        _wait_gone(places.control_path(mounted.device_minor), mountpoint)


def _unmount(real: str, mounted: Mounted, *, lazy: bool) -> None:
    deadline = time.monotonic() + _MOMENT
    while True:
        try:
            mounts.unmount(real, lazy=lazy)
        except OSError as error:
            is_late = time.monotonic() > deadline
            if error.errno != errno.EBUSY or is_late or _users(mounted):
                raise
            time.sleep(0.02)
        else:
            return


def _wait_gone(socket: str, mountpoint: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while os.path.lexists(socket):
        if time.monotonic() > deadline:
            raise InoptError(
                f"'{mountpoint}': unmounted here, but its daemon has not finished: another mount "
                "namespace has it mounted, too, or its backing filesystem is stuck or slow"
            )
        time.sleep(0.01)


def _users(mounted: Mounted) -> str:
    """The processes that hold a mount busy, found without touching the mount itself; or ""."""
    users = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        what = _use(pid, mounted)
        if what:
            users.append(f"{_name(pid)} (pid {pid}: {what})")
    more = f" and {len(users) - _MOST_NAMED} more" if len(users) > _MOST_NAMED else ""
    return ", ".join(users[:_MOST_NAMED]) + more


def _use(pid: str, mounted: Mounted) -> str:
    prefix = mounted.mountpoint.rstrip("/") + "/"
    for link, what in (("cwd", "working directory"), ("root", "root"), ("exe", "program")):
        try:
            target = os.readlink(f"/proc/{pid}/{link}")
        except OSError:
            continue
        if target == mounted.mountpoint or target.startswith(prefix):
            return what
    try:
        for number in os.listdir(f"/proc/{pid}/fdinfo"):
            if _mount_id(f"/proc/{pid}/fdinfo/{number}") == mounted.mount_id:
                return f"open file {os.readlink(f'/proc/{pid}/fd/{number}')}"
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
            if any(prefix in line for line in maps):
                return "mapped file"
    except OSError:
        pass
    return ""


def _mount_id(path: str) -> int:
    with open(path, encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "?"
