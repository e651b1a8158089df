"""What replies say about an inode, and for how long the kernel may believe it."""

from __future__ import annotations

from typing import Final

import msgspec

_FOREVER_SECONDS: Final = 1 << 32
_BILLION: Final = 1_000_000_000


class Attributes(msgspec.Struct, gc=False):
    """Everything statx(2) tells about a backing inode, in one value, in the order of its structure.

    ``size`` is in bytes, ``blocks`` in 512-byte units, times in seconds (signed) and nanoseconds.
    ``mode`` holds type and permissions, ``links`` the link count. ``attributes`` and
    ``attributes_mask`` are ``STATX_ATTR_*`` bits. The birth time counts when ``has_btime``.
    """

    has_btime: bool
    block_size: int
    attributes: int
    links: int
    uid: int
    gid: int
    mode: int
    inode: int
    size: int
    blocks: int
    attributes_mask: int
    atime_seconds: int
    atime_nanoseconds: int
    btime_seconds: int
    btime_nanoseconds: int
    ctime_seconds: int
    ctime_nanoseconds: int
    mtime_seconds: int
    mtime_nanoseconds: int
    rdev_major: int
    rdev_minor: int
    dev_major: int
    dev_minor: int
    mount_id: int


class Validity(msgspec.Struct, frozen=True, gc=False):
    """How long the kernel may cache a name (entry) and the attributes of what it names."""

    entry_seconds: int
    entry_nanoseconds: int
    attribute_seconds: int
    attribute_nanoseconds: int

    @classmethod
    def of(cls, entry: float, attributes: float) -> Validity:
        """Make it from two times in seconds; infinity becomes 136 years.

        Raises
        ------
        ValueError
            For a negative time or NaN.

        """
        return cls(*_split(entry), *_split(attributes))


def _split(seconds: float) -> tuple[int, int]:
    if not seconds >= 0:
        raise ValueError(f"a cache time cannot be {seconds} seconds; use 0 or more")
    if seconds >= _FOREVER_SECONDS:
        return _FOREVER_SECONDS, 0
    whole = int(seconds)
    return whole, min(int((seconds - whole) * _BILLION), _BILLION - 1)


def encode_rdev(major: int, minor: int) -> int:
    """Encode a device number in the 32 bits of the protocol.

    Source: ``new_encode_dev`` in include/linux/kdev_t.h (12 bits of major, 20 bits of minor).
    """
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12


def decode_rdev(rdev: int) -> tuple[int, int]:
    """Split a device number of the protocol into ``(major, minor)`` (``new_decode_dev``)."""
    return rdev >> 8 & 0xFFF, (rdev & 0xFF) | (rdev >> 12 & 0xFFF00)
