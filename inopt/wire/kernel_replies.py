"""The kernel's half of the protocol: decode replies and notifications. For tests.

A payload of the wrong size raises ``struct.error`` or ``ValueError``, where the kernel refuses it.

Source: the ``fuse_*_out`` structures of linux/fuse.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inopt.wire import layouts
from inopt.wire.attributes import Attributes, Validity, decode_rdev
from inopt.wire.uapi import STATX_BASIC_STATS, STATX_BTIME

if TYPE_CHECKING:
    from struct import Struct


class Reply(msgspec.Struct, frozen=True):
    """A whole message to the kernel: ``error`` is 0 or negative, or a notification's code."""

    unique: int
    error: int
    payload: bytes


class EntryReply(msgspec.Struct, frozen=True):
    """``fuse_entry_out``; what it does not carry (birth time, device…) is 0 in ``attributes``."""

    nodeid: int
    generation: int
    validity: Validity
    attributes: Attributes
    flags: int


class Entry2Reply(msgspec.Struct, frozen=True):
    """``fuse_entry2_out`` of the inode-operations drafts."""

    nodeid: int
    generation: int
    validity: Validity
    attributes: Attributes
    backing_id: int
    flags: int


class AttrReply(msgspec.Struct, frozen=True):
    """``fuse_attr_out``; the entry half of ``validity`` is 0."""

    validity: Validity
    attributes: Attributes
    flags: int


class StatxReply(msgspec.Struct, frozen=True):
    """``fuse_statx_out``; the entry half of ``validity`` is 0."""

    validity: Validity
    attributes: Attributes
    flags: int
    mask: int


class OpenReply(msgspec.Struct, frozen=True):
    """``fuse_open_out``."""

    handle: int
    open_flags: int
    backing_id: int


class CreateReply(msgspec.Struct, frozen=True):
    """An entry and an open, as CREATE and TMPFILE answer."""

    entry: EntryReply | Entry2Reply
    open: OpenReply


class StatfsReply(msgspec.Struct, frozen=True):
    """``fuse_kstatfs``, sizes in bytes."""

    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    block_size: int
    name_length: int
    fragment_size: int


class LockReply(msgspec.Struct, frozen=True):
    """``fuse_file_lock``."""

    start: int
    end: int
    type: int
    pid: int


class InitReply(msgspec.Struct, frozen=True):
    """``fuse_init_out`` with its flags joined to 64 bits."""

    major: int
    minor: int
    max_readahead: int
    flags: int
    max_background: int
    congestion_threshold: int
    max_write: int
    time_granularity: int
    max_pages: int
    map_alignment: int
    max_stack_depth: int
    request_timeout: int


class Dirent(msgspec.Struct, frozen=True):
    """One entry of a READDIR page."""

    inode: int
    next_offset: int
    type: int
    name: bytes


class DirentPlus(msgspec.Struct, frozen=True):
    """One entry of a READDIRPLUS page."""

    entry: EntryReply
    dirent: Dirent


def decode_reply(message: bytes) -> Reply:
    """Split a message; ``ValueError`` when its length field is wrong."""
    length, error, unique = layouts.OUT_HEADER.unpack_from(message)
    if length != len(message):
        raise ValueError(f"a message of {len(message)} bytes says it has {length}")
    return Reply(unique, error, message[layouts.OUT_HEADER.size :])


def _from_attr(fields: tuple[int, ...]) -> tuple[Attributes, int]:
    inode, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns = fields[:9]
    mode, links, uid, gid, rdev, block_size, flags = fields[9:]
    attributes = Attributes(
        inode=inode,
        size=size,
        blocks=blocks,
        atime_seconds=atime,
        mtime_seconds=mtime,
        ctime_seconds=ctime,
        btime_seconds=0,
        atime_nanoseconds=atime_ns,
        mtime_nanoseconds=mtime_ns,
        ctime_nanoseconds=ctime_ns,
        btime_nanoseconds=0,
        mode=mode,
        links=links,
        uid=uid,
        gid=gid,
        rdev_major=decode_rdev(rdev)[0],
        rdev_minor=decode_rdev(rdev)[1],
        block_size=block_size,
        has_btime=False,
        attributes=0,
        attributes_mask=0,
        dev_major=0,
        dev_minor=0,
        mount_id=0,
    )
    return attributes, flags


def _from_statx(fields: tuple[int, ...]) -> tuple[Attributes, int]:
    mask, block_size, attribute_bits, links, uid, gid, mode, inode, size, blocks = fields[:10]
    attributes_mask, atime, atime_ns, btime, btime_ns, ctime, ctime_ns = fields[10:17]
    mtime, mtime_ns, rdev_major, rdev_minor, dev_major, dev_minor = fields[17:]
    if mask & STATX_BASIC_STATS not in (STATX_BASIC_STATS, 0):
        raise ValueError(f"statx mask {mask:#x} lacks basic stats")
    attributes = Attributes(
        inode=inode,
        size=size,
        blocks=blocks,
        atime_seconds=atime,
        mtime_seconds=mtime,
        ctime_seconds=ctime,
        btime_seconds=btime,
        atime_nanoseconds=atime_ns,
        mtime_nanoseconds=mtime_ns,
        ctime_nanoseconds=ctime_ns,
        btime_nanoseconds=btime_ns,
        mode=mode,
        links=links,
        uid=uid,
        gid=gid,
        rdev_major=rdev_major,
        rdev_minor=rdev_minor,
        block_size=block_size,
        has_btime=bool(mask & STATX_BTIME),
        attributes=attribute_bits,
        attributes_mask=attributes_mask,
        dev_major=dev_major,
        dev_minor=dev_minor,
        mount_id=0,
    )
    return attributes, mask


def decode_entry(payload: bytes) -> EntryReply:
    """Decode ``fuse_entry_out`` (128 bytes)."""
    fields = layouts.ENTRY_OUT.unpack(payload)
    nodeid, generation, entry, attribute, entry_ns, attribute_ns = fields[:6]
    attributes, flags = _from_attr(fields[6:])
    validity = Validity(entry, entry_ns, attribute, attribute_ns)
    return EntryReply(nodeid, generation, validity, attributes, flags)


def decode_entry2(payload: bytes) -> Entry2Reply:
    """Decode ``fuse_entry2_out`` (312 bytes)."""
    fields = layouts.ENTRY2_OUT.unpack(payload)
    nodeid, generation, entry, attribute, entry_ns, attribute_ns, backing_id, flags = fields[:8]
    attributes, _ = _from_statx(fields[8:])
    validity = Validity(entry, entry_ns, attribute, attribute_ns)
    return Entry2Reply(nodeid, generation, validity, attributes, backing_id, flags)


def decode_any_entry(payload: bytes) -> EntryReply | Entry2Reply:
    """Decode ``fuse_entry_out`` or ``fuse_entry2_out``, told apart by size."""
    if len(payload) == layouts.ENTRY2_OUT.size:
        return decode_entry2(payload)
    return decode_entry(payload)


def decode_attr(payload: bytes) -> AttrReply:
    """Decode ``fuse_attr_out`` (104 bytes)."""
    fields = layouts.ATTR_OUT.unpack(payload)
    attributes, flags = _from_attr(fields[2:])
    return AttrReply(Validity(0, 0, fields[0], fields[1]), attributes, flags)


def decode_statx(payload: bytes) -> StatxReply:
    """Decode ``fuse_statx_out`` (288 bytes)."""
    fields = layouts.STATX_OUT.unpack(payload)
    attributes, mask = _from_statx(fields[3:])
    return StatxReply(Validity(0, 0, fields[0], fields[1]), attributes, fields[2], mask)


def decode_open(payload: bytes) -> OpenReply:
    """Decode ``fuse_open_out`` (16 bytes)."""
    return OpenReply(*layouts.OPEN_OUT.unpack(payload))


def decode_create(payload: bytes) -> CreateReply:
    """Decode the answer to CREATE and TMPFILE with a plain entry."""
    size = layouts.ENTRY_OUT.size
    return CreateReply(decode_entry(payload[:size]), decode_open(payload[size:]))


def decode_create2(payload: bytes) -> CreateReply:
    """Decode the answer to CREATE and TMPFILE with a 312-byte entry."""
    size = layouts.ENTRY2_OUT.size
    return CreateReply(decode_entry2(payload[:size]), decode_open(payload[size:]))


def decode_any_create(payload: bytes) -> CreateReply:
    """Decode the answer to CREATE and TMPFILE with whatever entry."""
    size = len(payload) - layouts.OPEN_OUT.size
    return CreateReply(decode_any_entry(payload[:size]), decode_open(payload[size:]))


def decode_statfs(payload: bytes) -> StatfsReply:
    """Decode ``fuse_statfs_out`` (80 bytes)."""
    return StatfsReply(*layouts.STATFS_OUT.unpack(payload))


def decode_lock(payload: bytes) -> LockReply:
    """Decode ``fuse_lk_out`` (24 bytes)."""
    return LockReply(*layouts.LK_OUT.unpack(payload))


def decode_number(layout: Struct, payload: bytes) -> int:
    """Decode a reply that is one number (WRITE, LSEEK, BMAP, POLL…) by its layout."""
    (number,) = layout.unpack(payload)
    return int(number)


def decode_init(payload: bytes) -> InitReply:
    """Decode the 64-byte ``fuse_init_out``."""
    (
        major,
        minor,
        max_readahead,
        low,
        max_background,
        congestion_threshold,
        max_write,
        time_granularity,
        max_pages,
        map_alignment,
        high,
        max_stack_depth,
        request_timeout,
    ) = layouts.INIT_OUT.unpack(payload)
    return InitReply(
        major,
        minor,
        max_readahead,
        low | high << 32,
        max_background,
        congestion_threshold,
        max_write,
        time_granularity,
        max_pages,
        map_alignment,
        max_stack_depth,
        request_timeout,
    )


def decode_dirents(page: bytes) -> list[Dirent]:
    """Decode a READDIR page."""
    entries = []
    position = 0
    while position < len(page):
        entry, position = _dirent(page, position)
        entries.append(entry)
    return entries


def decode_dirents_plus(page: bytes) -> list[DirentPlus]:
    """Decode a READDIRPLUS page."""
    entries = []
    position = 0
    while position < len(page):
        start = position + layouts.ENTRY_OUT.size
        plus = decode_entry(page[position:start])
        entry, position = _dirent(page, start)
        entries.append(DirentPlus(plus, entry))
    return entries


def _dirent(page: bytes, position: int) -> tuple[Dirent, int]:
    inode, next_offset, length, kind = layouts.DIRENT.unpack_from(page, position)
    start = position + layouts.DIRENT.size
    end = (start + length + 7) & ~7
    if end > len(page) or any(page[start + length : end]):
        raise ValueError(f"the entry at {position} is not padded with zeros to 8 bytes")
    return Dirent(inode, next_offset, kind, page[start : start + length]), end
