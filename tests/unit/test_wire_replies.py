"""Replies, directory pages and notifications, read back as the kernel reads them."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.wire_strategies import (
    ATTRIBUTES,
    DATA,
    I32,
    I64,
    NAMES,
    U16,
    U32,
    U64,
    VALIDITIES,
    parse_places,
    peek,
    seen_by_stat,
    seen_by_statx,
    unsigned,
)

from inopt.wire import layouts, notifications, replies, uapi
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
from inopt.wire.replies import Attributes, DirectoryPage, Validity

calm = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PLAIN: Final = Attributes(
    inode=0x1111,
    size=0x2222,
    blocks=0x3333,
    atime_seconds=0x4441,
    mtime_seconds=0x4442,
    ctime_seconds=0x4443,
    btime_seconds=0x4444,
    atime_nanoseconds=0x5551,
    mtime_nanoseconds=0x5552,
    ctime_nanoseconds=0x5553,
    btime_nanoseconds=0x5554,
    mode=0o100644,
    links=0x66,
    uid=0x77,
    gid=0x88,
    rdev_major=8,
    rdev_minor=1,
    block_size=4096,
    has_btime=True,
    attributes=0x99,
    attributes_mask=0xAA,
    dev_major=0xBB,
    dev_minor=0xCC,
    mount_id=0xDD,
)
VALID: Final = Validity(0xE1, 0xE2, 0xE3, 0xE4)


def numbers(payload: bytes, text: str) -> dict[str, int]:
    """Read the numbers at ``"name@offset:width …"``."""
    return {place.name: peek(payload, place) for place in parse_places(text)}


def attribute_half(validity: Validity) -> Validity:
    return Validity(0, 0, validity.attribute_seconds, validity.attribute_nanoseconds)


# --- headers ---------------------------------------------------------------------------------


@given(U64, DATA)
def test_message(unique: int, payload: bytes) -> None:
    message = replies.message(unique, payload)
    assert decode_reply(message) == Reply(unique, 0, payload)
    assert replies.header(unique, len(payload)) + payload == message
    assert len(replies.header(unique, len(payload))) == replies.OUT_HEADER_SIZE == 16


@given(U64, st.integers(1, 511))
def test_error(unique: int, errno: int) -> None:
    assert decode_reply(replies.error(unique, errno)) == Reply(unique, -errno, b"")


def test_header_bytes() -> None:
    assert replies.message(9, b"ab") == bytes.fromhex("12000000 00000000 0900000000000000 6162")
    assert replies.error(9, 2) == bytes.fromhex("10000000 feffffff 0900000000000000")
    assert replies.message(1) == replies.header(1, 0)


@pytest.mark.parametrize("message", [replies.message(1, b"ab") + b"c", replies.message(1)[:-1]])
def test_the_kernel_refuses_a_wrong_length(message: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        decode_reply(message)


# --- what names and inodes are ---------------------------------------------------------------


@calm
@given(U64, U64, ATTRIBUTES, VALIDITIES, st.none() | U64, U32)
def test_entry(
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    inode: int | None,
    flags: int,
) -> None:
    payload = replies.entry(nodeid, generation, attributes, validity, inode, flags)
    assert len(payload) == 128
    seen = seen_by_stat(attributes, inode)
    assert decode_entry(payload) == EntryReply(nodeid, generation, validity, seen, flags)


@calm
@given(U64, U64, ATTRIBUTES, VALIDITIES, st.none() | U64, I32, U32)
def test_entry2(
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    inode: int | None,
    backing_id: int,
    flags: int,
) -> None:
    payload = replies.entry2(nodeid, generation, attributes, validity, inode, backing_id, flags)
    assert len(payload) == 312
    seen = seen_by_statx(attributes, inode)
    assert decode_entry2(payload) == Entry2Reply(
        nodeid, generation, validity, seen, backing_id, flags
    )


@given(U64, U32)
def test_negative_entries(seconds: int, nanoseconds: int) -> None:
    plain = replies.negative_entry(seconds, nanoseconds)
    wide = replies.negative_entry2(seconds, nanoseconds)
    assert (len(plain), len(wide)) == (128, 312)
    expected = Validity(seconds, nanoseconds, 0, 0)
    for reply in (decode_entry(plain), decode_entry2(wide)):
        assert (reply.nodeid, reply.generation, reply.flags) == (0, 0, 0)
        assert reply.validity == expected
        values = msgspec.structs.astuple(reply.attributes)
        assert not any(values)


@calm
@given(ATTRIBUTES, VALIDITIES, st.none() | U64, U32)
def test_attr(attributes: Attributes, validity: Validity, inode: int | None, flags: int) -> None:
    payload = replies.attr(attributes, validity, inode, flags)
    assert len(payload) == 104
    seen = seen_by_stat(attributes, inode)
    assert decode_attr(payload) == AttrReply(attribute_half(validity), seen, flags)


@calm
@given(ATTRIBUTES, VALIDITIES, st.none() | U64, U32)
def test_statx(attributes: Attributes, validity: Validity, inode: int | None, flags: int) -> None:
    payload = replies.statx(attributes, validity, flags, inode)
    assert len(payload) == 288
    mask = 0xFFF if attributes.has_btime else 0x7FF  # STATX_BASIC_STATS, STATX_BTIME
    seen = seen_by_statx(attributes, inode)
    assert decode_statx(payload) == StatxReply(attribute_half(validity), seen, flags, mask)


@calm
@given(ATTRIBUTES, VALIDITIES, U64, U32, I32)
def test_create(
    attributes: Attributes, validity: Validity, handle: int, flags: int, backing_id: int
) -> None:
    opened = replies.open(handle, flags, backing_id)
    assert decode_open(opened) == OpenReply(handle, flags, backing_id)
    plain = replies.entry(2, 3, attributes, validity)
    wide = replies.entry2(2, 3, attributes, validity, backing_id=backing_id)
    payload = replies.create(plain, opened)
    assert len(payload) == 144
    assert decode_create(payload) == CreateReply(decode_entry(plain), decode_open(opened))
    payload = replies.create(wide, opened)
    assert len(payload) == 328
    assert decode_create2(payload) == CreateReply(decode_entry2(wide), decode_open(opened))


ATTR_NUMBERS: Final = {
    "ino": 0x1111,
    "size": 0x2222,
    "blocks": 0x3333,
    "atime": 0x4441,
    "mtime": 0x4442,
    "ctime": 0x4443,
    "atimensec": 0x5551,
    "mtimensec": 0x5552,
    "ctimensec": 0x5553,
    "mode": 0o100644,
    "nlink": 0x66,
    "uid": 0x77,
    "gid": 0x88,
    "rdev": 0x801,
    "blksize": 4096,
    "flags": 3,
}
# struct fuse_attr
ATTR_PLACES: Final = (
    "ino@0:8 size@8:8 blocks@16:8 atime@24:8 mtime@32:8 ctime@40:8 atimensec@48:4 mtimensec@52:4"
    " ctimensec@56:4 mode@60:4 nlink@64:4 uid@68:4 gid@72:4 rdev@76:4 blksize@80:4 flags@84:4"
)
STATX_NUMBERS: Final = {
    "mask": 0xFFF,
    "blksize": 4096,
    "attributes": 0x99,
    "nlink": 0x66,
    "uid": 0x77,
    "gid": 0x88,
    "mode": 0o100644,
    "spare": 0,
    "ino": 0x1111,
    "size": 0x2222,
    "blocks": 0x3333,
    "attributes_mask": 0xAA,
    "atime": 0x4441,
    "atimensec": 0x5551,
    "btime": 0x4444,
    "btimensec": 0x5554,
    "ctime": 0x4443,
    "ctimensec": 0x5553,
    "mtime": 0x4442,
    "mtimensec": 0x5552,
    "rdev_major": 8,
    "rdev_minor": 1,
    "dev_major": 0xBB,
    "dev_minor": 0xCC,
}
# struct fuse_statx (7.39)
STATX_PLACES: Final = (
    "mask@0:4 blksize@4:4 attributes@8:8 nlink@16:4 uid@20:4 gid@24:4 mode@28:2 spare@30:2"
    " ino@32:8 size@40:8 blocks@48:8 attributes_mask@56:8 atime@64:8 atimensec@72:4 btime@80:8"
    " btimensec@88:4 ctime@96:8 ctimensec@104:4 mtime@112:8 mtimensec@120:4 rdev_major@128:4"
    " rdev_minor@132:4 dev_major@136:4 dev_minor@140:4"
)
ENTRY_PLACES: Final = (
    "nodeid@0:8 generation@8:8 entry_valid@16:8 attr_valid@24:8 entry_valid_nsec@32:4"
    " attr_valid_nsec@36:4"
)
ENTRY_NUMBERS: Final = {
    "nodeid": 5,
    "generation": 6,
    "entry_valid": 0xE1,
    "attr_valid": 0xE3,
    "entry_valid_nsec": 0xE2,
    "attr_valid_nsec": 0xE4,
}


def test_entry_bytes() -> None:
    payload = replies.entry(5, 6, PLAIN, VALID, flags=3)
    assert numbers(payload, ENTRY_PLACES) == ENTRY_NUMBERS
    assert numbers(payload[40:], ATTR_PLACES) == ATTR_NUMBERS


def test_entry2_bytes() -> None:
    payload = replies.entry2(5, 6, PLAIN, VALID, backing_id=-2, flags=3)
    assert numbers(payload, ENTRY_PLACES) == ENTRY_NUMBERS
    assert payload[40:56] == bytes.fromhex("feffffff 03000000 0000000000000000")
    assert numbers(payload[56:], STATX_PLACES) == STATX_NUMBERS
    assert not any(payload[56 + 144 :])


def test_attr_bytes() -> None:
    payload = replies.attr(PLAIN, VALID, flags=3)
    assert payload[:16] == bytes.fromhex("e300000000000000 e4000000 00000000")
    assert numbers(payload[16:], ATTR_PLACES) == ATTR_NUMBERS


def test_statx_bytes() -> None:
    payload = replies.statx(PLAIN, VALID, flags=3)
    assert payload[:16] == bytes.fromhex("e300000000000000 e4000000 03000000")
    assert not any(payload[16:32])
    assert numbers(payload[32:], STATX_PLACES) == STATX_NUMBERS
    assert not any(payload[32 + 144 :])


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(struct.error):
        replies.attr(msgspec.structs.replace(PLAIN, size=1 << 64), VALID)
    with pytest.raises(struct.error):
        replies.statx(msgspec.structs.replace(PLAIN, mode=1 << 16), VALID)
    with pytest.raises(struct.error):
        replies.open(1, 1 << 32)
    with pytest.raises(struct.error):
        replies.write(1 << 32)


# --- small replies ---------------------------------------------------------------------------


@given(st.tuples(*[U64] * 5, *[U32] * 3))
def test_statfs(values: tuple[int, int, int, int, int, int, int, int]) -> None:
    payload = replies.statfs(*values)
    assert len(payload) == 80
    assert decode_statfs(payload) == StatfsReply(*values)
    assert struct.unpack("<5Q3I28x", payload) == values
    assert not any(payload[52:])


@given(U64, U64, U32, U32)
def test_lock(start: int, end: int, kind: int, pid: int) -> None:
    payload = replies.lock(start, end, kind, pid)
    assert decode_lock(payload) == LockReply(start, end, kind, pid)
    assert payload == struct.pack("<QQII", start, end, kind, pid)


@given(U32, U64)
def test_replies_of_one_number(short: int, long: int) -> None:
    assert decode_number(layouts.WRITE_OUT, replies.write(short)) == short
    assert decode_number(layouts.WRITE_OUT, replies.copy_file_range(short)) == short
    assert decode_number(layouts.GETXATTR_OUT, replies.xattr_size(short)) == short
    assert decode_number(layouts.POLL_OUT, replies.poll(short)) == short
    assert decode_number(layouts.LSEEK_OUT, replies.lseek(long)) == long
    assert decode_number(layouts.BMAP_OUT, replies.bmap(long)) == long
    assert decode_number(layouts.COPY_FILE_RANGE_OUT, replies.copy_file_range_64(long)) == long
    padded = struct.pack("<II", short, 0)
    assert replies.write(short) == replies.copy_file_range(short) == padded
    assert replies.xattr_size(short) == replies.poll(short) == padded
    whole = struct.pack("<Q", long)
    assert replies.lseek(long) == replies.bmap(long) == replies.copy_file_range_64(long) == whole


def test_copy_file_range_has_32_bits() -> None:
    with pytest.raises(struct.error):
        replies.copy_file_range(1 << 32)
    assert (
        decode_number(layouts.COPY_FILE_RANGE_OUT, replies.copy_file_range_64(1 << 32)) == 1 << 32
    )


@given(I32, U32, U32, U32, DATA)
def test_ioctl(result: int, flags: int, in_iovs: int, out_iovs: int, data: bytes) -> None:
    payload = replies.ioctl(result, flags, in_iovs, out_iovs, data)
    assert struct.unpack("<iIII", payload[:16]) == (result, flags, in_iovs, out_iovs)
    assert payload[16:] == data


def test_open_bytes() -> None:
    assert replies.open(0x0102, 0x80, 7) == bytes.fromhex("0201000000000000 80000000 07000000")
    assert replies.open(1, 0)[12:] == bytes(4)


# --- INIT ------------------------------------------------------------------------------------


@given(
    minor=st.integers(23, 1 << 31),
    readahead=U32,
    flags=U64,
    shorts=st.tuples(U16, U16, U16, U16, U16),
    max_write=U32,
    granularity=U32,
    depth=U32,
)
def test_init(
    minor: int,
    readahead: int,
    flags: int,
    shorts: tuple[int, int, int, int, int],
    max_write: int,
    granularity: int,
    depth: int,
) -> None:
    background, congestion, pages, alignment, timeout = shorts
    payload = replies.init(
        major=7,
        minor=minor,
        max_readahead=readahead,
        flags=flags,
        max_background=background,
        congestion_threshold=congestion,
        max_write=max_write,
        time_granularity=granularity,
        max_pages=pages,
        map_alignment=alignment,
        max_stack_depth=depth,
        request_timeout=timeout,
    )
    assert len(payload) == 64
    assert decode_init(payload) == InitReply(
        7,
        minor,
        readahead,
        flags,
        background,
        congestion,
        max_write,
        granularity,
        pages,
        alignment,
        depth,
        timeout,
    )
    low, high = flags & 0xFFFF_FFFF, flags >> 32
    head = struct.pack("<IIIIHH", 7, minor, readahead, low, background, congestion)
    middle = struct.pack("<IIHHII", max_write, granularity, pages, alignment, high, depth)
    assert payload == head + middle + struct.pack("<H", timeout) + bytes(22)


@pytest.mark.parametrize(("minor", "size"), [(0, 8), (4, 8), (5, 24), (22, 24), (23, 64), (45, 64)])
def test_init_of_old_minors_is_shorter(minor: int, size: int) -> None:
    def payload(minor: int) -> bytes:
        return replies.init(
            major=7,
            minor=minor,
            max_readahead=1,
            flags=1 << 40 | 2,
            max_background=3,
            congestion_threshold=4,
            max_write=5,
        )

    whole = bytearray(payload(45))
    struct.pack_into("<I", whole, 4, minor)
    assert payload(minor) == whole[:size]


# --- device numbers and cache times ----------------------------------------------------------


@given(unsigned(12), unsigned(20))
def test_rdev_round_trip(major: int, minor: int) -> None:
    rdev = replies.encode_rdev(major, minor)
    assert rdev >> 32 == 0
    assert replies.decode_rdev(rdev) == (major, minor)


@given(U32)
def test_every_rdev_means_something(rdev: int) -> None:
    assert replies.encode_rdev(*replies.decode_rdev(rdev)) == rdev


@pytest.mark.parametrize(
    ("major", "minor", "rdev"),
    [
        (0, 0, 0),
        (1, 3, 0x103),  # /dev/null
        (8, 17, 0x811),
        (259, 0x12345, 0x1231_0345),  # minor bits 8 to 19 stand above the major
        (0xFFF, 0xFFFFF, 0xFFFF_FFFF),
    ],
)
def test_rdev_numbers(major: int, minor: int, rdev: int) -> None:
    assert replies.encode_rdev(major, minor) == rdev


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, (0, 0)),
        (0.0, (0, 0)),
        (-0.0, (0, 0)),
        (1, (1, 0)),
        (1.5, (1, 500_000_000)),
        (0.25, (0, 250_000_000)),
        (1e-12, (0, 0)),
        (1 - 2**-53, (0, 999_999_999)),
        (3600, (3600, 0)),
        (2**32 - 0.5, (2**32 - 1, 500_000_000)),
        (2**32, (2**32, 0)),
        (1e300, (2**32, 0)),
        (float("inf"), (2**32, 0)),
    ],
)
def test_validity(seconds: float, expected: tuple[int, int]) -> None:
    assert Validity.of(seconds, 0) == Validity(*expected, 0, 0)
    assert Validity.of(0, seconds) == Validity(0, 0, *expected)


@given(st.floats(0, allow_nan=False), st.floats(0, 1e9))
def test_validity_fits_the_wire(entry: float, attributes: float) -> None:
    validity = Validity.of(entry, attributes)
    assert 0 <= validity.entry_nanoseconds < 1_000_000_000
    assert 0 <= validity.entry_seconds <= 1 << 32
    assert decode_entry(replies.entry(1, 0, PLAIN, validity)).validity == validity
    told = validity.attribute_seconds + validity.attribute_nanoseconds / 1e9
    assert told == pytest.approx(attributes, abs=2e-9, rel=1e-15)
    assert hash(validity) == hash(Validity.of(entry, attributes))


@pytest.mark.parametrize("seconds", [-1, -1e-9, float("nan"), float("-inf")])
def test_times_that_are_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="cache time"):
        Validity.of(seconds, 1)
    with pytest.raises(ValueError, match="cache time"):
        Validity.of(1, seconds)


# --- directory pages -------------------------------------------------------------------------

ENTRIES: Final = st.lists(
    st.tuples(U64, U64, U32, NAMES | st.integers(1, 400).map(lambda length: b"n" * length)),
    max_size=12,
)
ENTRY: Final = replies.entry(5, 6, PLAIN, VALID)


@calm
@given(ENTRIES, st.integers(0, 1200), st.integers(0, 1200), st.booleans())
def test_pages(
    entries: list[tuple[int, int, int, bytes]], capacity: int, limit: int, plus: bool
) -> None:
    page = DirectoryPage(capacity)
    # Something that must not shine through.
    while page.add(0xFFFF, 0xFFFF, 0xFF, b"\xff" * 24):
        pass
    page.reset(limit)
    assert len(page) == 0
    assert bytes(page.view()) == b""
    packed = []
    for inode, next_offset, kind, name in entries:
        before = bytes(page.view())
        size = (152 if plus else 24) + -(-len(name) // 8) * 8
        fits = len(before) + size <= min(limit, capacity)
        assert page.fits(len(name), plus) == fits
        if plus:
            added = page.add_plus(ENTRY, inode, next_offset, kind, name)
        else:
            added = page.add(inode, next_offset, kind, name)
        assert added == fits
        if added:
            packed.append(Dirent(inode, next_offset, kind, name))
            assert len(page) == len(before) + size
            assert bytes(page.view())[: len(before)] == before
        else:
            assert bytes(page.view()) == before
    content = bytes(page.view())
    assert len(content) == len(page) <= min(limit, capacity)
    assert len(content) % 8 == 0
    if plus:
        reply = decode_entry(ENTRY)
        assert decode_dirents_plus(content) == [DirentPlus(reply, dirent) for dirent in packed]
    else:
        assert decode_dirents(content) == packed


def test_dirent_bytes() -> None:
    page = DirectoryPage(4096)
    assert page.add(0x0102, 3, 4, b"file.name")
    assert page.add(7, 8, 9, b"12345678")
    assert bytes(page.view()) == (
        bytes.fromhex("0201000000000000 0300000000000000 09000000 04000000")
        + b"file.name"
        + bytes(7)
        + bytes.fromhex("0700000000000000 0800000000000000 08000000 09000000")
        + b"12345678"
    )


def test_direntplus_bytes() -> None:
    page = DirectoryPage(4096)
    assert page.add_plus(ENTRY, 0x0102, 3, 4, b"abc")
    head = bytes.fromhex("0201000000000000 0300000000000000 03000000 04000000")
    assert bytes(page.view()) == ENTRY + head + b"abc" + bytes(5)


def append(page: DirectoryPage, name: bytes, *, plus: bool) -> bool:
    return page.add_plus(ENTRY, 1, 2, 3, name) if plus else page.add(1, 2, 3, name)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 255, 256, 257, 300])
@pytest.mark.parametrize(("plus", "fixed"), [(False, 24), (True, 152)])
def test_a_page_holds_exactly_its_limit(length: int, plus: bool, fixed: int) -> None:
    size = fixed + (length + 7) // 8 * 8
    name = b"n" * length
    page = DirectoryPage(size)
    assert page.fits(length, plus)
    page.reset(size - 1)
    assert not page.fits(length, plus)
    assert not append(page, name, plus=plus)
    assert len(page) == 0
    page.reset(1 << 20)
    assert append(page, name, plus=plus)
    assert len(page) == size
    assert not append(page, name, plus=plus)


def test_a_page_without_room() -> None:
    page = DirectoryPage(0)
    assert not page.fits(1, False)
    assert not page.add(1, 1, 1, b"a")
    page = DirectoryPage(4096)
    page.reset(0)
    assert not page.add(1, 1, 1, b"a")
    assert not page.add_plus(ENTRY, 1, 1, 1, b"a")


@pytest.mark.parametrize("cut", [1, 8, 20, 31])
def test_the_kernel_refuses_half_an_entry(cut: int) -> None:
    page = DirectoryPage(4096)
    page.add(1, 1, 1, b"abc")
    with pytest.raises((ValueError, struct.error)):
        decode_dirents(bytes(page.view())[:-cut])


# --- notifications ---------------------------------------------------------------------------


def notified(message: bytes) -> tuple[int, bytes]:
    """The code and the payload of a notification."""
    reply = decode_reply(message)
    assert reply.unique == 0
    return reply.error, reply.payload


@given(U64)
def test_notify_poll(kernel_handle: int) -> None:
    expected = (1, struct.pack("<Q", kernel_handle))
    assert notified(notifications.poll(kernel_handle)) == expected


@given(U64, I64, I64)
def test_notify_inval_inode(nodeid: int, offset: int, length: int) -> None:
    expected = (2, struct.pack("<Qqq", nodeid, offset, length))
    assert notified(notifications.invalidate_inode(nodeid, offset, length)) == expected


@given(U64, NAMES, U32)
def test_notify_inval_entry(parent: int, name: bytes, flags: int) -> None:
    expected = (3, struct.pack("<QII", parent, len(name), flags) + name + b"\0")
    assert notified(notifications.invalidate_entry(parent, name, flags)) == expected


@given(U64, U64, DATA)
def test_notify_store(nodeid: int, offset: int, data: bytes) -> None:
    expected = (4, struct.pack("<QQII", nodeid, offset, len(data), 0) + data)
    assert notified(notifications.store(nodeid, offset, data)) == expected
    assert notified(notifications.store(nodeid, offset, bytearray(data))) == expected
    assert notified(notifications.store(nodeid, offset, memoryview(data))) == expected


@given(U64, U64, U64, U32)
def test_notify_retrieve(unique: int, nodeid: int, offset: int, size: int) -> None:
    expected = (5, struct.pack("<QQQII", unique, nodeid, offset, size, 0))
    assert notified(notifications.retrieve(unique, nodeid, offset, size)) == expected


@given(U64, U64, NAMES)
def test_notify_delete(parent: int, child: int, name: bytes) -> None:
    expected = (6, struct.pack("<QQII", parent, child, len(name), 0) + name + b"\0")
    assert notified(notifications.delete(parent, child, name)) == expected


def test_bare_notifications() -> None:
    assert notifications.resend() == bytes.fromhex("10000000 07000000 0000000000000000")
    assert notifications.increment_epoch() == bytes.fromhex("10000000 08000000 0000000000000000")


@given(st.lists(U64, max_size=5))
def test_notify_prune(nodeids: list[int]) -> None:
    expected = (9, struct.pack(f"<IIQ{len(nodeids)}Q", len(nodeids), 0, 0, *nodeids))
    assert notified(notifications.prune(nodeids)) == expected


def test_expiring_an_entry() -> None:
    message = notifications.invalidate_entry(1, b"a", uapi.EXPIRE_ONLY)
    assert message == bytes.fromhex(
        "22000000 03000000 0000000000000000 0100000000000000 01000000 01000000 6100"
    )
