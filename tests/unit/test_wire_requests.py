"""Requests: layouts against the kernel's header, round trips, truncation, garbage, exact bytes."""

from __future__ import annotations

import struct
from errno import EINVAL, ENOSYS
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sizing import examples
from support.wire_strategies import (
    BODIES,
    CREATING,
    MINORS,
    U32,
    U64,
    UNDECLARED,
    as_sent,
    fuse_header,
    marker,
    parse_places,
    places,
    poke,
)

from inopt.ops import Op
from inopt.wire import bodies, layouts, uapi
from inopt.wire.bodies import NO_EXTENSIONS, Body, Extensions, Header
from inopt.wire.kernel_side import encode_extensions, encode_request
from inopt.wire.requests import HEADER_SIZE, Decoder, WireError, decode_header

DECODERS: Final = {
    (minor, ext): Decoder(minor, setxattr_ext=ext) for minor in MINORS for ext in (False, True)
}
# One of each way to decode: before INIT_EXT, undeclared extensions, declared ones, the newest.
PROBES: Final = (DECODERS[31, False], DECODERS[36, True], DECODERS[38, True], DECODERS[45, True])

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
many = settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
each_op = pytest.mark.parametrize("op", Op, ids=lambda op: op.name)


def decode(request: bytes, decoder: Decoder) -> Body:
    return decoder.decode(decode_header(request, len(request)), request)


def with_length(request: bytes) -> bytes:
    """Make the header say how long the request is."""
    return struct.pack("<I", len(request)) + request[4:]


def assemble(opcode: int, body: bytes, units: int = 0) -> bytes:
    """Put fuse_in_header in front of a body: unique 2, nodeid 3, uid 4, gid 5, pid 6."""
    length = 40 + len(body)
    return struct.pack("<IIQQIIIHH", length, opcode, 2, 3, 4, 5, 6, units, 0) + body


def refused(request: bytes, decoder: Decoder) -> int:
    """Return the errno that a request is refused with; anything but a refusal fails the test."""
    with pytest.raises(WireError) as caught:
        decode(request, decoder)
    assert str(caught.value)
    return caught.value.errno


def decodes_or_refuses(request: bytes, decoder: Decoder, buffer: bytes | None = None) -> bool:
    """Whether it decodes; any exception but WireError with the right errno escapes."""
    try:
        header = decode_header(request, len(request))
        decoder.decode(header, request if buffer is None else buffer)
    except WireError as error:
        assert error.errno in {EINVAL, ENOSYS}  # noqa: PT017
        return False
    return True


# --- layouts ---------------------------------------------------------------------------------

LAYOUTS: Final[dict[str, tuple[int, str]]] = {
    # Size in bytes, and the structure of include/uapi/linux/fuse.h ("" is part of one).
    "IN_HEADER": (40, "fuse_in_header"),
    "OUT_HEADER": (16, "fuse_out_header"),
    "FORGET_IN": (8, "fuse_forget_in"),
    "FORGET_ONE": (16, "fuse_forget_one"),
    "BATCH_FORGET_IN": (8, "fuse_batch_forget_in"),
    "GETATTR_IN": (16, "fuse_getattr_in"),
    "SETATTR_IN": (88, "fuse_setattr_in"),
    "MKNOD_IN": (16, "fuse_mknod_in"),
    "MKDIR_IN": (8, "fuse_mkdir_in"),
    "RENAME_IN": (8, "fuse_rename_in"),
    "RENAME2_IN": (16, "fuse_rename2_in"),
    "LINK_IN": (8, "fuse_link_in"),
    "OPEN_IN": (8, "fuse_open_in"),
    "CREATE_IN": (16, "fuse_create_in"),
    "READ_IN": (40, "fuse_read_in"),
    "WRITE_IN": (40, "fuse_write_in"),
    "RELEASE_IN": (24, "fuse_release_in"),
    "FSYNC_IN": (16, "fuse_fsync_in"),
    "SETXATTR_COMPAT_IN": (8, ""),  # FUSE_COMPAT_SETXATTR_IN_SIZE
    "SETXATTR_IN": (16, "fuse_setxattr_in"),
    "GETXATTR_IN": (8, "fuse_getxattr_in"),
    "FLUSH_IN": (24, "fuse_flush_in"),
    "INIT_COMPAT_IN": (16, ""),  # fuse_init_in up to 7.35
    "INIT_IN": (64, "fuse_init_in"),
    "LK_IN": (48, "fuse_lk_in"),
    "ACCESS_IN": (8, "fuse_access_in"),
    "INTERRUPT_IN": (8, "fuse_interrupt_in"),
    "BMAP_IN": (16, "fuse_bmap_in"),
    "IOCTL_IN": (32, "fuse_ioctl_in"),
    "POLL_IN": (24, "fuse_poll_in"),
    "NOTIFY_RETRIEVE_IN": (40, "fuse_notify_retrieve_in"),
    "FALLOCATE_IN": (32, "fuse_fallocate_in"),
    "LSEEK_IN": (24, "fuse_lseek_in"),
    "COPY_FILE_RANGE_IN": (56, "fuse_copy_file_range_in"),
    "SETUPMAPPING_IN": (40, "fuse_setupmapping_in"),
    "REMOVEMAPPING_IN": (4, "fuse_removemapping_in"),
    "REMOVEMAPPING_ONE": (16, "fuse_removemapping_one"),
    "SYNCFS_IN": (8, "fuse_syncfs_in"),
    "STATX_IN": (24, "fuse_statx_in"),  # 7.39
    "NO_BODY": (0, ""),
    "EXT_HEADER": (8, "fuse_ext_header"),
    "SUPP_GROUPS": (4, "fuse_supp_groups"),
    "SECCTX": (8, "fuse_secctx"),
    "ATTR": (88, "fuse_attr"),
    "STATX": (256, "fuse_statx"),  # 7.39
    "ENTRY_OUT": (128, "fuse_entry_out"),
    "ENTRY2_OUT": (312, ""),  # fuse_entry2_out of the inode-operations postings
    "ATTR_OUT": (104, "fuse_attr_out"),
    "STATX_OUT": (288, "fuse_statx_out"),  # 7.39
    "OPEN_OUT": (16, "fuse_open_out"),
    "WRITE_OUT": (8, "fuse_write_out"),
    "STATFS_OUT": (80, "fuse_statfs_out"),
    "GETXATTR_OUT": (8, "fuse_getxattr_out"),
    "LK_OUT": (24, "fuse_lk_out"),
    "INIT_COMPAT_OUT": (8, ""),  # FUSE_COMPAT_INIT_OUT_SIZE
    "INIT_22_OUT": (24, ""),  # FUSE_COMPAT_22_INIT_OUT_SIZE
    "INIT_OUT": (64, "fuse_init_out"),
    "BMAP_OUT": (8, "fuse_bmap_out"),
    "IOCTL_OUT": (16, "fuse_ioctl_out"),
    "POLL_OUT": (8, "fuse_poll_out"),
    "LSEEK_OUT": (8, "fuse_lseek_out"),
    "COPY_FILE_RANGE_OUT": (8, "fuse_copy_file_range_out"),  # 7.45
    "DIRENT": (24, "fuse_dirent"),
    "NOTIFY_POLL_WAKEUP_OUT": (8, "fuse_notify_poll_wakeup_out"),
    "NOTIFY_INVAL_INODE_OUT": (24, "fuse_notify_inval_inode_out"),
    "NOTIFY_INVAL_ENTRY_OUT": (16, "fuse_notify_inval_entry_out"),
    "NOTIFY_DELETE_OUT": (24, "fuse_notify_delete_out"),
    "NOTIFY_STORE_OUT": (24, "fuse_notify_store_out"),
    "NOTIFY_RETRIEVE_OUT": (32, "fuse_notify_retrieve_out"),
    "NOTIFY_PRUNE_OUT": (16, "fuse_notify_prune_out"),  # 7.45
}
# What a header of 7.38 does not have yet.
NEWER: Final = {
    "fuse_statx_in",
    "fuse_statx",
    "fuse_statx_out",
    "fuse_supp_groups",
    "fuse_copy_file_range_out",
    "fuse_notify_prune_out",
}
# Fields of later protocols stand where an older header has padding.
GREW: Final = {"fuse_open_out", "fuse_init_out", "fuse_in_header", "fuse_notify_inval_entry_out"}


def test_every_layout_is_listed() -> None:
    found = {name for name, value in vars(layouts).items() if isinstance(value, struct.Struct)}
    assert found == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_size(name: str) -> None:
    layout = getattr(layouts, name)
    assert layout.size == LAYOUTS[name][0]
    assert layout.format.startswith("<")


@pytest.mark.parametrize("name", [name for name, (_, c_name) in LAYOUTS.items() if c_name])
def test_layout_is_the_headers(name: str) -> None:
    header = fuse_header()
    size, c_name = LAYOUTS[name]
    if header is None or (c_name in NEWER and c_name not in header.structs):
        pytest.skip("linux/fuse.h does not have it")
    theirs = header.structs[c_name]
    ours = places(getattr(layouts, name))
    assert theirs.size == size
    assert theirs.leaves == ours or (c_name in GREW and theirs.leaves < ours)


def test_flags_are_the_headers() -> None:
    header = fuse_header()
    if header is None:
        pytest.skip("linux/fuse.h is not installed")
    ours = {name: value for name, value in vars(uapi).items() if isinstance(value, int)}
    ours |= {name: int(flag) for name, flag in uapi.InitFlag.__members__.items()}
    common = ours.keys() & header.bits.keys()
    assert len(common) > 70
    assert {name: ours[name] for name in common} == {name: header.bits[name] for name in common}
    codes = {code.name: int(code) for code in uapi.NotifyCode}
    assert {name: codes[name] for name in header.notify_codes} == header.notify_codes


def test_flags_newer_than_most_headers() -> None:
    flags = uapi.InitFlag
    # FUSE_CREATE_SUPP_GROUP (7.38), FUSE_PASSTHROUGH, FUSE_HAS_RESEND (7.40),
    # FUSE_ALLOW_IDMAP (7.41), FUSE_OVER_IO_URING (7.42), FUSE_REQUEST_TIMEOUT (7.43).
    assert flags.CREATE_SUPP_GROUP == 1 << 34
    assert (flags.PASSTHROUGH, flags.HAS_RESEND) == (1 << 37, 1 << 39)
    assert (flags.ALLOW_IDMAP, flags.OVER_IO_URING) == (1 << 40, 1 << 41)
    assert flags.REQUEST_TIMEOUT == 1 << 42
    assert 1 << 43 not in {int(flag) for flag in flags}
    codes = uapi.NotifyCode  # 7.40, 7.44, 7.45
    assert (codes.RESEND, codes.INC_EPOCH, codes.PRUNE) == (7, 8, 9)
    assert uapi.EXTENSION_GROUPS == 32  # FUSE_EXT_GROUPS


# --- round trips -----------------------------------------------------------------------------


def test_every_opcode_has_bodies() -> None:
    assert set(BODIES) == set(Op)


@each_op
@few
@given(data=st.data(), unique=U64, nodeid=U64, uid=U32, gid=U32, pid=U32)
def test_round_trip(
    op: Op, data: st.DataObject, unique: int, nodeid: int, uid: int, gid: int, pid: int
) -> None:
    body = data.draw(BODIES[op])
    trail = data.draw(st.binary(max_size=9))
    for (minor, ext), decoder in DECODERS.items():
        sent = as_sent(body, minor, setxattr_ext=ext)
        request = encode_request(op, unique, nodeid, sent, uid, gid, pid, minor, ext)
        # The buffer is longer than the request and not only ever bytes.
        buffer = bytearray(request + trail)
        header = decode_header(memoryview(buffer), len(request))
        declared = header.extensions_length
        assert header == Header(len(request), op, unique, nodeid, uid, gid, pid, declared)
        extensions = getattr(sent, "extensions", NO_EXTENSIONS)
        assert declared == (len(encode_extensions(extensions)) if minor >= 38 else 0)
        assert decoder.decode(header, buffer) == sent
        assert decoder.decode(header, memoryview(request)) == sent
        assert decoder.decode(header, request) == sent


def test_data_is_not_copied() -> None:
    buffer = bytearray(assemble(Op.WRITE, bytes(16) + struct.pack("<I", 3) + bytes(20) + b"abc"))
    body = DECODERS[45, True].decode(decode_header(buffer, len(buffer)), buffer)
    assert isinstance(body, bodies.Write)
    buffer[-3:] = b"xyz"
    assert bytes(body.data) == b"xyz"


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 64, 4096])
def test_unknown_opcodes_are_not_encoded(opcode: int) -> None:
    with pytest.raises(ValueError, match=f"opcode {opcode} "):
        encode_request(opcode, 1, 1, bodies.Statfs())


def test_no_extensions_before_minor_36() -> None:
    body = bodies.Mkdir(b"d", 0o755, 0, Extensions(groups=(7,)))
    with pytest.raises(ValueError, match="minor 35"):
        encode_request(Op.MKDIR, 1, 1, body, minor=35)


# --- too short, too long, garbage ------------------------------------------------------------


def may_stop_early(op: Op, minor: int) -> bool:
    """Whether a shorter or longer body of the opcode is a body as well."""
    return op is Op.INIT or (op in CREATING and minor in UNDECLARED)


@each_op
@settings(few, max_examples=10)
@given(data=st.data())
def test_truncated(op: Op, data: st.DataObject) -> None:
    body = data.draw(BODIES[op])
    for decoder in PROBES:
        minor, ext = decoder.minor, decoder.setxattr_ext
        sent = as_sent(body, minor, setxattr_ext=ext)
        request = encode_request(op, 1, 1, sent, minor=minor, setxattr_ext=ext)
        whole = decode_header(request, len(request))
        for length in range(len(request)):
            part = request[:length]
            with pytest.raises(WireError) as caught:
                decode_header(part, length)
            assert caught.value.errno == EINVAL
            if length < HEADER_SIZE:
                continue
            if may_stop_early(op, minor):
                decodes_or_refuses(with_length(part), decoder)
            else:
                assert refused(with_length(part), decoder) == EINVAL
            # The header of a whole request, but a buffer that ends early.
            decodes_or_refuses(request, decoder, buffer=part)
        assert decoder.decode(whole, request) == sent


@each_op
@few
@given(data=st.data())
def test_oversized(op: Op, data: st.DataObject) -> None:
    body = data.draw(BODIES[op])
    extra = data.draw(st.sampled_from([b"\0", b"x", b"x\0", bytes(8), bytes(16)]))
    for decoder in PROBES:
        minor, ext = decoder.minor, decoder.setxattr_ext
        sent = as_sent(body, minor, setxattr_ext=ext)
        request = encode_request(op, 1, 1, sent, minor=minor, setxattr_ext=ext) + extra
        with pytest.raises(WireError, match="were received"):
            decode_header(request, len(request))
        if may_stop_early(op, minor):
            decodes_or_refuses(with_length(request), decoder)
        else:
            assert refused(with_length(request), decoder) == EINVAL


@each_op
@settings(few, max_examples=25)
@given(data=st.data())
def test_damaged(op: Op, data: st.DataObject) -> None:
    decoder = data.draw(st.sampled_from(PROBES))
    minor, ext = decoder.minor, decoder.setxattr_ext
    sent = as_sent(data.draw(BODIES[op]), minor, setxattr_ext=ext)
    request = bytearray(encode_request(op, 1, 1, sent, minor=minor, setxattr_ext=ext))
    places_hit = st.lists(
        st.tuples(st.integers(4, len(request) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
    for position, byte in data.draw(places_hit):
        request[position] = byte
    decodes_or_refuses(bytes(request), decoder)


@many
@given(request=st.binary(max_size=200), received=st.integers(-1, 210))
def test_arbitrary_bytes(request: bytes, received: int) -> None:
    try:
        header = decode_header(request, received)
    except WireError as error:
        assert error.errno == EINVAL  # noqa: PT017
    else:
        assert header.length == received


@each_op
@settings(few, max_examples=30)
@given(
    body=st.binary(max_size=120) | st.binary(max_size=15).map(lambda head: head + bytes(70)),
    units=st.integers(0, 6) | st.integers(0, 0xFFFF),
)
def test_arbitrary_body(op: Op, body: bytes, units: int) -> None:
    request = assemble(op, body, units)
    for decoder in PROBES:
        decodes_or_refuses(request, decoder)


@many
@given(block=st.binary(max_size=15).flatmap(lambda head: st.binary(max_size=65).map(head.__add__)))
def test_arbitrary_extensions(block: bytes) -> None:
    block += bytes(-len(block) % 8)
    decodes_or_refuses(assemble(Op.MKDIR, bytes(8) + b"d\0" + block, len(block) // 8), PROBES[2])
    decodes_or_refuses(assemble(Op.MKDIR, bytes(8) + b"d\0" + block), PROBES[1])


@given(
    opcode=(st.integers(0, 64) | U32).filter(lambda opcode: opcode not in set(Op)),
    body=st.binary(max_size=40),
)
def test_unknown_opcode(opcode: int, body: bytes) -> None:
    for decoder in PROBES:
        assert refused(assemble(opcode, body), decoder) == ENOSYS


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 63, 64, 65, 4096, 0x1A00_0000, 0xFFFF_FFFF])
def test_unknown_opcode_is_told(opcode: int) -> None:
    with pytest.raises(WireError, match=rf"opcode {opcode} is not known \(40 bytes\)"):
        decode(assemble(opcode, b""), PROBES[3])


@pytest.mark.parametrize(("units", "fits"), [(0, True), (1, True), (2, False), (0xFFFF, False)])
def test_extensions_longer_than_the_body(units: int, fits: bool) -> None:
    request = assemble(Op.FORGET, bytes(8), units)
    if fits:
        assert decode_header(request, 48).extensions_length == units * 8
    else:
        with pytest.raises(WireError, match="extensions"):
            decode_header(request, 48)


@pytest.mark.parametrize("received", [-1, 0, 39, 41, 48])
def test_received_is_not_the_length(received: int) -> None:
    with pytest.raises(WireError) as caught:
        decode_header(assemble(Op.STATFS, b""), received)
    assert caught.value.errno == EINVAL


# --- names -----------------------------------------------------------------------------------

COMPONENTS: Final = {
    Op.MKNOD: (bytes(16), b""),
    Op.MKDIR: (bytes(8), b""),
    Op.CREATE: (bytes(16), b""),
    Op.SYMLINK: (b"", b"target\0"),
    Op.UNLINK: (b"", b""),
    Op.RMDIR: (b"", b""),
    Op.LINK: (bytes(8), b""),
    Op.RENAME: (bytes(8), b"new\0"),
    Op.RENAME2: (bytes(16), b"new\0"),
}


@pytest.mark.parametrize("name", [b"", b".", b"..", b"/", b"a/b", b"/a", b"a/"])
@pytest.mark.parametrize("op", COMPONENTS)
def test_names_that_no_entry_has(op: Op, name: bytes) -> None:
    before, after = COMPONENTS[op]
    for decoder in PROBES:
        assert refused(assemble(op, before + name + b"\0" + after), decoder) == EINVAL
        body: Any = decode(assemble(op, before + b"...\0" + after), decoder)
        assert body.name == b"..."


@pytest.mark.parametrize("op", [Op.RENAME, Op.RENAME2])
@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b"])
def test_new_names_that_no_entry_has(op: Op, name: bytes) -> None:
    request = assemble(op, COMPONENTS[op][0] + b"old\0" + name + b"\0")
    assert refused(request, PROBES[3]) == EINVAL


def test_lookup_may_ask_for_dots() -> None:
    assert decode(assemble(Op.LOOKUP, b"..\0"), PROBES[3]) == bodies.Lookup(b"..")
    assert decode(assemble(Op.LOOKUP, b".\0"), PROBES[3]) == bodies.Lookup(b".")


@pytest.mark.parametrize("raw", [b"", b"\0", b"a", b"a/b\0", b"a\0b\0", b"a\0\0", b"\0a\0"])
def test_bad_lookups(raw: bytes) -> None:
    for decoder in PROBES:
        assert refused(assemble(Op.LOOKUP, raw), decoder) == EINVAL


@pytest.mark.parametrize("op", [Op.GETXATTR, Op.REMOVEXATTR, Op.SETXATTR])
def test_xattr_names(op: Op) -> None:
    before = {Op.GETXATTR: bytes(8), Op.REMOVEXATTR: b"", Op.SETXATTR: bytes(16)}[op]
    body: Any = decode(assemble(op, before + b"user.a/b\0"), PROBES[3])
    assert body.name == b"user.a/b"
    assert refused(assemble(op, before + b"\0"), PROBES[3]) == EINVAL
    assert refused(assemble(op, before + b"user.a"), PROBES[3]) == EINVAL


def test_symlink_needs_a_target() -> None:
    for decoder in PROBES:
        assert refused(assemble(Op.SYMLINK, b"name\0\0"), decoder) == EINVAL
        assert refused(assemble(Op.SYMLINK, b"name\0"), decoder) == EINVAL


def test_tmpfile_is_called_a_slash() -> None:
    for decoder in PROBES:
        body = decode(assemble(Op.TMPFILE, bytes(16) + b"/\0"), decoder)
        assert body == bodies.Create(0, 0, 0, 0, b"/", NO_EXTENSIONS)


# --- hand-assembled bytes --------------------------------------------------------------------


class Shape(NamedTuple):
    """A fixed part of ``size`` bytes with numbers in their places, and what follows it."""

    size: int
    numbers: str = ""
    tail: bytes = b""
    known: dict[str, Any] = {}  # noqa: RUF012


_NAMED: Final = {"name": b"n"}
_MADE: Final = {"name": b"n", "extensions": NO_EXTENSIONS}
_RENAMED: Final = {"name": b"old", "new_name": b"new"}
_READ: Final = Shape(
    40, "handle@0:8 offset@8:8 size@16:4 read_flags@20:4 lock_owner@24:8 flags@32:4"
)
_OPEN: Final = Shape(8, "flags@0:4 open_flags@4:4")
_RELEASE: Final = Shape(24, "handle@0:8 flags@8:4 release_flags@12:4 lock_owner@16:8")
_FSYNC: Final = Shape(16, "handle@0:8 fsync_flags@8:4")
_CREATE: Final = Shape(16, "flags@0:4 mode@4:4 umask@8:4 open_flags@12:4", b"n\0", _MADE)
_LOCK: Final = Shape(48, "handle@0:8 owner@8:8 start@16:8 end@24:8 type@32:4 pid@36:4 flags@40:4")
_COPY: Final = Shape(
    56,
    "handle_in@0:8 offset_in@8:8 nodeid_out@16:8 handle_out@24:8 offset_out@32:8"
    " length@40:8 flags@48:8",
)
# The offsets are those of the fields in the fuse_*_in structures.
SHAPES: Final = {
    Op.LOOKUP: Shape(0, "", b"n\0", _NAMED),
    Op.FORGET: Shape(8, "count@0:8"),
    Op.GETATTR: Shape(16, "flags@0:4 handle@8:8"),
    Op.SETATTR: Shape(
        88,
        "valid@0:4 handle@8:8 size@16:8 lock_owner@24:8 atime_seconds@32:8 mtime_seconds@40:8"
        " ctime_seconds@48:8 atime_nanoseconds@56:4 mtime_nanoseconds@60:4"
        " ctime_nanoseconds@64:4 mode@68:4 uid@76:4 gid@80:4",
    ),
    Op.READLINK: Shape(0),
    Op.SYMLINK: Shape(0, "", b"n\0../to\0", {**_MADE, "target": b"../to"}),
    Op.MKNOD: Shape(16, "mode@0:4 rdev@4:4 umask@8:4", b"n\0", _MADE),
    Op.MKDIR: Shape(8, "mode@0:4 umask@4:4", b"n\0", _MADE),
    Op.UNLINK: Shape(0, "", b"n\0", _NAMED),
    Op.RMDIR: Shape(0, "", b"n\0", _NAMED),
    Op.RENAME: Shape(8, "new_directory@0:8", b"old\0new\0", {**_RENAMED, "flags": 0}),
    Op.LINK: Shape(8, "old_nodeid@0:8", b"n\0", _NAMED),
    Op.OPEN: _OPEN,
    Op.READ: _READ,
    Op.WRITE: Shape(
        40,
        "handle@0:8 offset@8:8 size@16:4 write_flags@20:4 lock_owner@24:8 flags@32:4",
        b"hello",
        {"size": 5, "data": b"hello"},
    ),
    Op.STATFS: Shape(0),
    Op.RELEASE: _RELEASE,
    Op.FSYNC: _FSYNC,
    Op.GETXATTR: Shape(8, "size@0:4", b"user.n\0", {"name": b"user.n"}),
    Op.LISTXATTR: Shape(8, "size@0:4"),
    Op.REMOVEXATTR: Shape(0, "", b"n\0", _NAMED),
    Op.FLUSH: Shape(24, "handle@0:8 lock_owner@16:8"),
    Op.OPENDIR: _OPEN,
    Op.READDIR: _READ,
    Op.RELEASEDIR: _RELEASE,
    Op.FSYNCDIR: _FSYNC,
    Op.GETLK: _LOCK,
    Op.SETLK: _LOCK,
    Op.SETLKW: _LOCK,
    Op.ACCESS: Shape(8, "mask@0:4"),
    Op.CREATE: _CREATE,
    Op.INTERRUPT: Shape(8, "unique@0:8"),
    Op.BMAP: Shape(16, "block@0:8 block_size@8:4"),
    Op.DESTROY: Shape(0),
    Op.IOCTL: Shape(
        32,
        "handle@0:8 flags@8:4 command@12:4 argument@16:8 input_size@24:4 output_size@28:4",
        b"in",
        {"input_size": 2, "data": b"in"},
    ),
    Op.POLL: Shape(24, "handle@0:8 kernel_handle@8:8 flags@16:4 events@20:4"),
    Op.NOTIFY_REPLY: Shape(40, "offset@8:8 size@16:4", b"page", {"size": 4, "data": b"page"}),
    Op.FALLOCATE: Shape(32, "handle@0:8 offset@8:8 length@16:8 mode@24:4"),
    Op.READDIRPLUS: _READ,
    Op.RENAME2: Shape(16, "new_directory@0:8 flags@8:4", b"old\0new\0", _RENAMED),
    Op.LSEEK: Shape(24, "handle@0:8 offset@8:8 whence@16:4"),
    Op.COPY_FILE_RANGE: _COPY,
    Op.SETUPMAPPING: Shape(
        40, "handle@0:8 file_offset@8:8 length@16:8 flags@24:8 memory_offset@32:8"
    ),
    Op.SYNCFS: Shape(8),
    Op.TMPFILE: _CREATE,
    Op.STATX: Shape(24, "getattr_flags@0:4 handle@8:8 statx_flags@16:4 mask@20:4"),
    Op.COPY_FILE_RANGE_64: _COPY,
}


@each_op
def test_fields_stand_where_the_kernel_puts_them(op: Op) -> None:
    if op in {Op.INIT, Op.SETXATTR, Op.BATCH_FORGET, Op.REMOVEMAPPING}:
        assert op not in SHAPES  # they have tests of their own
        return
    size, numbers, tail, known = SHAPES[op]
    payload = bytearray(b"\xee" * size)  # padding is not looked at
    expected = dict(known)
    for index, place in enumerate(parse_places(numbers)):
        value = expected.setdefault(place.name, marker(index, place.width))
        poke(payload, place, value)
    for decoder in PROBES:
        body = decode(assemble(op, bytes(payload) + tail), decoder)
        assert msgspec.structs.asdict(body) == expected


def test_header_bytes() -> None:
    request = bytes.fromhex(
        "30000000 02000000"  # length 48, FORGET
        "8877665544332211 0102030405060708"  # unique, nodeid
        "e8030000 e9030000 d2040000"  # uid 1000, gid 1001, pid 1234
        "0000 0000"  # no extensions, padding
        "0900000000000000"  # nlookup
    )
    header = decode_header(request, 48)
    assert header == Header(48, 2, 0x1122334455667788, 0x0807060504030201, 1000, 1001, 1234, 0)
    assert PROBES[3].decode(header, request) == bodies.Forget(9)


def test_negative_times_and_offsets() -> None:
    raw = bytearray(88)
    struct.pack_into("<qqq", raw, 32, -1, -(1 << 63), -3)
    setattr_body: Any = decode(assemble(Op.SETATTR, bytes(raw)), PROBES[3])
    assert setattr_body.atime_seconds == -1
    assert setattr_body.mtime_seconds == -(1 << 63)
    assert setattr_body.ctime_seconds == -3
    lseek: Any = decode(assemble(Op.LSEEK, struct.pack("<QqII", 1, -2, 3, 0)), PROBES[3])
    assert lseek == bodies.Lseek(1, -2, 3)


def test_short_init() -> None:
    request = assemble(Op.INIT, bytes.fromhex("07000000 1f000000 00000200 fbffff03"))
    assert len(request) == 56
    for decoder in PROBES:
        assert decode(request, decoder) == bodies.Init(7, 31, 131072, 0x03FF_FFFB)


def test_long_init() -> None:
    numbers = "07000000 2d000000 00000200 fbffff73 c7060000"  # INIT_EXT is bit 30
    request = assemble(Op.INIT, bytes.fromhex(numbers) + bytes(44))
    assert len(request) == 104
    for decoder in PROBES:
        assert decode(request, decoder) == bodies.Init(7, 45, 131072, 0x06C7_73FF_FFFB)


def test_long_init_without_init_ext_has_32_flags() -> None:
    numbers = "07000000 24000000 00000200 fbffff33 ffffffff"
    request = assemble(Op.INIT, bytes.fromhex(numbers) + bytes(44))
    assert decode(request, PROBES[3]) == bodies.Init(7, 36, 131072, 0x33FF_FFFB)


@pytest.mark.parametrize("size", range(0, 100, 4))
def test_init_sizes(size: int) -> None:
    request = assemble(Op.INIT, bytes(size))
    if size == 16 or size >= 64:
        assert decode(request, PROBES[3]) == bodies.Init(0, 0, 0, 0)
    else:
        assert refused(request, PROBES[3]) == EINVAL


def test_lookup_bytes() -> None:
    request = (
        bytes.fromhex(
            "2f000000 01000000 0400000000000000 010000000000000000000000 00000000 01000000 00000000"
        )
        + b"passwd\0"
    )
    header = decode_header(request, 47)
    assert header == Header(47, Op.LOOKUP, 4, 1, 0, 0, 1, 0)
    for decoder in PROBES:
        assert decoder.decode(header, request) == bodies.Lookup(b"passwd")


CREATE_PART: Final = bytes.fromhex("41800000 a4810000 12000000 00000000") + b"new\0"
GROUP_PART: Final = bytes.fromhex("10000000 20000000 01000000 e8030000")
CONTEXT: Final = b"security.selinux\0u:r:t\0"
CONTEXT_PART: Final = (
    # fuse_secctx_header: 8 + 8 + 23 + 1 bytes, one context; fuse_secctx: a value of 6 bytes.
    bytes.fromhex("28000000 01000000 06000000 00000000") + CONTEXT + bytes(1)
)


def created(extensions: Extensions) -> bodies.Create:
    return bodies.Create(0x8041, 0o100644, 0o22, 0, b"new", extensions)


@pytest.mark.parametrize("op", [Op.CREATE, Op.TMPFILE])
def test_create_with_a_group(op: Op) -> None:
    # fuse_ext_header {16, FUSE_EXT_GROUPS}, fuse_supp_groups {1, {1000}}.
    request = assemble(op, CREATE_PART + GROUP_PART, units=2)
    for decoder in PROBES:
        assert decode(request, decoder) == created(Extensions(groups=(1000,)))


def test_create_with_a_security_context() -> None:
    expected = created(Extensions(((b"security.selinux", b"u:r:t\0"),)))
    request = assemble(Op.CREATE, CREATE_PART + CONTEXT_PART, units=5)
    assert decode(request, PROBES[2]) == expected
    # Minors 36 and 37 do not tell that it is there, and the others do not guess.
    request = assemble(Op.CREATE, CREATE_PART + CONTEXT_PART)
    assert decode(request, DECODERS[36, False]) == expected
    assert decode(request, DECODERS[37, True]) == expected
    assert refused(request, DECODERS[35, False]) == EINVAL
    assert refused(request, DECODERS[38, False]) == EINVAL


def test_an_undeclared_list_of_no_contexts() -> None:
    # What SECURITY_CTX adds when no security module answers.
    request = assemble(Op.MKDIR, bytes(8) + b"d\0" + bytes.fromhex("08000000 00000000"))
    assert decode(request, PROBES[1]) == bodies.Mkdir(b"d", 0, 0, Extensions())


def test_unknown_extensions_are_stepped_over() -> None:
    unknown = bytes.fromhex("10000000 21000000 ffffffff ffffffff")
    block = CONTEXT_PART + unknown + GROUP_PART + unknown
    request = assemble(Op.CREATE, CREATE_PART + block, units=len(block) // 8)
    contexts = ((b"security.selinux", b"u:r:t\0"),)
    assert decode(request, PROBES[3]) == created(Extensions(contexts, (1000,)))


@pytest.mark.parametrize(
    "block",
    [
        "07000000 20000000",  # shorter than its own header
        "00000000 00000000",  # no progress
        "18000000 20000000 01000000 e8030000",  # longer than the block
        "08000000 20000000",  # groups without a count
        "10000000 20000000 02000000 e8030000",  # two groups, room for one
        "10000000 20000000 ffffffff e8030000",
        "08000000 01000000",  # a context that is not there
        "10000000 01000000 00000000 00000000",  # a context without a name
        "18000000 01000000 00000000 00000000 0041414141414141",  # an empty name
        "18000000 01000000 00000000 00000000 4141414141414141",  # a name that does not end
        "18000000 01000000 07000000 00000000 4100414141414141",  # a value past the end
        "18000000 02000000 00000000 00000000 4100000000000000",  # two contexts, room for one
    ],
)
def test_garbled_extensions(block: str) -> None:
    raw = bytes.fromhex(block)
    request = assemble(Op.CREATE, CREATE_PART + raw, units=len(raw) // 8)
    with pytest.raises(WireError, match="extension block") as caught:
        decode(request, PROBES[3])
    assert caught.value.errno == EINVAL
    assert refused(assemble(Op.CREATE, CREATE_PART + raw), PROBES[1]) == EINVAL


def test_extensions_encode_like_the_kernels() -> None:
    contexts = ((b"security.selinux", b"u:r:t\0"),)
    assert encode_extensions(Extensions(contexts, (1000,))) == CONTEXT_PART + GROUP_PART
    assert encode_extensions(NO_EXTENSIONS) == b""


def test_statx_bytes() -> None:
    request = assemble(
        Op.STATX,
        bytes.fromhex("01000000 00000000 0df0000000000000 00200000 ff0f0000"),
    )
    # AT_STATX_FORCE_SYNC, STATX_ALL.
    expected = bodies.Statx(uapi.GETATTR_FH, 0xF00D, 0x2000, 0xFFF)
    assert decode(request, PROBES[3]) == expected


def test_short_setxattr() -> None:
    request = assemble(Op.SETXATTR, bytes.fromhex("03000000 01000000") + b"user.k\0v\0w")
    expected = bodies.Setxattr(b"user.k", b"v\0w", 1, 0)
    for minor in MINORS:
        assert decode(request, DECODERS[minor, False]) == expected
        # Read in the long form, its name would begin with the value's bytes.
        assert refused(request, DECODERS[minor, True]) == EINVAL


def test_long_setxattr() -> None:
    request = assemble(
        Op.SETXATTR,
        bytes.fromhex("03000000 02000000 01000000 00000000") + b"user.k\0v\0w",
    )
    expected = bodies.Setxattr(b"user.k", b"v\0w", 2, uapi.SETXATTR_ACL_KILL_SGID)
    for minor in MINORS:
        assert decode(request, DECODERS[minor, True]) == expected
        assert refused(request, DECODERS[minor, False]) == EINVAL


def test_batch_forget_bytes() -> None:
    pairs = struct.pack("<QQQQ", 5, 1, 6, 1 << 40)
    request = assemble(Op.BATCH_FORGET, bytes.fromhex("02000000 eeeeeeee") + pairs)
    assert decode(request, PROBES[3]) == bodies.BatchForget([(5, 1), (6, 1 << 40)])
    wrong = assemble(Op.BATCH_FORGET, bytes.fromhex("ffffffff 00000000") + pairs)
    assert refused(wrong, PROBES[3]) == EINVAL
    assert decode(assemble(Op.BATCH_FORGET, bytes(8)), PROBES[3]) == bodies.BatchForget([])


def test_removemapping_bytes() -> None:
    pair = struct.pack("<QQ", 4096, 8192)  # its count is 4 bytes, without padding
    request = assemble(Op.REMOVEMAPPING, bytes.fromhex("01000000") + pair)
    assert decode(request, PROBES[3]) == bodies.Removemapping([(4096, 8192)])


@pytest.mark.parametrize("op", [Op.WRITE, Op.IOCTL, Op.NOTIFY_REPLY])
@pytest.mark.parametrize("size", [0, 4, 6, 0xFFFF_FFFF])
def test_data_of_another_size(op: Op, size: int) -> None:
    shape = SHAPES[op]
    payload = bytearray(shape.size)
    offset = {Op.WRITE: 16, Op.IOCTL: 24, Op.NOTIFY_REPLY: 16}[op]
    struct.pack_into("<I", payload, offset, size)
    assert refused(assemble(op, bytes(payload) + b"12345"), PROBES[3]) == EINVAL
