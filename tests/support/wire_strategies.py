"""Hypothesis strategies for the wire room, and what linux/fuse.h on this machine says.

``BODIES`` has a strategy of valid bodies for every opcode; numbers fill the whole width of their
field, which is read off the layout that the field is sent in.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec
from hypothesis import strategies as st

from inopt.ops import Op
from inopt.wire import bodies, layouts, uapi
from inopt.wire.bodies import NO_EXTENSIONS, Body, Extensions
from inopt.wire.replies import Attributes, Validity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from struct import Struct

    from hypothesis.strategies import SearchStrategy

MINORS: Final = range(uapi.LOWEST_MINOR, uapi.HIGHEST_MINOR + 1)
CREATING: Final = frozenset({Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.CREATE, Op.TMPFILE})
UNDECLARED: Final = range(uapi.INIT_EXT_MINOR, uapi.EXTENSION_HEADER_MINOR)

# --- numbers and names -----------------------------------------------------------------------


def unsigned(bits: int) -> SearchStrategy[int]:
    """Numbers of so many bits, their limits included."""
    return st.integers(0, (1 << bits) - 1)


def signed(bits: int) -> SearchStrategy[int]:
    """Two's complement numbers of so many bits."""
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


U16: Final = unsigned(16)
U32: Final = unsigned(32)
U64: Final = unsigned(64)
I32: Final = signed(32)
I64: Final = signed(64)

_BY_CODE: Final = {"H": U16, "I": U32, "Q": U64, "i": I32, "q": I64}
_WIDTHS: Final = {"H": 2, "I": 4, "Q": 8, "i": 4, "q": 8}


def codes(layout: Struct) -> list[tuple[int, str]]:
    """Every value of a layout as ``(offset, format character)``; padding is left out."""
    found = []
    offset = 0
    for digits, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        count = int(digits or 1)
        if code == "x":
            offset += count
            continue
        for _ in range(count):
            found.append((offset, code))
            offset += _WIDTHS[code]
    assert offset == layout.size
    return found


def places(layout: Struct) -> set[tuple[int, int]]:
    """Every value of a layout as ``(offset, width)``."""
    return {(offset, _WIDTHS[code]) for offset, code in codes(layout)}


def fields(layout: Struct) -> list[SearchStrategy[int]]:
    """A strategy for each value of a layout, as wide as its field."""
    return [_BY_CODE[code] for _, code in codes(layout)]


NAMES: Final[SearchStrategy[bytes]] = st.one_of(
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.replace(b"\0", b"n").replace(b"/", b"s"))
    .filter(lambda name: name not in {b".", b".."}),
    st.sampled_from([b"...", b".hidden", b"a b", b"\xff\xfe", b"n" * 7, b"n" * 8, b"n" * 255]),
)
"""What a directory entry can be called."""

WORDS: Final[SearchStrategy[bytes]] = st.binary(min_size=1, max_size=24).map(
    lambda raw: raw.replace(b"\0", b"/")
)
"""Bytes without NUL: xattr names, symlink targets."""

DATA: Final[SearchStrategy[bytes]] = st.binary(max_size=48)

EXTENSIONS: Final[SearchStrategy[Extensions]] = st.one_of(
    st.just(NO_EXTENSIONS),
    st.builds(
        Extensions,
        st.lists(st.tuples(WORDS, DATA), max_size=3).map(tuple),
        st.lists(U32, max_size=4).map(tuple),
    ),
)

# --- bodies ----------------------------------------------------------------------------------


def _fixed(layout: Struct, body: Callable[..., Body]) -> SearchStrategy[Body]:
    return st.builds(body, *fields(layout))


def _with_data(layout: Struct, body: Callable[..., Body], size_index: int) -> SearchStrategy[Body]:
    def build(numbers: tuple[int, ...], data: bytes) -> Body:
        before, after = numbers[:size_index], numbers[size_index + 1 :]
        return body(*before, len(data), *after, memoryview(data))

    return st.builds(build, st.tuples(*fields(layout)), DATA)


_PAIRS: Final = st.lists(st.tuples(U64, U64), max_size=4)
_READ: Final = _fixed(layouts.READ_IN, bodies.Read)
_OPEN: Final = _fixed(layouts.OPEN_IN, bodies.Open)
_RELEASE: Final = _fixed(layouts.RELEASE_IN, bodies.Release)
_FSYNC: Final = _fixed(layouts.FSYNC_IN, bodies.Fsync)
_LOCK: Final = _fixed(layouts.LK_IN, bodies.Lock)
_COPY: Final = _fixed(layouts.COPY_FILE_RANGE_IN, bodies.CopyFileRange)
_CREATE: Final = fields(layouts.CREATE_IN)

BODIES: Final[dict[Op, SearchStrategy[Any]]] = {
    Op.LOOKUP: st.builds(bodies.Lookup, NAMES | st.sampled_from([b".", b".."])),
    Op.FORGET: _fixed(layouts.FORGET_IN, bodies.Forget),
    Op.GETATTR: _fixed(layouts.GETATTR_IN, bodies.Getattr),
    Op.SETATTR: _fixed(layouts.SETATTR_IN, bodies.Setattr),
    Op.READLINK: st.builds(bodies.Readlink),
    Op.SYMLINK: st.builds(bodies.Symlink, NAMES, WORDS, EXTENSIONS),
    Op.MKNOD: st.builds(bodies.Mknod, NAMES, U32, U32, U32, EXTENSIONS),
    Op.MKDIR: st.builds(bodies.Mkdir, NAMES, U32, U32, EXTENSIONS),
    Op.UNLINK: st.builds(bodies.Unlink, NAMES),
    Op.RMDIR: st.builds(bodies.Rmdir, NAMES),
    Op.RENAME: st.builds(bodies.Rename, U64, st.just(0), NAMES, NAMES),
    Op.LINK: st.builds(bodies.Link, U64, NAMES),
    Op.OPEN: _OPEN,
    Op.READ: _READ,
    Op.WRITE: _with_data(layouts.WRITE_IN, bodies.Write, 2),
    Op.STATFS: st.builds(bodies.Statfs),
    Op.RELEASE: _RELEASE,
    Op.FSYNC: _FSYNC,
    Op.SETXATTR: st.builds(bodies.Setxattr, WORDS, DATA, U32, U32),
    Op.GETXATTR: st.builds(bodies.Getxattr, U32, WORDS),
    Op.LISTXATTR: _fixed(layouts.GETXATTR_IN, bodies.Listxattr),
    Op.REMOVEXATTR: st.builds(bodies.Removexattr, WORDS),
    Op.FLUSH: _fixed(layouts.FLUSH_IN, bodies.Flush),
    Op.INIT: st.builds(bodies.Init, U32, U32, U32, U64),
    Op.OPENDIR: _OPEN,
    Op.READDIR: _READ,
    Op.RELEASEDIR: _RELEASE,
    Op.FSYNCDIR: _FSYNC,
    Op.GETLK: _LOCK,
    Op.SETLK: _LOCK,
    Op.SETLKW: _LOCK,
    Op.ACCESS: _fixed(layouts.ACCESS_IN, bodies.Access),
    Op.CREATE: st.builds(bodies.Create, *_CREATE, NAMES, EXTENSIONS),
    Op.INTERRUPT: _fixed(layouts.INTERRUPT_IN, bodies.Interrupt),
    Op.BMAP: _fixed(layouts.BMAP_IN, bodies.Bmap),
    Op.DESTROY: st.builds(bodies.Destroy),
    Op.IOCTL: _with_data(layouts.IOCTL_IN, bodies.Ioctl, 4),
    Op.POLL: _fixed(layouts.POLL_IN, bodies.Poll),
    Op.NOTIFY_REPLY: _with_data(layouts.NOTIFY_RETRIEVE_IN, bodies.NotifyReply, 1),
    Op.BATCH_FORGET: st.builds(bodies.BatchForget, _PAIRS),
    Op.FALLOCATE: _fixed(layouts.FALLOCATE_IN, bodies.Fallocate),
    Op.READDIRPLUS: _READ,
    Op.RENAME2: st.builds(bodies.Rename, U64, U32, NAMES, NAMES),
    Op.LSEEK: _fixed(layouts.LSEEK_IN, bodies.Lseek),
    Op.COPY_FILE_RANGE: _COPY,
    Op.SETUPMAPPING: _fixed(layouts.SETUPMAPPING_IN, bodies.Setupmapping),
    Op.REMOVEMAPPING: st.builds(bodies.Removemapping, _PAIRS),
    Op.SYNCFS: st.builds(bodies.Syncfs),
    Op.TMPFILE: st.builds(bodies.Create, *_CREATE, st.just(b"/") | NAMES, EXTENSIONS),
    Op.STATX: _fixed(layouts.STATX_IN, bodies.Statx),
    Op.COPY_FILE_RANGE_64: _COPY,
}
"""Valid bodies of each opcode, as the newest minor may send them."""


def as_sent(body: Body, minor: int, *, setxattr_ext: bool) -> Body:
    """Reduce a body to what a kernel of this minor can say."""
    if isinstance(body, bodies.Init):
        wide = minor >= uapi.INIT_EXT_MINOR and body.flags & uapi.InitFlag.INIT_EXT
        return body if wide else msgspec.structs.replace(body, flags=body.flags & 0xFFFF_FFFF)
    if isinstance(body, bodies.Setxattr) and not setxattr_ext:
        return msgspec.structs.replace(body, setxattr_flags=0)
    if (
        isinstance(body, bodies.Symlink | bodies.Mknod | bodies.Mkdir | bodies.Create)
        and minor < uapi.INIT_EXT_MINOR
    ):
        return msgspec.structs.replace(body, extensions=NO_EXTENSIONS)
    return body


# --- what replies say ------------------------------------------------------------------------

ATTRIBUTES: Final[SearchStrategy[Attributes]] = st.builds(
    Attributes,
    inode=U64,
    size=U64,
    blocks=U64,
    atime_seconds=I64,
    mtime_seconds=I64,
    ctime_seconds=I64,
    btime_seconds=I64,
    atime_nanoseconds=U32,
    mtime_nanoseconds=U32,
    ctime_nanoseconds=U32,
    btime_nanoseconds=U32,
    mode=U16,
    links=U32,
    uid=U32,
    gid=U32,
    rdev_major=unsigned(12),
    rdev_minor=unsigned(20),
    block_size=U32,
    has_btime=st.booleans(),
    attributes=U64,
    attributes_mask=U64,
    dev_major=U32,
    dev_minor=U32,
    mount_id=U64,
)
"""Attributes whose device number fits both the 32-bit form and statx."""

VALIDITIES: Final[SearchStrategy[Validity]] = st.builds(Validity, U64, U32, U64, U32)


def seen_by_stat(attributes: Attributes, inode: int | None = None) -> Attributes:
    """Reduce attributes to what ``fuse_attr`` carries."""
    return msgspec.structs.replace(
        seen_by_statx(attributes, inode),
        btime_seconds=0,
        btime_nanoseconds=0,
        has_btime=False,
        attributes=0,
        attributes_mask=0,
        dev_major=0,
        dev_minor=0,
    )


def seen_by_statx(attributes: Attributes, inode: int | None = None) -> Attributes:
    """Reduce attributes to what ``fuse_statx`` carries."""
    shown = attributes.inode if inode is None else inode
    return msgspec.structs.replace(attributes, inode=shown, mount_id=0)


# --- bytes at offsets ------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a named number stands, in bytes."""

    name: str
    offset: int
    width: int


def parse_places(text: str) -> list[Place]:
    """Read places from ``"name@offset:width …"``."""
    found = []
    for word in text.split():
        name, offset, width = re.split("[@:]", word)
        found.append(Place(name, int(offset), int(width)))
    return found


def marker(index: int, width: int) -> int:
    """A positive number with as many different bytes as fit, different for each index."""
    return int.from_bytes(bytes((index * 9 + step) % 127 + 1 for step in range(width)), "little")


def poke(buffer: bytearray, place: Place, value: int) -> None:
    """Store a number, little-endian as every machine that inopt supports."""
    buffer[place.offset : place.offset + place.width] = value.to_bytes(
        place.width, "little", signed=value < 0
    )


def peek(payload: bytes, place: Place) -> int:
    """Load a number without a sign."""
    return int.from_bytes(payload[place.offset : place.offset + place.width], "little")


# --- linux/fuse.h ----------------------------------------------------------------------------

_HEADER_PATH: Final = "/usr/include/linux/fuse.h"
_C_WIDTHS: Final = {
    "char": 1,
    "uint16_t": 2,
    "uint32_t": 4,
    "int32_t": 4,
    "uint64_t": 8,
    "int64_t": 8,
}
_UNUSED: Final = ("padding", "dummy", "unused", "spare", "reserved")
_Leaves: TypeAlias = set[tuple[int, int]]


class CStruct(NamedTuple):
    """A structure of the header: its size, alignment and the places of its used numbers."""

    size: int
    alignment: int
    leaves: _Leaves


class FuseHeader(NamedTuple):
    """What the tests look up in linux/fuse.h."""

    minor: int
    structs: dict[str, CStruct]
    opcodes: dict[str, int]
    bits: dict[str, int]
    notify_codes: dict[str, int]


@cache
def fuse_header() -> FuseHeader | None:
    """Read linux/fuse.h; None where it is not installed or older than 7.38."""
    if not os.path.exists(_HEADER_PATH):
        return None
    text = Path(_HEADER_PATH).read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    minor = re.search(r"#define FUSE_KERNEL_MINOR_VERSION (\d+)", text)
    assert minor is not None
    if int(minor[1]) < 38:
        return None
    structs: dict[str, CStruct] = {}
    for name, content in re.findall(r"struct (\w+) \{(.*?)\n\};", text, flags=re.DOTALL):
        structs[name] = _c_struct(content, structs)
    enums = dict(re.findall(r"enum (\w+) \{(.*?)\};", text, flags=re.DOTALL))
    bits = re.findall(r"#define (?:FUSE_)?(\w+)\s+\(1(?:ULL)? << (\d+)\)", text)
    return FuseHeader(
        int(minor[1]),
        structs,
        _enumerators(enums["fuse_opcode"], "FUSE_"),
        {name: 1 << int(bit) for name, bit in bits},
        _enumerators(enums["fuse_notify_code"], "FUSE_NOTIFY_"),
    )


def _enumerators(content: str, prefix: str) -> dict[str, int]:
    found: Iterable[tuple[str, str]] = re.findall(rf"\b{prefix}(\w+)\s*=\s*(\d+)", content)
    return {name: int(number) for name, number in found}


def _c_struct(content: str, known: dict[str, CStruct]) -> CStruct:
    offset, alignment = 0, 1
    leaves: _Leaves = set()
    members = re.findall(r"(?:struct )?(\w+)\s+(\w+)(?:\[(\d*)\])?(\])?;", content)
    brackets = re.findall(r"(\w+)\[\];", content)
    for kind, name, digits, _ in members:
        count = 0 if name in brackets else int(digits or 1)
        if kind in known:
            size, align, inner = known[kind]
        else:
            size = align = _C_WIDTHS[kind]
            inner = set() if name.lstrip("_").startswith(_UNUSED) else {(0, size)}
        offset += -offset % align
        alignment = max(alignment, align)
        for _ in range(count):
            leaves |= {(offset + start, width) for start, width in inner}
            offset += size
    return CStruct(offset + -offset % alignment, alignment, leaves)
