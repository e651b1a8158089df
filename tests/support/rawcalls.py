"""System calls that Python's standard library has no function for, by ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Final

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

FALLOC_KEEP_SIZE: Final = 1
FALLOC_PUNCH_HOLE: Final = 2
FALLOC_COLLAPSE_RANGE: Final = 8
FALLOC_ZERO_RANGE: Final = 16
FALLOC_INSERT_RANGE: Final = 32
FALLOC_UNSHARE_RANGE: Final = 64

UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2

FS_SYNC: Final = 0x8
FS_IMMUTABLE: Final = 0x10
FS_APPEND: Final = 0x20
FS_NODUMP: Final = 0x40
FS_NOATIME: Final = 0x80

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EACCESS: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000

F_OFD_GETLK: Final = 36
F_OFD_SETLK: Final = 37
F_OFD_SETLKW: Final = 38

_SYS_FACCESSAT2: Final = 439
_GETFLAGS: Final = 0x80086601
_SETFLAGS: Final = 0x40086602
_STATX_BTIME: Final = 0x800
_STATX_ALL: Final = 0xFFF

_libc: Final = ctypes.CDLL(None, use_errno=True)
_path = ctypes.c_char_p
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.getxattr.argtypes = [_path, _path, ctypes.c_void_p, ctypes.c_size_t]
_libc.getxattr.restype = ctypes.c_ssize_t
_libc.listxattr.argtypes = [_path, ctypes.c_void_p, ctypes.c_size_t]
_libc.listxattr.restype = ctypes.c_ssize_t
_libc.setxattr.argtypes = [_path, _path, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.opendir.argtypes = [_path]
_libc.opendir.restype = ctypes.c_void_p
for _name in ("readdir", "telldir", "rewinddir", "closedir", "dirfd"):
    getattr(_libc, _name).argtypes = [ctypes.c_void_p]
_libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    _done(_libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _done(_libc.fallocate(descriptor, mode, offset, length))


def linkat(descriptor: int, new: bytes) -> None:
    """Give an open file, such as one of O_TMPFILE, a name."""
    path = b"/proc/self/fd/%d" % descriptor
    _done(_libc.linkat(AT_FDCWD, path, AT_FDCWD, new, AT_SYMLINK_FOLLOW))


def faccessat2(path: bytes, mode: int, flags: int) -> None:
    """faccessat2(2): the kernel's answer, not one that libc makes up."""
    _done(_libc.syscall(_SYS_FACCESSAT2, AT_FDCWD, path, mode, flags))


def utimensat(
    path: bytes, access: tuple[int, int], modification: tuple[int, int], flags: int
) -> None:
    """utimensat(2) with (seconds, nanoseconds)."""
    times = (ctypes.c_int64 * 4)(*access, *modification)
    _done(_libc.utimensat(AT_FDCWD, path, times, flags))


def statx(path: bytes, flags: int = AT_SYMLINK_NOFOLLOW) -> dict[str, int]:
    """statx(2): mask, mode, and the time of birth in nanoseconds."""
    room = ctypes.create_string_buffer(256)
    _done(_libc.statx(AT_FDCWD, path, flags, _STATX_ALL, room))
    mask, blksize, attributes, nlink, uid, gid, mode = struct.unpack_from("=IIQIIIH", room, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", room, 0x50)
    (attributes_mask,) = struct.unpack_from("=Q", room, 0x38)
    return {
        "mask": mask,
        "blksize": blksize,
        "attributes": attributes,
        "attributes_mask": attributes_mask,
        "nlink": nlink,
        "uid": uid,
        "gid": gid,
        "mode": mode,
        "has_btime": int(bool(mask & _STATX_BTIME)),
        "btime": seconds * 1_000_000_000 + nanoseconds,
    }


def getxattr(path: bytes, name: bytes, size: int) -> tuple[int, bytes]:
    """getxattr(2) with a buffer of just *size* bytes."""
    room = ctypes.create_string_buffer(max(size, 1))
    length = _done(_libc.getxattr(path, name, room, size))
    return length, room.raw[: min(length, size)]


def listxattr_length(path: bytes, size: int) -> int:
    """The length that listxattr(2) answers for a buffer of *size* bytes."""
    return _done(_libc.listxattr(path, ctypes.create_string_buffer(max(size, 1)), size))


def setxattr(path: bytes, name: bytes, value: bytes, flags: int) -> None:
    """setxattr(2) with any flags."""
    _done(_libc.setxattr(path, name, value, len(value), flags))


def get_flags(descriptor: int) -> int:
    """FS_IOC_GETFLAGS."""
    room = bytearray(8)
    fcntl.ioctl(descriptor, _GETFLAGS, room)
    return int.from_bytes(room[:4], "little")


def set_flags(descriptor: int, flags: int) -> None:
    """FS_IOC_SETFLAGS."""
    fcntl.ioctl(descriptor, _SETFLAGS, struct.pack("=Q", flags))


def lock_record(kind: int, start: int, length: int) -> bytes:
    """A ``struct flock``."""
    return struct.pack("=hh4xqqi4x", kind, os.SEEK_SET, start, length, 0)


def unlock_record(record: bytes) -> tuple[int, int, int, int]:
    """Kind, start, length and pid of a ``struct flock``."""
    kind, _whence, start, length, pid = struct.unpack("=hh4xqqi4x", record)
    return kind, start, length, pid


class Stream:
    """A directory stream of libc: opendir, readdir, telldir, seekdir, rewinddir."""

    def __init__(self, path: bytes) -> None:
        self._stream = _libc.opendir(path)
        if not self._stream:
            _done(-1)

    def read(self, count: int) -> list[tuple[bytes, int, int]]:
        """Up to *count* entries as (name, d_type, d_ino)."""
        entries: list[tuple[bytes, int, int]] = []
        while len(entries) < count:
            ctypes.set_errno(0)
            address = _libc.readdir(self._stream)
            if not address:
                if ctypes.get_errno():
                    _done(-1)
                break
            number = ctypes.c_uint64.from_address(address).value
            kind = ctypes.c_uint8.from_address(address + 18).value
            entries.append((ctypes.string_at(address + 19), kind, number))
        return entries

    def tell(self) -> int:
        """telldir(3)."""
        return _done(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        """seekdir(3)."""
        _libc.seekdir(self._stream, position)

    def rewind(self) -> None:
        """rewinddir(3)."""
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        """closedir(3)."""
        _libc.closedir(self._stream)
