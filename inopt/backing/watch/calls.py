"""The raw calls of fanotify(7) and inotify(7), which the standard library lacks.

Every function raises `OSError` with the call's errno. Numbers: linux/fanotify.h, linux/inotify.h.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

# Bits of events. Most have the same number in both interfaces.
MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
OVERFLOW: Final = 0x4000
ON_DIRECTORY: Final = 0x4000_0000

IN_IGNORED: Final = 0x8000
_IN_ONLY_DIRECTORY: Final = 0x0100_0000

_FAN_CLOEXEC: Final = 0x1
_FAN_NONBLOCK: Final = 0x2
_FAN_REPORT_THREAD: Final = 0x100
_FAN_REPORT_FID: Final = 0x200
_FAN_REPORT_DIRECTORY: Final = 0x400
_FAN_REPORT_NAME: Final = 0x800
_FAN_REPORT_TARGET: Final = 0x1000
_FAN_FLAGS: Final = (
    _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_REPORT_THREAD | _FAN_REPORT_FID | _FAN_REPORT_DIRECTORY
    | _FAN_REPORT_NAME | _FAN_REPORT_TARGET
)  # fmt: skip
_FAN_MARK_ADD: Final = 0x1
_FAN_MARK_FILESYSTEM: Final = 0x100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
_libc.fanotify_mark.argtypes = (
    ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p,
)  # fmt: skip
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def fanotify_init() -> int:
    """A group whose events name inodes and directories by file handle, and the thread.

    Linux 5.17. Raises ``EPERM`` without CAP_SYS_ADMIN, ``EINVAL`` where the kernel is older.
    """
    return _checked(_libc.fanotify_init(_FAN_FLAGS, os.O_RDONLY | os.O_CLOEXEC))


def fanotify_mark_filesystem(group: int, directory: int, mask: int) -> None:
    """Let *group* be told of *mask* on the whole filesystem that *directory* (``O_PATH``) is on.

    Raises ``ENODEV`` (it has no id), ``EOPNOTSUPP`` (no file handles), ``EXDEV`` (btrfs: not the
    topmost subvolume).
    """
    flags = _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM
    _checked(_libc.fanotify_mark(group, flags, mask | ON_DIRECTORY, directory, b"."))


def inotify_init() -> int:
    """An inotify descriptor. Raises ``EMFILE`` beyond fs.inotify.max_user_instances."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add(descriptor: int, directory: int, mask: int) -> int:
    """Watch *directory* (``O_PATH``); returns the number of the watch.

    Raises ``ENOSPC`` beyond fs.inotify.max_user_watches.
    """
    path = b"/proc/self/fd/%d" % directory
    return _checked(_libc.inotify_add_watch(descriptor, path, mask | _IN_ONLY_DIRECTORY))


def inotify_remove(descriptor: int, watch: int) -> None:
    """End a watch. Raises ``EINVAL`` if it has ended by itself."""
    _checked(_libc.inotify_rm_watch(descriptor, watch))
