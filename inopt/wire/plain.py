"""Decode request bodies without names: one structure, and perhaps counted data after it.

The functions here return closures over a precompiled layout, to be put in a per-opcode table. A
decode function takes a header that :func:`inopt.wire.requests.decode_header` made, so the extension
block never is longer than the body.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import TYPE_CHECKING, Final, TypeAlias

from inopt.ops import op_name
from inopt.wire import bodies, layouts
from inopt.wire.bodies import Body, Header
from inopt.wire.errors import WireError
from inopt.wire.uapi import InitFlag

if TYPE_CHECKING:
    from struct import Struct

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What a request may be read into."""

DecodeBody: TypeAlias = Callable[[Header, Buffer], Body]
"""Decodes the body that follows a header."""

HEADER_SIZE: Final = layouts.IN_HEADER.size
"""Size of the request header in bytes (40)."""

_INIT_EXT: Final = int(InitFlag.INIT_EXT)


def wrong_size(header: Header, expected: int, relation: str = "") -> WireError:
    """Make the error for a body of the wrong size; ``expected`` bytes include the header."""
    return WireError(
        EINVAL,
        f"{op_name(header.opcode)} request of {header.length} bytes"
        f" ({header.extensions_length} of them extensions), expected {relation}{expected}",
    )


def bad_name(header: Header, name: bytes) -> WireError:
    """Make the error for a name that is empty, unterminated, or illegal where it stands."""
    return WireError(
        EINVAL,
        f"{op_name(header.opcode)} request of {header.length} bytes has a bad name {name[:64]!r}",
    )


def fixed(layout: Struct, body: Callable[..., Body]) -> DecodeBody:
    """Decode a body that is one structure, its fields in the order of the value's."""
    unpack_from = layout.unpack_from
    expected = HEADER_SIZE + layout.size

    def decode(header: Header, buffer: Buffer) -> Body:
        if header.length - header.extensions_length != expected:
            raise wrong_size(header, expected)
        return body(*unpack_from(buffer, HEADER_SIZE))

    return decode


def with_data(layout: Struct, body: Callable[..., Body], size_index: int) -> DecodeBody:
    """Decode a structure followed by as many bytes as its field number ``size_index`` says."""
    unpack_from = layout.unpack_from
    start = HEADER_SIZE + layout.size

    def decode(header: Header, buffer: Buffer) -> Body:
        end = header.length - header.extensions_length
        if end < start:
            raise wrong_size(header, start, "at least ")
        fields = unpack_from(buffer, HEADER_SIZE)
        data = memoryview(buffer)[start:end]
        if len(data) != fields[size_index]:
            raise wrong_size(header, start + fields[size_index])
        return body(*fields, data)

    return decode


def with_pairs(layout: Struct, body: Callable[..., Body]) -> DecodeBody:
    """Decode a count followed by that many pairs of 64-bit numbers."""
    unpack_from = layout.unpack_from
    iter_unpack = layouts.FORGET_ONE.iter_unpack
    start = HEADER_SIZE + layout.size

    def decode(header: Header, buffer: Buffer) -> Body:
        end = header.length - header.extensions_length
        if end < start:
            raise wrong_size(header, start, "at least ")
        (count,) = unpack_from(buffer, HEADER_SIZE)
        if end - start != count * 16:
            raise wrong_size(header, start + count * 16)
        return body(list(iter_unpack(memoryview(buffer)[start:end])))

    return decode


def init(header: Header, buffer: Buffer) -> Body:
    """Decode INIT, whose size tells its form: 16 bytes before minor 36, 64 bytes since."""
    size = header.length - HEADER_SIZE
    if size == layouts.INIT_COMPAT_IN.size:
        return bodies.Init(*layouts.INIT_COMPAT_IN.unpack_from(buffer, HEADER_SIZE))
    # A kernel newer than we know may append fields; the ones we know stay where they are.
    if size < layouts.INIT_IN.size:
        raise wrong_size(header, HEADER_SIZE + layouts.INIT_IN.size)
    major, minor, readahead, flags, flags2 = layouts.INIT_IN.unpack_from(buffer, HEADER_SIZE)
    return bodies.Init(
        major, minor, readahead, flags | flags2 << 32 if flags & _INIT_EXT else flags
    )
