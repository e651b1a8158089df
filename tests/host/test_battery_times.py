"""Times: set by utimensat in all its ways, moved by what is done, and the time of birth."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import USER
from support.rawcalls import UTIME_NOW, UTIME_OMIT

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
NOW = (0, UTIME_NOW)
OMIT = (0, UTIME_OMIT)
EARLY = (1_000_000_000, 123_456_789)
LATE = (2_000_000_000, 999_999_999)
_PAIRS = (
    (EARLY, LATE),
    (LATE, EARLY),
    ((0, 0), (0, 0)),
    ((-1, 0), (-1, 1)),
    ((-2_000_000_000, 999_999_999), (-1, 500_000_000)),
    ((4_000_000_000, 7), (15_000_000_000, 8)),  # ext4 holds up to the year 2446
    ((1 << 40, 0), (-(1 << 40), 0)),  # beyond that it is clamped
    (EARLY, (0, 1_000_000_000)),
)
_HALVES = ((EARLY, OMIT), (OMIT, LATE), (OMIT, OMIT), (NOW, OMIT), (OMIT, NOW), (NOW, EARLY))


def exact_times(stage: Stage) -> None:
    root = stage.client("root")
    root.write_file(b"file", b"data")
    root.mkdir(b"dir")
    root.mknod(b"fifo", stat.S_IFIFO | 0o644)
    root.symlink(b"file", b"link")
    for name in (b"file", b"dir", b"fifo", b"link"):
        for access, modification in _PAIRS:
            root.set_times(name, access, modification, 0)
            root.times(name)
    root.set_times(b"link", EARLY, LATE, 1)
    root.times(b"file")
    root.set_times(b"nothing", EARLY, LATE)


def halves(stage: Stage) -> None:
    root = stage.client("root")
    for number, (access, modification) in enumerate(_HALVES):
        name = b"file-%d" % number
        root.write_file(name, b"data")
        root.set_times(name, (11, 12), (13, 14))
        root.set_times(name, access, modification)
        root.recent(name)
        if NOW not in (access, modification):
            root.times(name)


def who_may(stage: Stage) -> None:
    root = stage.client("root")
    for mode in (0o600, 0o644, 0o666):
        for client in stage.clients(*PEOPLE):
            name = f"{mode:o}-{client.name}".encode()
            root.write_file(name, b"data")
            root.chown(name, USER, USER)
            root.chmod(name, mode)
            for access, modification in ((EARLY, LATE), (NOW, NOW), *_HALVES):
                root.set_times(name, (11, 12), (13, 14))
                client.set_times(name, access, modification)
                client.recent(name)


def moved_by_operations(stage: Stage) -> None:
    user = stage.client("user")
    old = ((11, 12), (13, 14))
    user.mkdir(b"dir")

    def aged(path: bytes) -> bytes:
        user.set_times(path, *old)
        return path

    for name in (b"w", b"r", b"t", b"same", b"m", b"x", b"l", b"f"):
        user.write_file(name, b"data", 0o666)
    user.open("f", aged(b"w"), os.O_WRONLY)
    user.recent(b"w")
    user.pwrite("f", b"", 0)
    user.recent(b"w")
    user.pwrite("f", b"new", 0)
    user.recent(b"w")
    user.fstat("f")
    user.truncate(aged(b"t"), 1)
    user.recent(b"t")
    user.truncate(aged(b"same"), 4)
    with stage.known("truncate-nothing"):
        user.recent(b"same")
    user.open("f", aged(b"same"), os.O_RDWR)
    user.ftruncate("f", 4)
    user.recent(b"same")
    user.fallocate("f", 0, 0, 4)
    user.recent(b"same")
    user.fallocate("f", 0, 0, 8192)
    user.recent(b"same")
    user.chmod(aged(b"m"), 0o600)
    user.recent(b"m")
    user.open("f", aged(b"m"), os.O_WRONLY | os.O_TRUNC)
    user.recent(b"m")
    user.setxattr(aged(b"x"), "user.a", b"b")
    user.recent(b"x")
    user.link(aged(b"l"), b"l2")
    user.recent(b"l")
    steps: tuple[tuple[str, *tuple[bytes, ...]], ...] = (
        ("mkdir", b"dir/sub"),
        ("rename", b"f", b"dir/f"),
        ("symlink", b"s", b"dir/s"),
        ("unlink", b"dir/s"),
        ("rmdir", b"dir/sub"),
        ("write_file", b"dir/f", b"again"),
        ("link", b"dir/f", b"dir/g"),
        ("rename", b"dir/f", b"dir/h"),
        ("rename", b"dir/h", b"f"),
    )
    for operation, *paths in steps:
        aged(b"dir")
        user.call(operation, *paths)
        user.recent(b"dir")


def kept_by_an_open_file(stage: Stage) -> None:
    user = stage.client("user")
    user.open("f", b"file", os.O_CREAT | os.O_RDWR)
    user.write("f", b"data")
    user.set_times(b"file", EARLY, LATE)
    user.times(b"file")
    user.close("f")
    user.times(b"file")
    user.open("f", b"file", os.O_RDONLY | os.O_NOATIME)
    user.read("f", 10)
    user.times(b"file")
    user.close("f")
    user.times(b"file")


def births(stage: Stage) -> None:
    root = stage.client("root")
    root.write_file(b"file", b"data")
    root.mkdir(b"dir")
    root.symlink(b"file", b"link")
    root.mknod(b"fifo", stat.S_IFIFO | 0o600)
    for name in (b"file", b"dir", b"link", b"fifo"):
        root.birth(name)
        root.statx(name, "mode", "uid", "gid", "nlink", "blksize", "has_btime")
        root.set_times(name, EARLY, LATE, 0)
        root.birth(name)
    with stage.known("statx-subvolume"):
        root.statx(b"file", "mask")
    with stage.known("statx-attributes"):
        root.statx(b"file", "attributes", "attributes_mask")


@pytest.mark.parametrize(
    "scenario", [exact_times, halves, who_may, moved_by_operations, kept_by_an_open_file, births]
)
def test_times(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
