"""Decode one request of the kernel to a typed value.

This runs for every request, so it is built from closures: a per-opcode table is filled once, and a
fixed-size body costs one size comparison, one precompiled ``unpack_from`` and one constructor.

Sources: linux/fuse.h for the layouts; fs/fuse/{dir,file,xattr,dev}.c of Linux for the order of the
parts after the fixed structure (names end in NUL; RENAME: old, new; SYMLINK: name, target).
"""

from __future__ import annotations

import struct
from errno import EINVAL, ENOSYS
from typing import Final

from inopt.ops import OPCODE_LIMIT, Op, op_name
from inopt.wire import bodies, layouts, named
from inopt.wire.bodies import NO_EXTENSIONS, Body, Extensions, Header
from inopt.wire.errors import WireError
from inopt.wire.plain import HEADER_SIZE, Buffer, DecodeBody, fixed, init, with_data, with_pairs
from inopt.wire.uapi import EXTENSION_HEADER_MINOR, INIT_EXT_MINOR

__all__ = [
    "HEADER_SIZE",
    "NO_EXTENSIONS",
    "Body",
    "Buffer",
    "Decoder",
    "Extensions",
    "Header",
    "WireError",
    "decode_header",
]

_unpack_header: Final = layouts.IN_HEADER.unpack_from


def decode_header(buffer: Buffer, received: int) -> Header:
    """Decode the header of a request of ``received`` bytes at the start of ``buffer``.

    Raises
    ------
    WireError
        ``EINVAL`` when fewer than 40 bytes were received, or other than the header says, or when
        the extension block would be longer than the body.

    """
    if received < HEADER_SIZE or len(buffer) < received:
        raise WireError(EINVAL, f"{received} bytes received, a request has at least {HEADER_SIZE}")
    length, opcode, unique, nodeid, uid, gid, pid, units = _unpack_header(buffer)
    if length != received:
        raise WireError(
            EINVAL, f"{op_name(opcode)} request of {length} bytes, but {received} were received"
        )
    if units and units * 8 > length - HEADER_SIZE:
        raise WireError(
            EINVAL,
            f"{op_name(opcode)} request of {length} bytes claims {units * 8} bytes of extensions",
        )
    return Header(length, opcode, unique, nodeid, uid, gid, pid, units * 8)


class Decoder:
    """Decodes request bodies of one session.

    Parameters
    ----------
    minor:
        The negotiated protocol minor. (INIT, which comes before that, tells its form by its size.)
    setxattr_ext:
        Whether ``SETXATTR_EXT`` was negotiated, which makes SETXATTR 8 bytes longer.

    """

    __slots__ = ("_table", "minor", "setxattr_ext")

    def __init__(self, minor: int, *, setxattr_ext: bool = False) -> None:
        self.minor = minor
        self.setxattr_ext = setxattr_ext
        self._table = _decode_table(minor, setxattr_ext=setxattr_ext)

    def decode(self, header: Header, buffer: Buffer) -> Body:
        """Decode the body of the request whose header was decoded from ``buffer``.

        ``buffer`` may be longer than the request. ``data`` fields of the result are views into it.

        Raises
        ------
        WireError
            ``EINVAL`` for a body that is truncated, too long or garbled, ``ENOSYS`` for an unknown
            opcode. Nothing else, whatever the bytes.

        """
        opcode = header.opcode
        try:
            if opcode < OPCODE_LIMIT:
                return self._table[opcode](header, buffer)
        except (struct.error, ValueError) as error:
            # A buffer shorter than the header claims; decode_header refuses to make such a header.
            raise WireError(EINVAL, f"{op_name(opcode)} request is garbled: {error}") from error
        return _unknown(header, buffer)


def _unknown(header: Header, _buffer: Buffer) -> Body:
    raise WireError(ENOSYS, f"{op_name(header.opcode)} is not known ({header.length} bytes)")


def _decode_table(minor: int, *, setxattr_ext: bool) -> list[DecodeBody]:
    creating = named.Creating(undeclared=INIT_EXT_MINOR <= minor < EXTENSION_HEADER_MINOR)
    read = fixed(layouts.READ_IN, bodies.Read)
    opening = fixed(layouts.OPEN_IN, bodies.Open)
    release = fixed(layouts.RELEASE_IN, bodies.Release)
    fsync = fixed(layouts.FSYNC_IN, bodies.Fsync)
    lock = fixed(layouts.LK_IN, bodies.Lock)
    copy = fixed(layouts.COPY_FILE_RANGE_IN, bodies.CopyFileRange)
    known: dict[int, DecodeBody] = {
        Op.LOOKUP: named.lookup,
        Op.FORGET: fixed(layouts.FORGET_IN, bodies.Forget),
        Op.GETATTR: fixed(layouts.GETATTR_IN, bodies.Getattr),
        Op.SETATTR: fixed(layouts.SETATTR_IN, bodies.Setattr),
        Op.READLINK: fixed(layouts.NO_BODY, bodies.Readlink),
        Op.SYMLINK: creating.symlink,
        Op.MKNOD: creating.mknod,
        Op.MKDIR: creating.mkdir,
        Op.UNLINK: named.unlink,
        Op.RMDIR: named.rmdir,
        Op.RENAME: named.rename,
        Op.LINK: named.link,
        Op.OPEN: opening,
        Op.READ: read,
        Op.WRITE: with_data(layouts.WRITE_IN, bodies.Write, 2),
        Op.STATFS: fixed(layouts.NO_BODY, bodies.Statfs),
        Op.RELEASE: release,
        Op.FSYNC: fsync,
        Op.SETXATTR: named.setxattr(
            layouts.SETXATTR_IN if setxattr_ext else layouts.SETXATTR_COMPAT_IN
        ),
        Op.GETXATTR: named.getxattr,
        Op.LISTXATTR: fixed(layouts.GETXATTR_IN, bodies.Listxattr),
        Op.REMOVEXATTR: named.removexattr,
        Op.FLUSH: fixed(layouts.FLUSH_IN, bodies.Flush),
        Op.INIT: init,
        Op.OPENDIR: opening,
        Op.READDIR: read,
        Op.RELEASEDIR: release,
        Op.FSYNCDIR: fsync,
        Op.GETLK: lock,
        Op.SETLK: lock,
        Op.SETLKW: lock,
        Op.ACCESS: fixed(layouts.ACCESS_IN, bodies.Access),
        Op.CREATE: creating.create,
        Op.INTERRUPT: fixed(layouts.INTERRUPT_IN, bodies.Interrupt),
        Op.BMAP: fixed(layouts.BMAP_IN, bodies.Bmap),
        Op.DESTROY: fixed(layouts.NO_BODY, bodies.Destroy),
        Op.IOCTL: with_data(layouts.IOCTL_IN, bodies.Ioctl, 4),
        Op.POLL: fixed(layouts.POLL_IN, bodies.Poll),
        Op.NOTIFY_REPLY: with_data(layouts.NOTIFY_RETRIEVE_IN, bodies.NotifyReply, 1),
        Op.BATCH_FORGET: with_pairs(layouts.BATCH_FORGET_IN, bodies.BatchForget),
        Op.FALLOCATE: fixed(layouts.FALLOCATE_IN, bodies.Fallocate),
        Op.READDIRPLUS: read,
        Op.RENAME2: named.rename2,
        Op.LSEEK: fixed(layouts.LSEEK_IN, bodies.Lseek),
        Op.COPY_FILE_RANGE: copy,
        Op.SETUPMAPPING: fixed(layouts.SETUPMAPPING_IN, bodies.Setupmapping),
        Op.REMOVEMAPPING: with_pairs(layouts.REMOVEMAPPING_IN, bodies.Removemapping),
        Op.SYNCFS: fixed(layouts.SYNCFS_IN, bodies.Syncfs),
        Op.TMPFILE: creating.tmpfile,
        Op.STATX: fixed(layouts.STATX_IN, bodies.Statx),
        Op.COPY_FILE_RANGE_64: copy,
    }
    return [known.get(opcode, _unknown) for opcode in range(OPCODE_LIMIT)]
