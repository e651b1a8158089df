"""The values a request decodes to: one small struct per shape of request body.

Sizes and offsets are in bytes, times in seconds and nanoseconds, names are bytes without their
NUL. ``data`` fields are views into the request buffer: use or copy them before it is reused.

Source of the fields: the ``fuse_*_in`` structures of linux/fuse.h.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec


class Header(msgspec.Struct, gc=False):
    """What every request begins with (``fuse_in_header``).

    ``length`` is of the whole request and ``extensions_length`` of the block at its end, both in
    bytes. ``uid``, ``gid`` and ``pid`` are the caller's, in the namespace of the mounter.
    """

    length: int
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    extensions_length: int


class Extensions(msgspec.Struct, frozen=True, gc=False):
    """What creating requests carry beside their body.

    ``security_contexts`` are ``(xattr name, value)`` pairs to set on the new inode (SECURITY_CTX);
    ``groups`` are the caller's supplementary groups that matter (CREATE_SUPP_GROUP).
    """

    security_contexts: tuple[tuple[bytes, bytes], ...] = ()
    groups: tuple[int, ...] = ()


NO_EXTENSIONS: Final = Extensions()
"""The extensions of a request that has none."""


class Forget(msgspec.Struct, gc=False):
    """FORGET: the kernel drops ``count`` lookups of the header's nodeid."""

    count: int


class BatchForget(msgspec.Struct, gc=False):
    """BATCH_FORGET: many FORGETs as ``(nodeid, count)`` pairs."""

    items: list[tuple[int, int]]


class Lookup(msgspec.Struct, gc=False):
    """LOOKUP: find ``name`` in the header's directory."""

    name: bytes


class Getattr(msgspec.Struct, gc=False):
    """GETATTR: attributes; ``handle`` counts when ``flags`` has ``GETATTR_FH``."""

    flags: int
    handle: int


class Setattr(msgspec.Struct, gc=False):
    """SETATTR: change what ``valid`` (``FATTR_*``) names; times in seconds and nanoseconds."""

    valid: int
    handle: int
    size: int
    lock_owner: int
    atime_seconds: int
    mtime_seconds: int
    ctime_seconds: int
    atime_nanoseconds: int
    mtime_nanoseconds: int
    ctime_nanoseconds: int
    mode: int
    uid: int
    gid: int


class Readlink(msgspec.Struct, gc=False):
    """READLINK: the target of the header's symlink."""


class Symlink(msgspec.Struct, gc=False):
    """SYMLINK: make ``name`` point to ``target``."""

    name: bytes
    target: bytes
    extensions: Extensions


class Mknod(msgspec.Struct, gc=False):
    """MKNOD: make a node; ``rdev`` as the kernel encodes it (see ``replies.decode_rdev``)."""

    name: bytes
    mode: int
    rdev: int
    umask: int
    extensions: Extensions


class Mkdir(msgspec.Struct, gc=False):
    """MKDIR: make a directory."""

    name: bytes
    mode: int
    umask: int
    extensions: Extensions


class Unlink(msgspec.Struct, gc=False):
    """UNLINK: remove a name that is no directory."""

    name: bytes


class Rmdir(msgspec.Struct, gc=False):
    """RMDIR: remove an empty directory."""

    name: bytes


class Rename(msgspec.Struct, gc=False):
    """RENAME (``flags`` 0) and RENAME2 (``RENAME_*`` of renameat2(2))."""

    new_directory: int
    flags: int
    name: bytes
    new_name: bytes


class Link(msgspec.Struct, gc=False):
    """LINK: give ``old_nodeid`` another ``name`` in the header's directory."""

    old_nodeid: int
    name: bytes


class Open(msgspec.Struct, gc=False):
    """OPEN and OPENDIR: ``flags`` of open(2), ``open_flags`` of ``OPEN_*``."""

    flags: int
    open_flags: int


class Read(msgspec.Struct, gc=False):
    """READ, READDIR and READDIRPLUS: up to ``size`` bytes from ``offset``."""

    handle: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Write(msgspec.Struct, gc=False):
    """WRITE: ``size`` bytes of ``data`` at ``offset``; ``data`` lives in the request buffer."""

    handle: int
    offset: int
    size: int
    write_flags: int
    lock_owner: int
    flags: int
    data: memoryview


class Statfs(msgspec.Struct, gc=False):
    """STATFS: numbers of the filesystem."""


class Release(msgspec.Struct, gc=False):
    """RELEASE and RELEASEDIR: the last reference to an open file is gone."""

    handle: int
    flags: int
    release_flags: int
    lock_owner: int


class Fsync(msgspec.Struct, gc=False):
    """FSYNC and FSYNCDIR: flush to stable storage."""

    handle: int
    fsync_flags: int


class Setxattr(msgspec.Struct, gc=False):
    """SETXATTR: ``flags`` of setxattr(2); ``setxattr_flags`` is 0 in the short form."""

    name: bytes
    value: bytes
    flags: int
    setxattr_flags: int


class Getxattr(msgspec.Struct, gc=False):
    """GETXATTR: the value if it fits ``size`` bytes, its size when ``size`` is 0."""

    size: int
    name: bytes


class Listxattr(msgspec.Struct, gc=False):
    """LISTXATTR: the names if they fit ``size`` bytes, their size when ``size`` is 0."""

    size: int


class Removexattr(msgspec.Struct, gc=False):
    """REMOVEXATTR: remove an extended attribute."""

    name: bytes


class Flush(msgspec.Struct, gc=False):
    """FLUSH: a descriptor is closed; POSIX locks of ``lock_owner`` go."""

    handle: int
    lock_owner: int


class Init(msgspec.Struct, gc=False):
    """INIT: the kernel's version and what it offers; ``flags`` has 64 bits (``InitFlag``)."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class Lock(msgspec.Struct, gc=False):
    """GETLK, SETLK and SETLKW: ``type`` is ``F_RDLCK``, ``F_WRLCK`` or ``F_UNLCK``."""

    handle: int
    owner: int
    start: int
    end: int
    type: int
    pid: int
    flags: int


class Access(msgspec.Struct, gc=False):
    """ACCESS: may the caller do ``mask`` (``R_OK``, ``W_OK``, ``X_OK``)."""

    mask: int


class Create(msgspec.Struct, gc=False):
    """CREATE and TMPFILE: make and open; a TMPFILE's ``name`` means nothing."""

    flags: int
    mode: int
    umask: int
    open_flags: int
    name: bytes
    extensions: Extensions


class Interrupt(msgspec.Struct, gc=False):
    """INTERRUPT: whoever waits for request ``unique`` got a signal."""

    unique: int


class Bmap(msgspec.Struct, gc=False):
    """BMAP: where ``block`` (of ``block_size`` bytes) is on the device."""

    block: int
    block_size: int


class Destroy(msgspec.Struct, gc=False):
    """DESTROY: the filesystem was unmounted."""


class Ioctl(msgspec.Struct, gc=False):
    """IOCTL: ``argument`` is the caller's pointer or number, ``data`` its input bytes."""

    handle: int
    flags: int
    command: int
    argument: int
    input_size: int
    output_size: int
    data: memoryview


class Poll(msgspec.Struct, gc=False):
    """POLL: which ``events`` are there; wake ``kernel_handle`` later if flags ask for it."""

    handle: int
    kernel_handle: int
    flags: int
    events: int


class NotifyReply(msgspec.Struct, gc=False):
    """NOTIFY_REPLY: the cached data a RETRIEVE notification asked for."""

    offset: int
    size: int
    data: memoryview


class Fallocate(msgspec.Struct, gc=False):
    """FALLOCATE: ``mode`` of fallocate(2)."""

    handle: int
    offset: int
    length: int
    mode: int


class Lseek(msgspec.Struct, gc=False):
    """LSEEK: ``SEEK_DATA`` and ``SEEK_HOLE``."""

    handle: int
    offset: int
    whence: int


class CopyFileRange(msgspec.Struct, gc=False):
    """COPY_FILE_RANGE and COPY_FILE_RANGE_64 (they differ in the reply)."""

    handle_in: int
    offset_in: int
    nodeid_out: int
    handle_out: int
    offset_out: int
    length: int
    flags: int


class Setupmapping(msgspec.Struct, gc=False):
    """SETUPMAPPING: map a file range into the DAX window (virtiofs only)."""

    handle: int
    file_offset: int
    length: int
    flags: int
    memory_offset: int


class Removemapping(msgspec.Struct, gc=False):
    """REMOVEMAPPING: unmap ``(memory_offset, length)`` pairs (virtiofs only)."""

    items: list[tuple[int, int]]


class Syncfs(msgspec.Struct, gc=False):
    """SYNCFS: flush the whole filesystem."""


class Statx(msgspec.Struct, gc=False):
    """STATX: ``statx_flags`` and ``mask`` of statx(2); ``handle`` as in GETATTR."""

    getattr_flags: int
    handle: int
    statx_flags: int
    mask: int


Body: TypeAlias = (
    Forget
    | BatchForget
    | Lookup
    | Getattr
    | Setattr
    | Readlink
    | Symlink
    | Mknod
    | Mkdir
    | Unlink
    | Rmdir
    | Rename
    | Link
    | Open
    | Read
    | Write
    | Statfs
    | Release
    | Fsync
    | Setxattr
    | Getxattr
    | Listxattr
    | Removexattr
    | Flush
    | Init
    | Lock
    | Access
    | Create
    | Interrupt
    | Bmap
    | Destroy
    | Ioctl
    | Poll
    | NotifyReply
    | Fallocate
    | Lseek
    | CopyFileRange
    | Setupmapping
    | Removemapping
    | Syncfs
    | Statx
)
"""Any decoded request body."""
