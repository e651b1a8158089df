"""Constants of linux/fuse.h, protocol 7.31 to 7.45.

What is looked at per request is a plain ``int`` constant, because operations on ``IntFlag`` cost
about a microsecond each; the enums exist for names and for printing. The binary layouts are in
:mod:`inopt.wire.layouts`.

Source: include/uapi/linux/fuse.h of Linux 5.4 (7.31) to 6.18 (7.45). INIT bit 43 is absent on
purpose: it means different things in different kernels and belongs to ``inopt.kernel.dialects``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

ROOT_ID: Final = 1
"""The nodeid of the root."""
KERNEL_VERSION: Final = 7
"""The protocol's major version."""
LOWEST_MINOR: Final = 31
"""The oldest protocol minor inopt speaks (Linux 5.4)."""
HIGHEST_MINOR: Final = 45
"""The newest protocol minor inopt speaks (Linux 6.18)."""
INIT_EXT_MINOR: Final = 36
"""From this minor on INIT requests are 64 bytes and have ``flags2``."""
EXTENSION_HEADER_MINOR: Final = 38
"""From this minor on the request header tells the length of the extension block."""
RESEND_UNIQUE_BIT: Final = 1 << 63
"""Set in ``unique`` of a request that was sent again (``FUSE_UNIQUE_RESEND``)."""
EXTENSION_GROUPS: Final = 32
"""Extension type of supplementary groups (``FUSE_EXT_GROUPS``); smaller: security contexts."""
IOCTL_MAX_IOVS: Final = 256
"""Most input plus output vectors in an IOCTL retry reply (``FUSE_IOCTL_MAX_IOV``)."""
MIN_READ_BUFFER: Final = 8192
"""Smallest buffer in bytes that read(2) on /dev/fuse accepts (``FUSE_MIN_READ_BUFFER``)."""

STATX_BASIC_STATS: Final = 0x7FF
"""Every field of stat(2) is valid (linux/stat.h)."""
STATX_BTIME: Final = 0x800
"""The birth time is valid (linux/stat.h)."""

FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6
FOPEN_PASSTHROUGH: Final = 1 << 7

GETATTR_FH: Final = 1 << 0
OPEN_KILL_SUIDGID: Final = 1 << 0
WRITE_CACHE: Final = 1 << 0
WRITE_LOCKOWNER: Final = 1 << 1
WRITE_KILL_SUIDGID: Final = 1 << 2
READ_LOCKOWNER: Final = 1 << 1
RELEASE_FLUSH: Final = 1 << 0
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
FSYNC_FDATASYNC: Final = 1 << 0
LOCK_FLOCK: Final = 1 << 0
SETXATTR_ACL_KILL_SGID: Final = 1 << 0
POLL_SCHEDULE_NOTIFY: Final = 1 << 0
ATTR_SUBMOUNT: Final = 1 << 0
ATTR_DAX: Final = 1 << 1
EXPIRE_ONLY: Final = 1 << 0
IOCTL_COMPAT: Final = 1 << 0
IOCTL_UNRESTRICTED: Final = 1 << 1
IOCTL_RETRY: Final = 1 << 2
IOCTL_32BIT: Final = 1 << 3
IOCTL_DIR: Final = 1 << 4
IOCTL_COMPAT_X32: Final = 1 << 5


class InitFlag(IntFlag):
    """What the kernel offers in INIT and the daemon takes (``flags`` and ``flags2 << 32``)."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    INIT_RESERVED = 1 << 31
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


class OpenReplyFlag(IntFlag):
    """Flags of an OPEN, OPENDIR or CREATE reply (``FOPEN_*``)."""

    DIRECT_IO = FOPEN_DIRECT_IO
    KEEP_CACHE = FOPEN_KEEP_CACHE
    NONSEEKABLE = FOPEN_NONSEEKABLE
    CACHE_DIR = FOPEN_CACHE_DIR
    STREAM = FOPEN_STREAM
    NOFLUSH = FOPEN_NOFLUSH
    PARALLEL_DIRECT_WRITES = FOPEN_PARALLEL_DIRECT_WRITES
    PASSTHROUGH = FOPEN_PASSTHROUGH


class SetattrValid(IntFlag):
    """Which fields of a SETATTR request count (``FATTR_*``)."""

    MODE = FATTR_MODE
    UID = FATTR_UID
    GID = FATTR_GID
    SIZE = FATTR_SIZE
    ATIME = FATTR_ATIME
    MTIME = FATTR_MTIME
    FH = FATTR_FH
    ATIME_NOW = FATTR_ATIME_NOW
    MTIME_NOW = FATTR_MTIME_NOW
    LOCKOWNER = FATTR_LOCKOWNER
    CTIME = FATTR_CTIME
    KILL_SUIDGID = FATTR_KILL_SUIDGID


class WriteFlag(IntFlag):
    """Flags of a WRITE request (``FUSE_WRITE_*``)."""

    CACHE = WRITE_CACHE
    LOCKOWNER = WRITE_LOCKOWNER
    KILL_SUIDGID = WRITE_KILL_SUIDGID


class ReadFlag(IntFlag):
    """Flags of a READ request (``FUSE_READ_*``)."""

    LOCKOWNER = READ_LOCKOWNER


class GetattrFlag(IntFlag):
    """Flags of a GETATTR or STATX request (``FUSE_GETATTR_*``)."""

    FH = GETATTR_FH


class OpenInFlag(IntFlag):
    """``open_flags`` of an OPEN or CREATE request (``FUSE_OPEN_*``)."""

    KILL_SUIDGID = OPEN_KILL_SUIDGID


class ReleaseFlag(IntFlag):
    """Flags of a RELEASE request (``FUSE_RELEASE_*``)."""

    FLUSH = RELEASE_FLUSH
    FLOCK_UNLOCK = RELEASE_FLOCK_UNLOCK


class FsyncFlag(IntFlag):
    """Flags of an FSYNC or FSYNCDIR request (``FUSE_FSYNC_*``)."""

    FDATASYNC = FSYNC_FDATASYNC


class LockFlag(IntFlag):
    """Flags of a GETLK, SETLK or SETLKW request (``FUSE_LK_*``)."""

    FLOCK = LOCK_FLOCK


class SetxattrFlag(IntFlag):
    """``setxattr_flags`` of the extended SETXATTR request (``FUSE_SETXATTR_*``)."""

    ACL_KILL_SGID = SETXATTR_ACL_KILL_SGID


class AttrFlag(IntFlag):
    """Flags of the attributes in a reply (``FUSE_ATTR_*``)."""

    SUBMOUNT = ATTR_SUBMOUNT
    DAX = ATTR_DAX


class EntryExpireFlag(IntFlag):
    """Flags of an entry invalidation: let it expire instead of dropping it (7.38)."""

    EXPIRE_ONLY = EXPIRE_ONLY


class IoctlFlag(IntFlag):
    """Flags of an IOCTL request and reply (``FUSE_IOCTL_*``)."""

    COMPAT = IOCTL_COMPAT
    UNRESTRICTED = IOCTL_UNRESTRICTED
    RETRY = IOCTL_RETRY
    BITS_32 = IOCTL_32BIT
    DIR = IOCTL_DIR
    COMPAT_X32 = IOCTL_COMPAT_X32


class NotifyCode(IntEnum):
    """What a notification says; it stands in the ``error`` field of its header."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7
    INC_EPOCH = 8
    PRUNE = 9
