"""Encode replies: the payload of each kind, and the header in front of it.

Every encoder is pure and returns bytes. Numbers that do not fit their field raise
``struct.error``: they come from a caller's mistake, not from the kernel's bytes.

Sources: the ``fuse_*_out`` structures of linux/fuse.h; ``entry2`` is the ``fuse_entry2_out`` of the
inode-operations passthrough postings (2026).
"""
# The encoders are named after what they encode and are used as ``replies.open(...)``.
# ruff: noqa: A001, A002

from __future__ import annotations

from typing import Final

from inopt.wire import layouts
from inopt.wire.attributes import Attributes, Validity, decode_rdev, encode_rdev
from inopt.wire.directory import DirectoryPage
from inopt.wire.uapi import STATX_BASIC_STATS, STATX_BTIME

__all__ = [
    "OUT_HEADER_SIZE",
    "Attributes",
    "DirectoryPage",
    "Validity",
    "attr",
    "bmap",
    "copy_file_range",
    "copy_file_range_64",
    "create",
    "decode_rdev",
    "encode_rdev",
    "entry",
    "entry2",
    "error",
    "header",
    "init",
    "ioctl",
    "lock",
    "lseek",
    "message",
    "negative_entry",
    "negative_entry2",
    "open",
    "poll",
    "statfs",
    "statx",
    "write",
    "xattr_size",
]

OUT_HEADER_SIZE: Final = layouts.OUT_HEADER.size
"""Size of the reply header in bytes (16)."""

_BASIC_AND_BTIME: Final = STATX_BASIC_STATS | STATX_BTIME
_pack_header: Final = layouts.OUT_HEADER.pack
_pack_entry: Final = layouts.ENTRY_OUT.pack
_pack_entry2: Final = layouts.ENTRY2_OUT.pack
_pack_attr: Final = layouts.ATTR_OUT.pack
_pack_statx: Final = layouts.STATX_OUT.pack
_pack_open: Final = layouts.OPEN_OUT.pack


def header(unique: int, payload_length: int) -> bytes:
    """Encode the header of a successful reply, to be written in front of a payload (writev)."""
    return _pack_header(OUT_HEADER_SIZE + payload_length, 0, unique)


def message(unique: int, payload: bytes = b"") -> bytes:
    """Encode a whole successful reply to the request ``unique``."""
    return _pack_header(OUT_HEADER_SIZE + len(payload), 0, unique) + payload


def error(unique: int, errno: int) -> bytes:
    """Encode a whole reply that fails with ``errno`` (positive; the kernel takes 1 to 511)."""
    return _pack_header(OUT_HEADER_SIZE, -errno, unique)


def entry(
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    reported_inode: int | None = None,
    flags: int = 0,
) -> bytes:
    """Encode ``fuse_entry_out`` (128 bytes): what a name leads to.

    ``reported_inode`` is the ``st_ino`` that callers see, the attributes' own by default;
    ``flags`` are ``ATTR_*``.
    """
    a = attributes
    return _pack_entry(
        nodeid,
        generation,
        validity.entry_seconds,
        validity.attribute_seconds,
        validity.entry_nanoseconds,
        validity.attribute_nanoseconds,
        a.inode if reported_inode is None else reported_inode,
        a.size,
        a.blocks,
        a.atime_seconds,
        a.mtime_seconds,
        a.ctime_seconds,
        a.atime_nanoseconds,
        a.mtime_nanoseconds,
        a.ctime_nanoseconds,
        a.mode,
        a.links,
        a.uid,
        a.gid,
        encode_rdev(a.rdev_major, a.rdev_minor) if a.rdev_major or a.rdev_minor else 0,
        a.block_size,
        flags,
    )


def negative_entry(validity_seconds: int, validity_nanoseconds: int) -> bytes:
    """Encode an entry that says, for so long, that the name does not exist (nodeid 0)."""
    return _pack_entry(0, 0, validity_seconds, 0, validity_nanoseconds, 0, *(0,) * 16)


def entry2(
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    reported_inode: int | None = None,
    backing_id: int = 0,
    flags: int = 0,
) -> bytes:
    """Encode ``fuse_entry2_out`` (312 bytes): an entry that may attach a backing id (0: none)."""
    a = attributes
    return _pack_entry2(
        nodeid,
        generation,
        validity.entry_seconds,
        validity.attribute_seconds,
        validity.entry_nanoseconds,
        validity.attribute_nanoseconds,
        backing_id,
        flags,
        *_statx_fields(a, a.inode if reported_inode is None else reported_inode),
    )


def negative_entry2(validity_seconds: int, validity_nanoseconds: int) -> bytes:
    """Encode :func:`negative_entry` in the 312-byte form."""
    return _pack_entry2(0, 0, validity_seconds, 0, validity_nanoseconds, 0, 0, 0, *(0,) * 23)


def attr(
    attributes: Attributes,
    validity: Validity,
    reported_inode: int | None = None,
    flags: int = 0,
) -> bytes:
    """Encode ``fuse_attr_out`` (104 bytes), the answer to GETATTR and SETATTR."""
    a = attributes
    return _pack_attr(
        validity.attribute_seconds,
        validity.attribute_nanoseconds,
        a.inode if reported_inode is None else reported_inode,
        a.size,
        a.blocks,
        a.atime_seconds,
        a.mtime_seconds,
        a.ctime_seconds,
        a.atime_nanoseconds,
        a.mtime_nanoseconds,
        a.ctime_nanoseconds,
        a.mode,
        a.links,
        a.uid,
        a.gid,
        encode_rdev(a.rdev_major, a.rdev_minor) if a.rdev_major or a.rdev_minor else 0,
        a.block_size,
        flags,
    )


def _statx_fields(a: Attributes, inode: int) -> tuple[int, ...]:
    return (
        _BASIC_AND_BTIME if a.has_btime else STATX_BASIC_STATS,
        a.block_size,
        a.attributes,
        a.links,
        a.uid,
        a.gid,
        a.mode,
        inode,
        a.size,
        a.blocks,
        a.attributes_mask,
        a.atime_seconds,
        a.atime_nanoseconds,
        a.btime_seconds,
        a.btime_nanoseconds,
        a.ctime_seconds,
        a.ctime_nanoseconds,
        a.mtime_seconds,
        a.mtime_nanoseconds,
        a.rdev_major,
        a.rdev_minor,
        a.dev_major,
        a.dev_minor,
    )


def statx(
    attributes: Attributes,
    validity: Validity,
    flags: int = 0,
    reported_inode: int | None = None,
) -> bytes:
    """Encode ``fuse_statx_out`` (288 bytes); its mask says basic stats, and birth time if known."""
    return _pack_statx(
        validity.attribute_seconds,
        validity.attribute_nanoseconds,
        flags,
        *_statx_fields(attributes, attributes.inode if reported_inode is None else reported_inode),
    )


def open(handle: int, open_flags: int, backing_id: int = 0) -> bytes:
    """Encode ``fuse_open_out``: ``open_flags`` are ``FOPEN_*``.

    ``backing_id`` fills the last 4 bytes, which each dialect of passthrough uses in its own way.
    """
    return _pack_open(handle, open_flags, backing_id)


def create(entry_payload: bytes, open_payload: bytes) -> bytes:
    """Encode the answer to CREATE and TMPFILE from those of an entry and an open."""
    return entry_payload + open_payload


def write(size: int) -> bytes:
    """Encode ``fuse_write_out``: how many bytes were written."""
    return layouts.WRITE_OUT.pack(size)


def copy_file_range(size: int) -> bytes:
    """Encode the answer to COPY_FILE_RANGE, a ``fuse_write_out`` of at most 2**32 - 1 bytes."""
    return layouts.WRITE_OUT.pack(size)


def copy_file_range_64(size: int) -> bytes:
    """Encode the answer to COPY_FILE_RANGE_64: how many bytes were copied, in 64 bits (7.45)."""
    return layouts.COPY_FILE_RANGE_OUT.pack(size)


def statfs(
    blocks: int,
    blocks_free: int,
    blocks_available: int,
    files: int,
    files_free: int,
    block_size: int,
    name_length: int,
    fragment_size: int,
) -> bytes:
    """Encode ``fuse_statfs_out``; blocks count in units of ``fragment_size`` bytes (statvfs(3))."""
    return layouts.STATFS_OUT.pack(
        blocks,
        blocks_free,
        blocks_available,
        files,
        files_free,
        block_size,
        name_length,
        fragment_size,
    )


def xattr_size(size: int) -> bytes:
    """Encode ``fuse_getxattr_out``, for GETXATTR and LISTXATTR that asked with size 0."""
    return layouts.GETXATTR_OUT.pack(size)


def lseek(offset: int) -> bytes:
    """Encode ``fuse_lseek_out``: the new offset in bytes."""
    return layouts.LSEEK_OUT.pack(offset)


def lock(start: int, end: int, type: int, pid: int) -> bytes:
    """Encode ``fuse_lk_out``, the answer to GETLK; ``end`` is inclusive."""
    return layouts.LK_OUT.pack(start, end, type, pid)


def bmap(block: int) -> bytes:
    """Encode ``fuse_bmap_out``."""
    return layouts.BMAP_OUT.pack(block)


def ioctl(
    result: int, flags: int = 0, in_iovs: int = 0, out_iovs: int = 0, data: bytes = b""
) -> bytes:
    """Encode ``fuse_ioctl_out`` and the output bytes (or the vectors to retry with) after it."""
    return layouts.IOCTL_OUT.pack(result, flags, in_iovs, out_iovs) + data


def poll(revents: int) -> bytes:
    """Encode ``fuse_poll_out``: the events that are there now."""
    return layouts.POLL_OUT.pack(revents)


def init(
    *,
    major: int,
    minor: int,
    max_readahead: int,
    flags: int,
    max_background: int,
    congestion_threshold: int,
    max_write: int,
    time_granularity: int = 1,
    max_pages: int = 0,
    map_alignment: int = 0,
    max_stack_depth: int = 0,
    request_timeout: int = 0,
) -> bytes:
    """Encode ``fuse_init_out``.

    ``flags`` has 64 bits (split over ``flags`` and ``flags2``); ``max_readahead`` and
    ``max_write`` are in bytes, ``time_granularity`` in nanoseconds, ``request_timeout`` in
    seconds (7.43), ``map_alignment`` is a power of two's exponent. Minors 5 to 22 get the 24-byte
    form and older ones 8 bytes (``FUSE_COMPAT_22_INIT_OUT_SIZE``, ``FUSE_COMPAT_INIT_OUT_SIZE``).
    """
    whole = layouts.INIT_OUT.pack(
        major,
        minor,
        max_readahead,
        flags & 0xFFFF_FFFF,
        max_background,
        congestion_threshold,
        max_write,
        time_granularity,
        max_pages,
        map_alignment,
        flags >> 32,
        max_stack_depth,
        request_timeout,
    )
    if minor >= 23:
        return whole
    return whole[: layouts.INIT_22_OUT.size if minor >= 5 else layouts.INIT_COMPAT_OUT.size]
