"""open(2) with all its flags; appending; direct and synchronous files; limits; running programs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
from support.battery import Battery, Stage
from support.clients import USER, Client

pytestmark = pytest.mark.host

PEOPLE = ("root", "user", "member")
_ACCESS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3)
_EXTRAS = (os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND)
_OTHERS = (
    os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_NOATIME, os.O_DIRECT, os.O_SYNC, os.O_DSYNC,
    os.O_NONBLOCK, os.O_CLOEXEC, os.O_NOCTTY, os.O_ASYNC,
)  # fmt: skip


def _use(client: Client) -> None:
    client.fstat("f")
    client.get_status_flags("f")
    client.pread("f", 4, 0)
    client.pwrite("f", b"W", 2)
    client.write("f", b"V")
    client.ftruncate("f", 3)
    client.end_of("f")


def flag_matrix(stage: Stage) -> None:
    root, user = stage.clients("root", "user")
    numbers = itertools.count()
    for access in _ACCESS:
        for extras in itertools.product((False, True), repeat=len(_EXTRAS)):
            flags = access
            for extra, wanted in zip(_EXTRAS, extras, strict=True):
                flags |= extra if wanted else 0
            if access == 3 and flags & os.O_TRUNC:
                continue  # has a scenario of its own
            for kind in ("absent", "file", "readonly", "theirs", "dir", "link", "dangling"):
                name = b"%d" % next(numbers)
                _prepare(root, user, kind, name)
                user.open("f", name, flags, 0o640)
                if isinstance(user.fstat("f"), dict) and kind != "dir":
                    _use(user)
                user.discard("f")
                root.lstat(name)


def _prepare(root: Client, user: Client, kind: str, name: bytes) -> None:
    if kind == "file":
        user.write_file(name, b"012345")
    elif kind == "readonly":
        user.write_file(name, b"012345", 0o444)
    elif kind == "theirs":
        root.write_file(name, b"012345", 0o602)
    elif kind == "dir":
        user.mkdir(name)
    elif kind == "link":
        user.write_file(name + b"-target", b"012345")
        user.symlink(name + b"-target", name)
    elif kind == "dangling":
        user.symlink(name + b"-target", name)


def more_flags(stage: Stage) -> None:
    root = stage.client("root")
    root.write_file(b"roots", b"012345", 0o666)
    for client in stage.clients(*PEOPLE):
        own = client.name.encode()
        client.write_file(own, b"012345")
        client.mkdir(own + b"-d")
        client.symlink(own, own + b"-l")
        for extra in _OTHERS:
            for access in _ACCESS:
                for name in (own, own + b"-d", own + b"-l", b"roots", b"nothing", own + b"/"):
                    client.open("f", name, access | extra, 0o600)
                    client.fstat("f")
                    client.get_status_flags("f")
                    client.discard("f")


def odd_access_mode_truncates(stage: Stage) -> None:
    user = stage.client("user")
    for mode in (0o600, 0o400, 0o200):
        for flags in (3, 3 | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC, 3 | os.O_APPEND):
            name = b"%o-%o" % (mode, flags)
            user.write_file(name, b"data", mode)
            user.open("f", name, flags)
            user.fstat("f")
            user.read("f", 4)
            user.write("f", b"x")
            user.ftruncate("f", 1)
            user.discard("f")


def create_without_permission_to_write(stage: Stage) -> None:
    for client in stage.clients("root", "user"):
        for mode in (0o000, 0o400, 0o200):
            name = f"{client.name}-{mode:o}".encode()
            client.open("f", name, os.O_CREAT | os.O_RDWR, mode)
            client.write("f", b"first open may")
            client.pread("f", 5, 0)
            client.open("g", name, os.O_RDWR)
            client.open("g", name, os.O_CREAT | os.O_WRONLY, 0o600)
            client.open("g", name, os.O_RDONLY)
            client.fstat("f")


def appending(stage: Stage) -> None:
    user, user2 = stage.clients("user", "user2")
    user.open("f", b"log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    user2.open("f", b"log", os.O_WRONLY | os.O_APPEND)
    user.start("append_many", "f", b"a" * 100, 300)
    user2.call("append_many", "f", b"b" * 100, 300)
    user.finish()
    with stage.aside():  # whose line comes when is chance
        data = user.pread("f", 100_000, 0)
    lines = {data[start : start + 100] for start in range(0, len(data), 100)}
    stage.note("whole lines", sorted(lines))
    stage.note("length", len(data))
    user.truncate(b"log", 0)
    user.write("f", b"one")
    user2.write("f", b"two")
    user.seek("f", 0)
    user.write("f", b"three")
    user.seek("f", 0, os.SEEK_CUR)
    user.pwrite("f", b"four", 0)
    user.read_file(b"log")
    user.open("p", b"log", os.O_WRONLY)
    user.pwritev_flags("p", b"appended", 0, os.RWF_APPEND)
    user.pwrite("p", b"X", 1)
    user.pwritev_flags("p", b"five", 3, os.RWF_DSYNC)
    user.read_file(b"log")


def appending_turned_on_later(stage: Stage) -> None:
    user = stage.client("user")
    user.write_file(b"f", b"0123456789")
    user.open("f", b"f", os.O_RDWR)
    user.set_status_flags("f", os.O_APPEND)
    user.get_status_flags("f")
    user.write("f", b"end")
    user.read_file(b"f")


def appending_turned_off_later(stage: Stage) -> None:
    user = stage.client("user")
    user.write_file(b"f", b"0123456789")
    user.open("f", b"f", os.O_RDWR | os.O_APPEND)
    user.set_status_flags("f", 0)
    user.get_status_flags("f")
    with stage.known("status-flags-later"):
        user.pwrite("f", b"start", 0)
        user.read_file(b"f")
        user.fstat("f")
    user.discard("f")
    user.write_file(b"f", b"alike again")


def direct(stage: Stage) -> None:
    user, user2 = stage.clients("user", "user2")
    user.open("d", b"f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    user.pwrite_aligned("d", b"D" * 8192, 0)
    user.pwrite_aligned("d", b"E" * 4096, 4096)
    user.pread_aligned("d", 8192, 0)
    user.pread_aligned("d", 8192, 4096)
    user.pread_aligned("d", 4096, 16384)
    user2.open("b", b"f", os.O_RDWR)
    user2.pwrite("b", b"buffered", 100)
    user.pread_aligned("d", 4096, 0)
    user.pwrite_aligned("d", b"F" * 4096, 0)
    user2.pread("b", 200, 50)
    user.open("ds", b"f", os.O_RDWR | os.O_DIRECT | os.O_SYNC | os.O_APPEND)
    user.pwrite_aligned("ds", b"G" * 4096, 0)
    user2.fstat("b")
    user.fsync("d")
    user.fdatasync("d")


def size_limit(stage: Stage) -> None:
    for client in stage.clients("root", "user"):
        name = client.name.encode()
        client.open("f", name, os.O_CREAT | os.O_RDWR)
        client.open("a", name, os.O_RDWR | os.O_APPEND)
        client.file_size_limit(10_000)
        client.pwrite("f", b"x" * 20_000, 0)
        client.pwrite("f", b"x" * 20_000, 5000)
        client.pwrite("f", b"x", 10_000)
        client.write("a", b"y")
        client.ftruncate("f", 20_000)
        client.truncate(name, 10_001)
        client.truncate(name, 10_000)
        client.fallocate("f", 0, 0, 20_000)
        client.write_file(name + b"-other", b"z" * 30_000)
        client.fstat("f")
        client.file_size_limit(None)
        client.pwrite("f", b"x", 30_000)
        client.pwrite("f", b"x", (1 << 63) - 1)
        client.ftruncate("f", -1)
        client.ftruncate("f", 1 << 62)
        client.pread("f", 10, 1 << 62)


def programs(stage: Stage) -> None:
    root = stage.client("root")
    root.install(b"id", "/usr/bin/id", 0o755)
    root.install(b"sleep", "/usr/bin/sleep", 0o755)
    root.write_file(b"script", b"#!/bin/sh\necho $0 $1\n", 0o755)
    root.write_file(b"plain", b"no program", 0o755)
    root.write_file(b"noexec", b"#!/bin/sh\n", 0o644)
    for mode in (0o755, 0o4755, 0o2755, 0o6755, 0o700, 0o711):
        root.chown(b"id", USER, 2000)
        root.chmod(b"id", mode)
        for client in stage.clients(*PEOPLE):
            client.execute(b"./id", b"-u")
            client.execute(b"./id", b"-g")
    for client in stage.clients(*PEOPLE):
        for name in (b"./script", b"./plain", b"./noexec", b"./nothing"):
            client.execute(name, b"argument")
    for client in stage.clients("root", "member"):
        root.chmod(b"sleep", 0o777)
        client.spawn("s", b"./sleep", b"30")
        client.open("w", b"sleep", os.O_WRONLY)
        client.open("w", b"sleep", os.O_RDWR | os.O_APPEND)
        client.open("r", b"sleep", os.O_RDONLY)
        client.truncate(b"sleep", 0)
        client.end_child("s")
        client.open("w", b"sleep", os.O_WRONLY)
        client.execute(b"./sleep", b"0")
        client.discard("w")
        client.execute(b"./sleep", b"0")


@pytest.mark.parametrize(
    "scenario",
    [
        flag_matrix,
        more_flags,
        odd_access_mode_truncates,
        create_without_permission_to_write,
        appending,
        appending_turned_on_later,
        appending_turned_off_later,
        direct,
        size_limit,
        programs,
    ],
)
def test_open(mirror: Battery, scenario: Callable[[Stage], None]) -> None:
    mirror.run(scenario)
