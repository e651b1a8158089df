"""The seekable format of zstd: independent frames of bounded size, and a table of them at the end.

Such files are ordinary zstd files: the table is in a skippable frame, which `zstd -d` skips. Of
files that others have made, those of a single frame are read, too, if it tells its size.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from itertools import accumulate

import zstandard

FRAME = 1 << 20
LARGEST_FOREIGN = 64 << 20
MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE, _SEEKABLE = 0x184D2A5E, 0x8F92EAB1
_HEAD, _ENTRY, _FOOT = struct.Struct("<II"), struct.Struct("<II"), struct.Struct("<IBI")
_HEADER = 18  # a frame's header is not longer


class Frames:
    """Where the frames of a file are, in it (``stored``) and in its plain content (``plain``)."""

    def __init__(self, entries: list[tuple[int, int]]) -> None:
        self.stored = [0, *accumulate(stored for stored, _ in entries)]
        self.plain = [0, *accumulate(plain for _, plain in entries)]
        self.size = self.plain[-1]

    def at(self, offset: int) -> int:
        """The number of the frame that holds *offset* of the plain content."""
        return bisect_right(self.plain, offset) - 1

    def read(self, file: int, number: int) -> bytes:
        """The plain content of a frame. Raises `zstandard.ZstdError` for a damaged one."""
        begin, end = self.stored[number : number + 2]
        size = self.plain[number + 1] - self.plain[number]
        frame = os.pread(file, end - begin, begin)
        if zstandard.get_frame_parameters(frame).content_size != size:
            raise zstandard.ZstdError("a frame is not what the table says")
        return zstandard.ZstdDecompressor().decompress(frame)


def frames_of(file: int) -> Frames | None:
    """The frames of a file; None for one that is not compressed, or not by frames as above."""
    head = os.pread(file, _HEADER, 0)
    if not head.startswith(MAGIC):
        return None
    length = os.fstat(file).st_size
    foot = os.pread(file, _FOOT.size, max(0, length - _FOOT.size))
    count, descriptor, magic = _FOOT.unpack(foot) if len(foot) == _FOOT.size else (0, 0, 0)
    size = count * _ENTRY.size + _FOOT.size
    if magic == _SEEKABLE and descriptor == 0 and size + _HEAD.size < length:
        table = os.pread(file, size + _HEAD.size, length - size - _HEAD.size)
        entries = list(_ENTRY.iter_unpack(table[_HEAD.size : -_FOOT.size]))
        frames = Frames(entries)
        if (
            _HEAD.unpack_from(table) == (_SKIPPABLE, size)
            and frames.stored[-1] + len(table) == length
            and all(plain <= LARGEST_FOREIGN for _, plain in entries)
        ):
            return frames
    return _single(file, head, length)


def _single(file: int, head: bytes, length: int) -> Frames | None:
    """A file that is one frame and nothing else: its blocks are walked through to its end."""
    try:
        frame = zstandard.get_frame_parameters(head)
        at = zstandard.frame_header_size(head)
    except zstandard.ZstdError:
        return None
    if frame.content_size > LARGEST_FOREIGN:  # unknown sizes are very large numbers
        return None
    last = False
    while not last and at < length:
        block = int.from_bytes(os.pread(file, 3, at), "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == 1 else size)  # a byte that is repeated, or so many bytes
    at += 4 if frame.has_checksum else 0
    return Frames([(length, frame.content_size)]) if last and at == length else None


def compress(source: int, target: int, level: int = 3) -> int:
    """Write the content of *source* to *target*, compressed; returns how long it has become."""
    compressor = zstandard.ZstdCompressor(level=level)
    entries = []
    read = written = 0
    while piece := os.pread(source, FRAME, read):
        frame = compressor.compress(piece)
        _write(target, frame, written)
        entries.append((len(frame), len(piece)))
        read += len(piece)
        written += len(frame)
    size = len(entries) * _ENTRY.size + _FOOT.size
    table = b"".join(_ENTRY.pack(*entry) for entry in entries)
    tail = _HEAD.pack(_SKIPPABLE, size) + table + _FOOT.pack(len(entries), 0, _SEEKABLE)
    _write(target, tail, written)
    return written + len(tail)


def decompress(source: int, target: int, frames: Frames) -> None:
    """Write the plain content of *source* to *target*."""
    for number, offset in enumerate(frames.plain[:-1]):
        _write(target, frames.read(source, number), offset)


def replace(file: int, content: int) -> None:
    """Make the content of *file* that of *content*; its times stay. Changes nothing if it fails."""
    status, length = os.fstat(file), os.fstat(content).st_size
    try:
        if length:
            os.posix_fallocate(file, 0, length)  # now, not amid writing, the disk may be full
    except OSError:
        os.truncate(file, status.st_size)
        raise
    offset = 0
    while piece := os.pread(content, FRAME, offset):
        _write(file, piece, offset)
        offset += len(piece)
    os.truncate(file, offset)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
