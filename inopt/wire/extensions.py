"""Decode the extension block that creating requests may end with.

A block is a sequence of parts, each led by ``{u32 size, u32 type}`` with ``size`` counting the
whole part. Type 32 is a list of supplementary groups; a type of 31 or less is the number of
security contexts that follow. Unknown types are stepped over, which is what the sizes are for.

Source: ``fuse_ext_header``, ``fuse_secctx_header``, ``fuse_secctx`` and ``fuse_supp_groups`` in
linux/fuse.h (7.38; the context list alone since 7.36); fs/fuse/dir.c pads each part and each
context to 8 bytes.
"""

from __future__ import annotations

from errno import EINVAL
from struct import unpack_from
from typing import Final

from inopt.wire.bodies import NO_EXTENSIONS, Extensions
from inopt.wire.errors import WireError
from inopt.wire.layouts import EXT_HEADER, SECCTX, SUPP_GROUPS
from inopt.wire.uapi import EXTENSION_GROUPS

_GROUPS_OFFSET: Final = EXT_HEADER.size + SUPP_GROUPS.size


def decode_extensions(block: bytes) -> Extensions:
    """Decode a whole extension block; ``WireError(EINVAL)`` when its sizes do not add up."""
    if not block:
        return NO_EXTENSIONS
    contexts: list[tuple[bytes, bytes]] = []
    groups: tuple[int, ...] = ()
    start, end = 0, len(block)
    while start < end:
        if end - start < EXT_HEADER.size:
            raise _garbled(block, start)
        size, kind = EXT_HEADER.unpack_from(block, start)
        if not EXT_HEADER.size <= size <= end - start:
            raise _garbled(block, start)
        if kind == EXTENSION_GROUPS:
            groups += _groups(block, start, size)
        elif kind < EXTENSION_GROUPS:
            contexts.extend(_contexts(block, start, size, kind))
        start += size
    return Extensions(tuple(contexts), groups)


def _groups(block: bytes, start: int, size: int) -> tuple[int, ...]:
    if size < _GROUPS_OFFSET:
        raise _garbled(block, start)
    (count,) = SUPP_GROUPS.unpack_from(block, start + EXT_HEADER.size)
    if count * 4 > size - _GROUPS_OFFSET:
        raise _garbled(block, start)
    return unpack_from(f"<{count}I", block, start + _GROUPS_OFFSET)


def _contexts(block: bytes, start: int, size: int, count: int) -> list[tuple[bytes, bytes]]:
    contexts = []
    end = start + size
    position = start + EXT_HEADER.size
    for _ in range(count):
        if end - position < SECCTX.size:
            raise _garbled(block, position)
        (value_size,) = SECCTX.unpack_from(block, position)
        name_start = position + SECCTX.size
        name_end = block.find(b"\0", name_start, end)
        value_end = name_end + 1 + value_size
        if name_end <= name_start or value_end > end:
            raise _garbled(block, position)
        contexts.append((block[name_start:name_end], block[name_end + 1 : value_end]))
        position += (value_end - position + 7) & ~7
    return contexts


def _garbled(block: bytes, position: int) -> WireError:
    return WireError(EINVAL, f"extension block of {len(block)} bytes is garbled at {position}")
