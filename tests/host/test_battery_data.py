"""Contents: mappings, holes, allocation, and copies within the kernel."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest
from support import rawcalls
from support.battery import Battery, Stage

pytestmark = pytest.mark.host

READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE
_PAGE = 4096
_MODES = (
    0,
    rawcalls.FALLOC_KEEP_SIZE,
    rawcalls.FALLOC_PUNCH_HOLE,
    rawcalls.FALLOC_PUNCH_HOLE | rawcalls.FALLOC_KEEP_SIZE,
    rawcalls.FALLOC_ZERO_RANGE,
    rawcalls.FALLOC_ZERO_RANGE | rawcalls.FALLOC_KEEP_SIZE,
    rawcalls.FALLOC_COLLAPSE_RANGE | rawcalls.FALLOC_KEEP_SIZE,
    0x4,
    0x100,
)


def shared_mappings(stage: Stage) -> None:
    user, user2 = stage.clients("user", "user2")
    user.write_file(b"f", b"0123456789" * 1000, 0o666)
    user.open("f", b"f", os.O_RDWR)
    user2.open("f", b"f", os.O_RDWR)
    user.map("m", "f", 10_000, mmap.MAP_SHARED, READ | WRITE)
    user2.map("m", "f", 10_000, mmap.MAP_SHARED, READ | WRITE)
    user.map_read("m", 4090, 20)
    user.map_write("m", 4090, b"mapped by one")
    user2.map_read("m", 4085, 25)
    user2.pread("f", 25, 4085)
    user2.pwrite("f", b"written by two", 100)
    user.map_read("m", 95, 25)
    user.pread("f", 25, 95)
    user2.map_write("m", 9990, b"the last10")
    user.map_flush("m")
    user2.map_flush("m")
    user.read_file(b"f")
    user.close("f")
    user.map_write("m", 0, b"after the close")
    user2.map_read("m", 0, 20)
    user.unlink(b"f")
    user2.map_write("m", 50, b"after the unlink")
    user.map_read("m", 45, 30)
    user2.pread("f", 100, 0)
    user.unmap("m")
    user2.fstat("f")
    user2.link_open("f", b"again")


def private_mappings(stage: Stage) -> None:
    user, user2 = stage.clients("user", "user2")
    user.write_file(b"f", b"x" * 5000, 0o666)
    user.open("r", b"f", os.O_RDONLY)
    user.map("p", "r", 5000, mmap.MAP_PRIVATE, READ | WRITE)
    user.map_write("p", 10, b"mine alone")
    user2.read_file(b"f")
    user2.open("f", b"f", os.O_RDWR)
    user2.pwrite("f", b"yours", 4500)
    user.map_read("p", 4490, 20)
    user.map_read("p", 0, 30)
    user.map("s", "r", 5000, mmap.MAP_SHARED, READ | WRITE)
    user.map("s", "r", 5000, mmap.MAP_SHARED, READ)
    user.map_read("s", 4490, 20)
    user.open("w", b"f", os.O_WRONLY)
    user.map("w", "w", 5000, mmap.MAP_SHARED, READ)
    user.open("o", b"f", os.O_PATH)
    user.map("o", "o", 5000, mmap.MAP_PRIVATE, READ)


def mappings_and_sizes(stage: Stage) -> None:
    user = stage.client("user")
    user.open("f", b"f", os.O_CREAT | os.O_RDWR)
    user.ftruncate("f", 3 * _PAGE)
    user.map("m", "f", 3 * _PAGE, mmap.MAP_SHARED, READ | WRITE)
    user.map_write("m", _PAGE - 5, b"a" * 10)
    user.ftruncate("f", _PAGE + 2)
    user.map_read("m", _PAGE - 5, 20)
    user.ftruncate("f", 3 * _PAGE)
    user.map_read("m", _PAGE - 5, 20)
    user.map_write("m", 2 * _PAGE, b"back")
    user.pread("f", 10, 2 * _PAGE)
    user.fallocate("f", 3, 0, _PAGE)
    user.map_read("m", _PAGE - 5, 20)
    user.pwrite("f", b"w" * _PAGE, 0)
    user.map_read("m", 0, 10)
    user.unmap("m")
    user.fstat("f")


def holes(stage: Stage) -> None:
    for client in stage.clients("root", "user"):
        name = client.name.encode()
        client.open("f", name, os.O_CREAT | os.O_RDWR)
        client.pwrite("f", b"data", 1 << 20)
        client.pwrite("f", b"more", 3 << 20)
        client.ftruncate("f", 5 << 20)
        client.fsync("f")
        for offset in (0, 1, 1 << 20, (1 << 20) + 5000, 3 << 20, 4 << 20, 5 << 20, 1 << 40, -1):
            for whence in (os.SEEK_DATA, os.SEEK_HOLE, os.SEEK_SET, os.SEEK_END, os.SEEK_CUR, 9):
                client.seek("f", offset, whence)
        client.seek("f", 100)
        client.seek("f", -101, os.SEEK_CUR)
        client.seek("f", 0, os.SEEK_CUR)
        client.blocks_used("f")
        client.pread("f", 10, (1 << 20) - 5)
        client.open("w", name, os.O_WRONLY)
        client.seek("w", 0, os.SEEK_DATA)
        client.open("empty", name + b"-e", os.O_CREAT | os.O_RDWR)
        client.seek("empty", 0, os.SEEK_DATA)
        client.seek("empty", 0, os.SEEK_HOLE)


def allocation(stage: Stage) -> None:
    for client in stage.clients("root", "user"):
        for mode in _MODES:
            for offset, length in (
                (0, _PAGE), (100, 5000), (20_000, 100), (8192, 40_960), (0, 0), (-1, 10),
                (0, -1), ((1 << 63) - 10, 100),
            ):  # fmt: skip
                name = f"{client.name}-{mode}-{offset}-{length}".encode()
                client.write_file(name, b"0123456789" * 2000)
                client.open("f", name, os.O_RDWR)
                client.fallocate("f", mode, offset, length)
                client.fstat("f")
                client.blocks_used("f")
                client.seek("f", 0, os.SEEK_HOLE)
                client.pread("f", 6000, 0)
        client.open("r", name, os.O_RDONLY)
        client.fallocate("r", 0, 0, 10)
        client.open("a", name, os.O_WRONLY | os.O_APPEND)
        client.fallocate("a", 0, 0, 50_000)
        client.fstat("a")
        client.mknod(client.name.encode() + b"-p", 0o010600)
        client.open("p", client.name.encode() + b"-p", os.O_RDWR)
        client.fallocate("p", 0, 0, 10)
        client.open("d", b".", os.O_RDONLY)
        client.fallocate("d", 0, 0, 10)


def allocation_of_other_kinds(stage: Stage) -> None:
    user = stage.client("user")
    shifts = (rawcalls.FALLOC_COLLAPSE_RANGE, rawcalls.FALLOC_INSERT_RANGE)
    for mode in (*shifts, rawcalls.FALLOC_UNSHARE_RANGE):  # the latter on xfs and btrfs alone
        user.write_file(b"%d" % mode, b"0123456789" * 2000)
        user.open("f", b"%d" % mode, os.O_RDWR)
        with stage.known("fallocate-shifts"):
            user.fallocate("f", mode, _PAGE, _PAGE)
            user.fallocate("f", mode, 1, 3)
        user.unlink(b"%d" % mode)


def copies(stage: Stage) -> None:
    user, member = stage.clients("user", "member")
    user.write_file(b"from", bytes(range(256)) * 1000)
    for name in (b"to", b"other"):
        user.write_file(name, b"." * 5000)
    user.open("from", b"from", os.O_RDONLY)
    user.open("to", b"to", os.O_RDWR)
    user.copy_range("from", "to", 10_000, 0, 0)
    user.copy_range("from", "to", 1000, 255_500, 20_000)
    user.copy_range("from", "to", 1000, 256_000, 0)
    user.copy_range("from", "to", 1000, 1 << 40, 0)
    user.copy_range("from", "to", 0, 0, 0)
    user.seek("from", 77)
    user.seek("to", 4000)
    user.copy_range("from", "to", 3333, None, None)
    user.seek("from", 0, os.SEEK_CUR)
    user.seek("to", 0, os.SEEK_CUR)
    user.fstat("to")
    user.copy_range("to", "to", 100, 0, 50_000)
    user.copy_range("to", "to", 100, 0, 50)
    user.open("append", b"other", os.O_WRONLY | os.O_APPEND)
    user.copy_range("from", "append", 100, 0, 0)
    user.open("reading", b"other", os.O_RDONLY)
    user.copy_range("from", "reading", 100, 0, 0)
    user.open("writing", b"other", os.O_WRONLY)
    user.copy_range("writing", "to", 100, 0, 0)
    user.open("dir", b".", os.O_RDONLY)
    user.copy_range("dir", "to", 100, 0, 0)
    user.copy_range("from", "dir", 100, 0, 0)
    user.send_file("from", "to", 50_000)
    user.seek("to", 0, os.SEEK_CUR)
    user.send_file("from", "append", 500)
    member.open("to", b"big", os.O_CREAT | os.O_RDWR)
    member.open("from", b"from", os.O_RDONLY)
    for start in range(10):
        member.copy_range("from", "to", 256_000, 0, start * (1 << 20))
    member.fstat("to")


def big_reads_and_writes(stage: Stage) -> None:
    user = stage.client("user")
    block = bytes(range(251)) * 11_953
    user.open("f", b"big", os.O_CREAT | os.O_RDWR)
    with stage.aside():
        assert user.write("f", block) == len(block)
    user.pwrite("f", b"edge", 1 << 20)
    user.pwrite("f", b"edge", (1 << 20) - 2)
    user.seek("f", 0)
    user.pread("f", 10, (1 << 20) - 4)
    user.pread("f", 100, 3_000_200)
    user.pread("f", 100, 3_000_203)
    user.pread("f", 0, 0)
    user.ftruncate("f", 0)


@pytest.mark.parametrize(
    "scenario",
    [
        shared_mappings,
        private_mappings,
        mappings_and_sizes,
        holes,
        allocation,
        allocation_of_other_kinds,
        copies,
        big_reads_and_writes,
    ],
)
def test_data(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
