"""The kernel's half of the protocol: encode requests. For tests and in-memory kernels.

Everything here undoes what the daemon's half does and is written from linux/fuse.h, not from it;
replies are decoded in :mod:`inopt.wire.kernel_replies` and re-exported here. Nothing here runs in
a session.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgspec

from inopt.ops import Op, op_name
from inopt.wire import bodies, layouts
from inopt.wire.bodies import NO_EXTENSIONS, Body, Extensions
from inopt.wire.kernel_replies import (
    AttrReply,
    CreateReply,
    Dirent,
    DirentPlus,
    Entry2Reply,
    EntryReply,
    InitReply,
    LockReply,
    OpenReply,
    Reply,
    StatfsReply,
    StatxReply,
    decode_any_create,
    decode_any_entry,
    decode_attr,
    decode_create,
    decode_create2,
    decode_dirents,
    decode_dirents_plus,
    decode_entry,
    decode_entry2,
    decode_init,
    decode_lock,
    decode_number,
    decode_open,
    decode_reply,
    decode_statfs,
    decode_statx,
)
from inopt.wire.uapi import (
    EXTENSION_GROUPS,
    EXTENSION_HEADER_MINOR,
    HIGHEST_MINOR,
    INIT_EXT_MINOR,
)

if TYPE_CHECKING:
    from struct import Struct

__all__ = [
    "AttrReply",
    "CreateReply",
    "Dirent",
    "DirentPlus",
    "Entry2Reply",
    "EntryReply",
    "InitReply",
    "LockReply",
    "OpenReply",
    "Reply",
    "StatfsReply",
    "StatxReply",
    "decode_any_create",
    "decode_any_entry",
    "decode_attr",
    "decode_create",
    "decode_create2",
    "decode_dirents",
    "decode_dirents_plus",
    "decode_entry",
    "decode_entry2",
    "decode_init",
    "decode_lock",
    "decode_number",
    "decode_open",
    "decode_reply",
    "decode_statfs",
    "decode_statx",
    "encode_extensions",
    "encode_request",
]

_EncodeBody: TypeAlias = Callable[[Any], bytes]


def encode_request(
    opcode: int,
    unique: int,
    nodeid: int,
    body: Body,
    uid: int = 0,
    gid: int = 0,
    pid: int = 0,
    minor: int = HIGHEST_MINOR,
    setxattr_ext: bool = False,
) -> bytes:
    """Encode a whole request as a kernel of this protocol minor sends it.

    Raises
    ------
    ValueError
        For an unknown opcode, or extensions in a minor that cannot say their length.
    AttributeError or struct.error
        For a body that is not the opcode's, or whose numbers do not fit.

    """
    extensions = b""
    if opcode == Op.INIT:
        payload = _init(cast("bodies.Init", body), minor)
    elif opcode == Op.SETXATTR:
        payload = _setxattr(cast("bodies.Setxattr", body), extended=setxattr_ext)
    elif opcode in _ENCODERS:
        payload = _ENCODERS[opcode](body)
        extensions = encode_extensions(getattr(body, "extensions", NO_EXTENSIONS))
    else:
        raise ValueError(f"{op_name(opcode)} is not an opcode that can be encoded")
    units = len(extensions) // 8 if minor >= EXTENSION_HEADER_MINOR else 0
    if extensions and minor < INIT_EXT_MINOR:
        raise ValueError(f"protocol minor {minor} has no extensions")
    length = layouts.IN_HEADER.size + len(payload) + len(extensions)
    header = layouts.IN_HEADER.pack(length, opcode, unique, nodeid, uid, gid, pid, units)
    return header + payload + extensions


def encode_extensions(extensions: Extensions) -> bytes:
    """Encode an extension block, its parts and contexts padded to 8 bytes like the kernel's."""
    block = b""
    if extensions.security_contexts:
        contexts = b""
        for name, value in extensions.security_contexts:
            contexts += _padded(layouts.SECCTX.pack(len(value)) + name + b"\0" + value)
        block += _extension(len(extensions.security_contexts), contexts)
    if extensions.groups:
        count = len(extensions.groups)
        block += _extension(EXTENSION_GROUPS, pack(f"<{count + 1}I", count, *extensions.groups))
    return block


def _extension(kind: int, content: bytes) -> bytes:
    padded = _padded(content)
    return layouts.EXT_HEADER.pack(layouts.EXT_HEADER.size + len(padded), kind) + padded


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 8)


def _init(body: bodies.Init, minor: int) -> bytes:
    low, high = body.flags & 0xFFFF_FFFF, body.flags >> 32
    if minor < INIT_EXT_MINOR:
        return layouts.INIT_COMPAT_IN.pack(body.major, body.minor, body.max_readahead, low)
    return layouts.INIT_IN.pack(body.major, body.minor, body.max_readahead, low, high)


def _setxattr(body: bodies.Setxattr, *, extended: bool) -> bytes:
    size = len(body.value)
    if extended:
        fixed = layouts.SETXATTR_IN.pack(size, body.flags, body.setxattr_flags)
    else:
        fixed = layouts.SETXATTR_COMPAT_IN.pack(size, body.flags)
    return fixed + body.name + b"\0" + body.value


def _fixed(layout: Struct) -> _EncodeBody:
    return lambda body: layout.pack(*msgspec.structs.astuple(body))


def _with_data(layout: Struct) -> _EncodeBody:
    return lambda body: layout.pack(*msgspec.structs.astuple(body)[:-1]) + bytes(body.data)


def _with_pairs(layout: Struct) -> _EncodeBody:
    return lambda body: (
        layout.pack(len(body.items))
        + b"".join(layouts.FORGET_ONE.pack(*item) for item in body.items)
    )


def _name(body: Any) -> bytes:
    return cast("bytes", body.name) + b"\0"


def _create(body: bodies.Create) -> bytes:
    return layouts.CREATE_IN.pack(body.flags, body.mode, body.umask, body.open_flags) + _name(body)


def _mknod(body: bodies.Mknod) -> bytes:
    return layouts.MKNOD_IN.pack(body.mode, body.rdev, body.umask) + _name(body)


def _mkdir(body: bodies.Mkdir) -> bytes:
    return layouts.MKDIR_IN.pack(body.mode, body.umask) + _name(body)


def _symlink(body: bodies.Symlink) -> bytes:
    return body.name + b"\0" + body.target + b"\0"


def _rename(body: bodies.Rename) -> bytes:
    return layouts.RENAME_IN.pack(body.new_directory) + _two_names(body)


def _rename2(body: bodies.Rename) -> bytes:
    return layouts.RENAME2_IN.pack(body.new_directory, body.flags) + _two_names(body)


def _two_names(body: bodies.Rename) -> bytes:
    return body.name + b"\0" + body.new_name + b"\0"


def _link(body: bodies.Link) -> bytes:
    return layouts.LINK_IN.pack(body.old_nodeid) + _name(body)


def _getxattr(body: bodies.Getxattr) -> bytes:
    return layouts.GETXATTR_IN.pack(body.size) + _name(body)


_ENCODERS: Final[dict[int, _EncodeBody]] = {
    Op.LOOKUP: _name,
    Op.FORGET: _fixed(layouts.FORGET_IN),
    Op.GETATTR: _fixed(layouts.GETATTR_IN),
    Op.SETATTR: _fixed(layouts.SETATTR_IN),
    Op.READLINK: _fixed(layouts.NO_BODY),
    Op.SYMLINK: _symlink,
    Op.MKNOD: _mknod,
    Op.MKDIR: _mkdir,
    Op.UNLINK: _name,
    Op.RMDIR: _name,
    Op.RENAME: _rename,
    Op.LINK: _link,
    Op.OPEN: _fixed(layouts.OPEN_IN),
    Op.READ: _fixed(layouts.READ_IN),
    Op.WRITE: _with_data(layouts.WRITE_IN),
    Op.STATFS: _fixed(layouts.NO_BODY),
    Op.RELEASE: _fixed(layouts.RELEASE_IN),
    Op.FSYNC: _fixed(layouts.FSYNC_IN),
    Op.GETXATTR: _getxattr,
    Op.LISTXATTR: _fixed(layouts.GETXATTR_IN),
    Op.REMOVEXATTR: _name,
    Op.FLUSH: _fixed(layouts.FLUSH_IN),
    Op.OPENDIR: _fixed(layouts.OPEN_IN),
    Op.READDIR: _fixed(layouts.READ_IN),
    Op.RELEASEDIR: _fixed(layouts.RELEASE_IN),
    Op.FSYNCDIR: _fixed(layouts.FSYNC_IN),
    Op.GETLK: _fixed(layouts.LK_IN),
    Op.SETLK: _fixed(layouts.LK_IN),
    Op.SETLKW: _fixed(layouts.LK_IN),
    Op.ACCESS: _fixed(layouts.ACCESS_IN),
    Op.CREATE: _create,
    Op.INTERRUPT: _fixed(layouts.INTERRUPT_IN),
    Op.BMAP: _fixed(layouts.BMAP_IN),
    Op.DESTROY: _fixed(layouts.NO_BODY),
    Op.IOCTL: _with_data(layouts.IOCTL_IN),
    Op.POLL: _fixed(layouts.POLL_IN),
    Op.NOTIFY_REPLY: _with_data(layouts.NOTIFY_RETRIEVE_IN),
    Op.BATCH_FORGET: _with_pairs(layouts.BATCH_FORGET_IN),
    Op.FALLOCATE: _fixed(layouts.FALLOCATE_IN),
    Op.READDIRPLUS: _fixed(layouts.READ_IN),
    Op.RENAME2: _rename2,
    Op.LSEEK: _fixed(layouts.LSEEK_IN),
    Op.COPY_FILE_RANGE: _fixed(layouts.COPY_FILE_RANGE_IN),
    Op.SETUPMAPPING: _fixed(layouts.SETUPMAPPING_IN),
    Op.REMOVEMAPPING: _with_pairs(layouts.REMOVEMAPPING_IN),
    Op.SYNCFS: _fixed(layouts.SYNCFS_IN),
    Op.TMPFILE: _create,
    Op.STATX: _fixed(layouts.STATX_IN),
    Op.COPY_FILE_RANGE_64: _fixed(layouts.COPY_FILE_RANGE_IN),
}
