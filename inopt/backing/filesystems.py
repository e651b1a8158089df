"""The filesystems found below the root, one for each mount: how its inodes are reopened."""

from __future__ import annotations

import fcntl
import os
from typing import Final

from inopt import syscalls

# statfs(2) numbers of filesystems that write back to a server when a file is closed.
_FLUSH_AT_CLOSE: Final = frozenset(
    {
        0x6969,  # nfs
        0xFF534D42,  # cifs
        0xFE534D42,  # smb2
        0x65735546,  # fuse
        0x00C36400,  # ceph
        0x5346414F,  # afs
        0x0BD00BD0,  # lustre
    }
)

# Those on which others make changes, of which this machine's kernel is not told or tells nobody.
_CHANGED_ELSEWHERE: Final = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x65735546: "fuse",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x0BD00BD0: "lustre",
    0x01021997: "9p",
    0x73757245: "coda",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x786F4256: "vboxsf",
    0x20030528: "orangefs",
    0x19830326: "beegfs",
    0x47504653: "gpfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x0027E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
}

# Those that find a name whatever its case is, in every directory.
_IGNORE_CASE: Final = frozenset(
    {
        0x00004D44,  # vfat
        0x2011BAB0,  # exfat
        0x7366746E,  # ntfs3
        0x5346544E,  # ntfs
        0xFF534D42,  # cifs
        0xFE534D42,  # smb2
        0x0000482B,  # hfsplus
    }
)
# Those whose ``st_ino`` is what the kernel itself calls the inode (``i_ino``), as far as known.
_SURE_NUMBERS: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0xF2F52010,  # f2fs
    }
)
_FS_CASEFOLD_FL: Final = 0x40000000  # linux/fs.h: of a directory


class Filesystem:
    """One mount below (or at) the root.

    ``descriptor`` is a descriptor on the mount for `syscalls.open_by_handle`, or -1 where file
    handles do not work: then each known inode keeps a descriptor of its own. ``has_handles``:
    whether inodes can be reopened by their file handle.
    """

    __slots__ = ("descriptor", "device_major", "device_minor", "has_handles", "mount_id")

    def __init__(
        self, mount_id: int, device_major: int, device_minor: int, descriptor: int
    ) -> None:
        self.mount_id = mount_id
        self.device_major = device_major
        self.device_minor = device_minor
        self.descriptor = descriptor
        self.has_handles = descriptor >= 0

    def close(self) -> None:
        """Give the mount up."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self.has_handles = False


def mount_descriptor(directory: int) -> int:
    """A descriptor that opens file handles of the mount that *directory* (``O_PATH``) is on.

    Returns -1 where the filesystem has no file handles that can be opened again (overlayfs
    without ``nfs_export``, many FUSE filesystems), or CAP_DAC_READ_SEARCH is missing.
    """
    try:
        descriptor = os.open(
            f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
    except OSError:
        return -1
    try:
        handle, _ = syscalls.name_to_handle(descriptor)
        os.close(syscalls.open_by_handle(descriptor, handle, os.O_PATH | os.O_CLOEXEC))
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def flushes_at_close(kind: int) -> bool:
    """Whether closing a file of a filesystem of this statfs type writes back to a server."""
    return kind in _FLUSH_AT_CLOSE


def changed_elsewhere(directory: int) -> str | None:
    """The name of the filesystem of *directory*, if changes of it can escape notice here."""
    return _CHANGED_ELSEWHERE.get(syscalls.filesystem_type(directory))


def ignores_case(directory: int) -> bool:
    """Whether a directory (``O_PATH`` descriptor) finds names whatever their case is.

    Some filesystems always do; ext4, f2fs and others do in directories that are marked so
    (``chattr +F``).
    """
    if syscalls.filesystem_type(directory) in _IGNORE_CASE:
        return True
    flags = bytearray(8)
    try:
        descriptor = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, syscalls.FS_IOC_GETFLAGS, flags)
    except OSError:
        return False  # it has no such flags
    finally:
        os.close(descriptor)
    return bool(int.from_bytes(flags[:4], "little") & _FS_CASEFOLD_FL)


def may_mark_directories() -> bool:
    """Whether this kernel knows directories that ignore case (ext4 or f2fs with casefold)."""
    return any(os.path.exists(f"/sys/fs/{name}/features/casefold") for name in ("ext4", "f2fs"))


def numbers_are_sure(kind: int) -> bool:
    """Whether inodes of a filesystem of this statfs type have one number only.

    On others (overlayfs, network filesystems) what stat(2) tells may be made up.
    """
    return kind in _SURE_NUMBERS


def kernel_number(descriptor: int) -> int:
    """What the kernel itself calls the inode behind *descriptor*; -1 if it does not tell.

    Source: proc(5), ``ino`` of fdinfo (Linux 5.14).
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as facts:
        for line in facts:
            key, _, value = line.partition(":")
            if key == "ino":
                return int(value)
    return -1


def has_number(descriptor: int, number: int) -> bool:
    """Whether stat(2) and the kernel itself call the inode behind *descriptor* by *number*."""
    if os.fstat(descriptor).st_ino != number:
        return False
    kind = syscalls.filesystem_type(descriptor)
    return numbers_are_sure(kind) or kernel_number(descriptor) == number
