"""The mount table, mounting and unmounting.

Source: proc(5) (mountinfo, its octal escapes), mount(2), umount2(2), linux/fuse.h.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from typing import Final

import msgspec

from inopt import syscalls
from inopt.exceptions import InoptError, UsageError
from inopt.kernel.device import Device
from inopt.kernel.options import MountOptions

KIND: Final = "fuse.inopt"
MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
_ROOT_MODE: Final = 0o40000
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class Mounted(msgspec.Struct, frozen=True):
    """One line of the mount table; ``options``: those of the filesystem, with commas between."""

    mount_id: int
    device_major: int
    device_minor: int
    mountpoint: str
    kind: str
    source: str
    options: str


def mount_table() -> list[Mounted]:
    """All mounts of this process's namespace, in the order in which they were made."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return [parse_mountinfo(line) for line in lines]


def parse_mountinfo(line: str) -> Mounted:
    """One line of /proc/self/mountinfo."""
    words = line.rstrip("\n").split(" ")
    after = words.index("-")
    major, minor = words[2].split(":")
    return Mounted(
        int(words[0]),
        int(major),
        int(minor),
        _unescaped(words[4]),
        words[after + 1],
        _unescaped(words[after + 2]),
        _unescaped(words[after + 3]),
    )


def _unescaped(text: str) -> str:
    r"""A name as mountinfo has it, where a space is ``\040``."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def find_mount(mountpoint: str) -> Mounted | None:
    """The topmost mount at *mountpoint*, an absolute path; None if nothing is mounted there."""
    found = None
    for mounted in mount_table():
        if mounted.mountpoint == mountpoint:
            found = mounted
    return found


def locate(path: str) -> str:
    """The absolute path of a mountpoint, without touching what is mounted there.

    A dead or stuck mount answers no lstat(2), so only the parent's symbolic links are resolved,
    and those of the last component only if nothing is mounted on it.
    """
    absolute = os.path.abspath(path)
    parent, name = os.path.split(absolute)
    candidate = os.path.join(os.path.realpath(parent), name)
    if find_mount(candidate) is not None:
        return candidate
    return os.path.realpath(absolute)


def is_inopt(mounted: Mounted) -> bool:
    """Whether a line of the mount table is a mount of inopt."""
    return mounted.kind == KIND


def is_dead(mountpoint: str) -> bool:
    """Whether the daemon behind *mountpoint* is gone: everything there answers ``ENOTCONN``."""
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def require_privilege() -> None:
    """Raise `UsageError` unless this is root of the initial user namespace.

    Root of another one may mount, but neither act as other users nor register backing files.
    """
    way_out = "run as root of the initial user namespace"
    if os.geteuid() != 0 or not syscalls.has_capability(syscalls.CAP_SYS_ADMIN):
        raise UsageError(f"mount: needs root (CAP_SYS_ADMIN): {way_out}")
    with open("/proc/self/uid_map", encoding="ascii") as uid_map:
        if uid_map.read().split() != ["0", "0", "4294967295"]:
            raise UsageError(f"mount: this user namespace is not the initial one: {way_out}")


def mount(device: Device, source: str, mountpoint: str, options: MountOptions) -> None:
    """Mount the session of *device* at *mountpoint*.

    Mounted for all users, the kernel checks permissions. Raises `UsageError` without the
    privilege, `InoptError` for what else mount(2) may refuse.
    """
    data = (
        f"fd={device.descriptor},rootmode={_ROOT_MODE:o},user_id={os.geteuid()},"
        f"group_id={os.getegid()},default_permissions,allow_other"
    )
    if options.max_read is not None:
        data += f",max_read={options.max_read}"
    try:
        syscalls.mount(
            os.fsencode(options.source_name or source),
            os.fsencode(mountpoint),
            f"fuse.{options.subtype}".encode(),
            options.flags,
            data.encode(),
        )
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise UsageError(
                f"{mountpoint}: not allowed to mount here ({error.strerror}): run as root "
                "(CAP_SYS_ADMIN)"
            ) from error
        raise InoptError(f"{mountpoint}: cannot be mounted: {error.strerror}") from error


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount what is topmost at *mountpoint*. Raises `OSError`, ``EBUSY`` while it is in use."""
    syscalls.umount(os.fsencode(mountpoint), MNT_DETACH if lazy else 0)


def abort(mounted_at: str, device_minor: int) -> bool:
    """End a session at once: every request in it fails. False if there is no way to.

    By /sys/fs/fuse/connections, or where that is not mounted by a forced unmount, which aborts
    first (umount2(2)) but needs the mount to be attached still.
    """
    try:
        with open(f"/sys/fs/fuse/connections/{device_minor}/abort", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        found = find_mount(mounted_at)
        if found is None or found.device_minor != device_minor:
            return False
        with suppress(OSError):  # EBUSY: aborted all the same
            syscalls.umount(os.fsencode(mounted_at), MNT_FORCE)
    return True
