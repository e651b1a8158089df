"""Raw Linux calls that the standard library lacks, each as a thin typed function.

Every function raises `OSError` with the call's errno, unless it says otherwise. Calls release the
GIL. Unlike the functions of `os`, none of them is retried after a signal: an interrupted call
raises `InterruptedError`, which is what lets a stuck request be interrupted.

Layouts and numbers: linux/stat.h, linux/fcntl.h, linux/fs.h, linux/capability.h; statx(2),
open_by_handle_at(2), renameat2(2), utimensat(2), getdents64(2), mount(2), fsopen(2).
The numbers of system calls are those of x86-64 and of the generic table (arm64, riscv64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Any, Final

AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2
CLONE_FS: Final = 0x200
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4
FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_IOC_FSGETXATTR: Final = 0x801C581F
FS_IOC_FSSETXATTR: Final = 0x401C5820

CAP_FSETID: Final = 4
CAP_SYS_ADMIN: Final = 21
CAP_SYS_RESOURCE: Final = 24
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2

MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_ATIME: Final = 0x70
MOUNT_ATTR_NOATIME: Final = 0x10
_OPEN_TREE: Final = 428
_OPEN_TREE_CLONE: Final = 1
_MOUNT_SETATTR: Final = 442

STATX_BTIME: Final = 0x800
_BASIC_AND_BTIME: Final = 0x1FFF  # with the mount id

# mask blksize attributes nlink uid gid mode ino size blocks attributes_mask,
# atime btime ctime mtime (s64 seconds, u32 nanoseconds), rdev dev (major, minor), mnt_id
STATX: Final = struct.Struct("<IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIIIQ")
# ino off reclen type, then the name with a NUL
DIRENT64: Final = struct.Struct("<QqHB")

_X86_64: Final = platform.machine() == "x86_64"
_NUMBERS: Final = (
    {"setresuid": 117, "setresgid": 119, "setgroups": 116, "getdents64": 217, "capget": 125,
     "capset": 126, "fsopen": 430, "fsconfig": 431, "getxattrat": 464}
    if _X86_64
    else {"setresuid": 147, "setresgid": 149, "setgroups": 159, "getdents64": 61, "capget": 90,
          "capset": 91, "fsopen": 430, "fsconfig": 431, "getxattrat": 464}
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_int, _uint, _long, _pointer, _string = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_char_p,
)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_libc, name)
    function.restype = result
    function.argtypes = arguments
    return function


# The two calls of every lookup have no argtypes: converting arguments by them would cost as much as
# the call. They take integers, bytes and pointers that were made once (see `_Scratch`).
_statx = _libc.statx
_name_to_handle_at = _libc.name_to_handle_at
_capset = _libc.capset
_open_by_handle_at = _function("open_by_handle_at", _int, _int, _string, _int)
_renameat2 = _function("renameat2", _int, _int, _string, _int, _string, _uint)
_linkat = _function("linkat", _int, _int, _string, _int, _string, _int)
_utimensat = _function("utimensat", _int, _int, _string, _string, _int)
_fallocate = _function("fallocate", _int, _int, _int, ctypes.c_int64, ctypes.c_int64)
_copy_file_range = _function(
    "copy_file_range", ctypes.c_ssize_t, _int, _pointer, _int, _pointer, ctypes.c_size_t, _uint
)
_fstatfs = _function("fstatfs", _int, _int, _pointer)
_setfsuid = _function("setfsuid", _int, _uint)
_unshare = _function("unshare", _int, _int)
_mount = _function("mount", _int, _string, _string, _string, ctypes.c_ulong, _string)
_umount2 = _function("umount2", _int, _string, _int)
_syncfs = _function("syncfs", _int, _int)
_syscall6 = ctypes.CDLL(None, use_errno=True).syscall
_syscall6.restype = _long
_syscall6.argtypes = (_long, _long, _long, _string, _string, _long)
_mount_setattr = ctypes.CDLL(None, use_errno=True).syscall
_mount_setattr.restype = _long
_mount_setattr.argtypes = (_long, _long, _string, _long, _string, _long)
_getxattrat = ctypes.CDLL(None, use_errno=True).syscall
_getxattrat.restype = _long
_syscall3 = _libc.syscall
_syscall3.restype = _long
_syscall3.argtypes = (_long, _long, _long, _long)


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _pointer_to(memory: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(ctypes.addressof(memory))


class _Scratch:
    """Memory for the results of one call: a statx, a file handle and a mount id."""

    __slots__ = (
        "handle", "handle_pointer", "handle_room", "mount_id", "mount_id_pointer", "stat",
        "stat_pointer",
    )  # fmt: skip

    def __init__(self) -> None:
        self.stat = ctypes.create_string_buffer(256)
        self.stat_pointer = _pointer_to(self.stat)
        self.handle = ctypes.create_string_buffer(8 + _MAX_HANDLE)
        self.handle_pointer = _pointer_to(self.handle)
        # How many bytes of a handle there is room for, and then how many there are.
        self.handle_room = memoryview(self.handle).cast("B")[:4]
        self.mount_id = ctypes.c_int()
        self.mount_id_pointer = _pointer_to(self.mount_id)


_MAX_HANDLE: Final = 128
_ROOM: Final = _MAX_HANDLE.to_bytes(4, "little")
# list.pop and list.append are atomic: a free list serves any number of threads without a lock.
_scratches: list[_Scratch] = []


def _scratch() -> _Scratch:
    try:
        return _scratches.pop()
    except IndexError:
        return _Scratch()


def statx(descriptor: int, name: bytes = b"", mask: int = _BASIC_AND_BTIME) -> tuple[int, ...]:
    """The attributes of what *descriptor* (any kind, also ``O_PATH``) or *name* below it is.

    Never follows a symbolic link. Returns the fields of `STATX` in their order.
    """
    scratch = _scratch()
    flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    if _statx(descriptor, name, flags, mask, scratch.stat_pointer) < 0:
        error = _failed()
        _scratches.append(scratch)
        raise error
    fields = STATX.unpack_from(scratch.stat)
    _scratches.append(scratch)
    return fields


def name_to_handle_and_statx(descriptor: int, name: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The file handle of *name*, as `name_to_handle`, and then its attributes, as `statx`.

    The two may be of two inodes, if the name is given to another one in between.
    """
    scratch = _scratch()
    try:
        scratch.handle_room[:] = _ROOM
        if (
            _name_to_handle_at(
                descriptor, name, scratch.handle_pointer, scratch.mount_id_pointer, 0
            )
            < 0
            or _statx(descriptor, name, AT_SYMLINK_NOFOLLOW, _BASIC_AND_BTIME, scratch.stat_pointer)
            < 0
        ):
            raise _failed()
        handle = scratch.handle.raw
        return handle[: 8 + handle[0]], STATX.unpack_from(scratch.stat)
    finally:
        _scratches.append(scratch)


def name_to_handle(descriptor: int, name: bytes = b"") -> tuple[bytes, int]:
    """The file handle (as `open_by_handle` takes it) and the mount id of an inode.

    Raises `OSError` ``EOPNOTSUPP`` where the filesystem has no file handles.
    """
    scratch = _scratch()
    try:
        scratch.handle_room[:] = _ROOM
        flags = 0 if name else AT_EMPTY_PATH
        if (
            _name_to_handle_at(
                descriptor, name, scratch.handle_pointer, scratch.mount_id_pointer, flags
            )
            < 0
        ):
            raise _failed()
        handle = scratch.handle.raw
        return handle[: 8 + handle[0]], scratch.mount_id.value
    finally:
        _scratches.append(scratch)


_NUMBER_OF_GETXATTRAT: Final = _NUMBERS["getxattrat"]
# struct xattr_args (linux/xattr.h) without a buffer, and its size.
_NO_VALUE: Final = ctypes.create_string_buffer(16)
_NO_VALUE_POINTER: Final = _pointer_to(_NO_VALUE)
_NO_VALUE_SIZE: Final = ctypes.c_size_t(16)


_NO_ATTRIBUTE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def has_xattr(directory: int, name: bytes, attribute: bytes) -> bool:
    """Whether *name* (no link is followed) has an extended *attribute* that may be read.

    getxattrat(2), Linux 6.13; raises `OSError` ``ENOSYS`` before.
    """
    size = _getxattrat(
        _NUMBER_OF_GETXATTRAT, directory, name, AT_SYMLINK_NOFOLLOW, attribute,
        _NO_VALUE_POINTER, _NO_VALUE_SIZE,
    )  # fmt: skip
    if size < 0:
        if ctypes.get_errno() in _NO_ATTRIBUTE:
            return False
        raise _failed()
    return True


def open_by_handle(mount_descriptor: int, handle: bytes, flags: int) -> int:
    """Open the inode that *handle* names; needs CAP_DAC_READ_SEARCH. ``ESTALE``: it is gone."""
    descriptor: int = _open_by_handle_at(mount_descriptor, handle, flags)
    if descriptor < 0:
        raise _failed()
    return descriptor


def renameat2(
    old_directory: int, old_name: bytes, new_directory: int, new_name: bytes, flags: int
) -> None:
    """renameat2(2)."""
    if _renameat2(old_directory, old_name, new_directory, new_name, flags) < 0:
        raise _failed()


def link_descriptor(descriptor: int, directory: int, name: bytes) -> None:
    """Give the inode behind *descriptor* (``O_PATH`` will do) another name."""
    if _linkat(descriptor, b"", directory, name, AT_EMPTY_PATH) < 0:
        raise _failed()


_TIMESPECS: Final = struct.Struct("<qqqq")


def set_times(
    descriptor: int,
    access_seconds: int,
    access_nanoseconds: int,
    modification_seconds: int,
    modification_nanoseconds: int,
) -> None:
    """utimensat(2) on a descriptor of any kind; nanoseconds may be `UTIME_NOW`, `UTIME_OMIT`."""
    times = _TIMESPECS.pack(
        access_seconds, access_nanoseconds, modification_seconds, modification_nanoseconds
    )
    if _utimensat(descriptor, b"", times, AT_EMPTY_PATH) < 0:
        raise _failed()


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), with all modes that the filesystem takes."""
    if _fallocate(descriptor, mode, offset, length) < 0:
        raise _failed()


def copy_file_range(
    source: int, source_offset: int, target: int, target_offset: int, length: int
) -> int:
    """copy_file_range(2) between two offsets; returns the number of bytes copied."""
    source_position = ctypes.c_int64(source_offset)
    target_position = ctypes.c_int64(target_offset)
    copied: int = _copy_file_range(
        source, ctypes.byref(source_position), target, ctypes.byref(target_position), length, 0
    )
    if copied < 0:
        raise _failed()
    return copied


def getdents(descriptor: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """getdents64(2) into *buffer*; returns the number of bytes filled, 0 at the end."""
    filled: int = _syscall3(
        _NUMBERS["getdents64"], descriptor, ctypes.addressof(buffer), len(buffer)
    )
    if filled < 0:
        raise _failed()
    return filled


def set_thread_user(user: int) -> None:
    """Set the effective and filesystem uid of this thread alone.

    From 0 to another: the effective capabilities go. Back to 0: they return (capabilities(7)).
    """
    if _syscall3(_NUMBERS["setresuid"], -1, user, -1) < 0:
        raise _failed()


def set_thread_group(group: int) -> None:
    """Set the effective and filesystem gid of this thread alone."""
    if _syscall3(_NUMBERS["setresgid"], -1, group, -1) < 0:
        raise _failed()


def set_thread_groups(groups: tuple[int, ...]) -> None:
    """Set the supplementary groups of this thread alone."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    if _syscall3(_NUMBERS["setgroups"], len(groups), ctypes.addressof(array), 0) < 0:
        raise _failed()


def set_filesystem_user(user: int) -> None:
    """Set the filesystem uid of this thread alone (setfsuid(2), which reports no errors)."""
    _setfsuid(user)


_CAPABILITY_HEADER: Final = struct.pack("<Ii", 0x20080522, 0)
_CAPABILITY_SETS: Final = struct.Struct("<6I")


def capabilities() -> tuple[int, int, int]:
    """The effective, permitted and inheritable capabilities of this thread, as 64-bit sets."""
    data = ctypes.create_string_buffer(24)
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER, 8)
    if _syscall3(_NUMBERS["capget"], ctypes.addressof(header), ctypes.addressof(data), 0) < 0:
        raise _failed()
    e0, p0, i0, e1, p1, i1 = _CAPABILITY_SETS.unpack_from(data)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


class CapabilitySet:
    """One state of a thread's capabilities, prepared so that taking it on is one cheap call."""

    __slots__ = ("_data", "_data_pointer", "_header", "_header_pointer")

    def __init__(self, effective: int, permitted: int, inheritable: int) -> None:
        low = 0xFFFFFFFF
        self._data = ctypes.create_string_buffer(
            _CAPABILITY_SETS.pack(
                effective & low, permitted & low, inheritable & low,
                effective >> 32, permitted >> 32, inheritable >> 32,
            ),
            24,
        )  # fmt: skip
        self._header = ctypes.create_string_buffer(_CAPABILITY_HEADER, 8)
        self._data_pointer = _pointer_to(self._data)
        self._header_pointer = _pointer_to(self._header)

    def apply(self) -> None:
        """Set the capabilities of this thread alone (capset(2))."""
        if _capset(self._header_pointer, self._data_pointer) < 0:
            raise _failed()


def has_capability(capability: int) -> bool:
    """Whether this thread has *capability* in its effective set."""
    return bool(capabilities()[0] >> capability & 1)


def unshare(flags: int) -> None:
    """unshare(2): with `CLONE_FS`, this thread gets a umask and working directory of its own."""
    if _unshare(flags) < 0:
        raise _failed()


def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes) -> None:
    """mount(2)."""
    if _mount(source, target, kind, flags, data) < 0:
        raise _failed()


def clone_mount(directory: int, set_attributes: int, clear_attributes: int) -> int:
    """A private copy of the mount that *directory* is on, with other attributes; a descriptor.

    open_tree(2) and mount_setattr(2), Linux 5.12. The copy is mounted nowhere and is gone with
    the last descriptor on it.
    """
    empty = ctypes.create_string_buffer(b"")
    flags = AT_EMPTY_PATH | _OPEN_TREE_CLONE | os.O_CLOEXEC
    clone: int = _syscall3(_OPEN_TREE, directory, ctypes.addressof(empty), flags)
    if clone < 0:
        raise _failed()
    try:
        wanted = struct.pack("<4Q", set_attributes, clear_attributes, 0, 0)
        if _mount_setattr(_MOUNT_SETATTR, clone, b"", AT_EMPTY_PATH, wanted, len(wanted)) < 0:
            raise _failed()
        # An O_PATH descriptor opens no file handles.
        return os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=clone)
    finally:
        os.close(clone)


def umount(target: bytes, flags: int) -> None:
    """umount2(2)."""
    if _umount2(target, flags) < 0:
        raise _failed()


def syncfs(descriptor: int) -> None:
    """syncfs(2): bring all of a filesystem to stable storage."""
    if _syncfs(descriptor) < 0:
        raise _failed()


def fsopen(kind: bytes) -> int:
    """fsopen(2) with ``FSOPEN_CLOEXEC``: a filesystem context that is mounted nowhere yet."""
    name = ctypes.create_string_buffer(kind)
    descriptor: int = _syscall3(_NUMBERS["fsopen"], ctypes.addressof(name), 1, 0)
    if descriptor < 0:
        raise _failed()
    return descriptor


def fsconfig(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    """fsconfig(2) with a string value (command 1), a flag (0) or none (create: 6)."""
    if _syscall6(_NUMBERS["fsconfig"], context, command, key, value, 0) < 0:
        raise _failed()


def filesystem_type(descriptor: int) -> int:
    """The ``f_type`` of statfs(2), which names the kind of filesystem."""
    buffer = ctypes.create_string_buffer(256)
    if _fstatfs(descriptor, ctypes.addressof(buffer)) < 0:
        raise _failed()
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF
