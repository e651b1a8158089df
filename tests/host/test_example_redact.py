"""The example `redact`: what is masked for whom, however it is read."""

from __future__ import annotations

import errno
import importlib.util
import mmap
import os
import pickle
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.clients import MEMBER, TEAM, USER
from support.mounting import Mount, in_place, mounted

pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "redact"
PAGE = 4096


@pytest.fixture(scope="module")
def mount(host: None) -> Iterator[Mount]:
    with in_place("redact") as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDACT_GROUP", str(TEAM))
        (place / "back").mkdir()
        (place / "back").chmod(0o777)
        with mounted(place / "back", place / "mnt", policy=EXAMPLE / "redact.yaml") as made:
            yield made
            assert made.complaints() == []


@pytest.fixture(scope="module")
def masked() -> Callable[[bytes], bytes]:
    spec = importlib.util.spec_from_file_location("redact_example", EXAMPLE / "redact.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[bytes], bytes] = module.masked
    return function


def run_as(uid: int, groups: list[int], function: Callable[[], Any]) -> Any:
    """What *function* returns in a process of another user; an `OSError` comes as its errno."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            result = function()
        except OSError as error:
            result = errno.errorcode[error.errno or 0]
        except BaseException as error:
            result = repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data)  # noqa: S301 - from our own child


def as_member(function: Callable[[], Any]) -> Any:
    return run_as(MEMBER, [TEAM], function)


def as_other(function: Callable[[], Any]) -> Any:
    return run_as(USER, [], function)


def mapped(path: Path, kind: int = mmap.MAP_PRIVATE) -> bytes:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, kind, mmap.PROT_READ) as pages:
        return pages[:]


def direct(path: Path, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        memory = mmap.mmap(-1, size)
        pieces = []
        offset = 0
        while count := os.preadv(descriptor, [memory], offset):
            pieces.append(memory[:count])
            offset += count
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def text(length: int) -> bytes:
    """Text with cards and addresses across every boundary that reads may have."""
    chance = random.Random(1)
    pieces: list[bytes] = []
    size = 0
    while size < length:
        word = chance.choice(
            [
                b"word ",
                b"4111 1111 1111 1111",
                b"a.b+c@mail.example.org",
                b"5500-0000-0000-0004\n",
                b"x" * chance.randrange(1, 90),
                b"7" * chance.randrange(1, 60),
                b"@",
                b"\xff\x00 ",
            ]
        )
        pieces.append(word)
        size += len(word)
    return b"".join(pieces)[:length]


def make(mount: Mount, name: str, content: bytes) -> Path:
    path = mount.source / name
    path.write_bytes(content)
    path.chmod(0o666)
    return mount.path / name


def test_masks(masked: Callable[[bytes], bytes]) -> None:
    assert masked(b"card 4111 1111 1111 1111, ok") == b"card " + b"*" * 19 + b", ok"
    assert masked(b"4111111111111111") == b"*" * 16
    assert masked(b"123456789012") == b"123456789012"
    assert masked(b"<a@b.org>") == b"<" + b"*" * 7 + b">"
    assert masked(b"a @ b") == b"a @ b"
    assert masked(b"7" * 100) == b"*" * 100


def test_every_way_of_reading(mount: Mount, masked: Callable[[bytes], bytes]) -> None:
    content = text(700_000)
    path = make(mount, "all.txt", content)
    hidden = masked(content)
    assert hidden != content
    assert as_other(path.read_bytes) == hidden
    assert as_other(lambda: mapped(path)) == hidden
    assert as_other(lambda: mapped(path, mmap.MAP_SHARED)) == hidden
    assert as_member(path.read_bytes) == content
    for size in (512, PAGE, 65536):
        assert as_other(partial(direct, path, size)) == hidden
        assert as_member(partial(direct, path, size)) == content
    # A member's mapping is made of the pages that all share.
    assert as_member(lambda: mapped(path)) == hidden
    assert as_member(lambda: mapped(path, mmap.MAP_SHARED)) == "ENODEV"


def test_members_that_read_first_leave_nothing_behind(mount: Mount) -> None:
    path = make(mount, "first.txt", b"x 4111 1111 1111 1111 x\n" * 1000)
    with path.open("rb", buffering=0) as held:  # root is no member
        for _ in range(3):
            assert b"4111" in as_member(path.read_bytes)
            assert b"1111" not in as_other(lambda: mapped(path))
            assert b"1111" not in as_other(path.read_bytes)
        assert b"1111" not in held.read()


def test_small_reads_at_any_offset(mount: Mount, masked: Callable[[bytes], bytes]) -> None:
    content = text(20_000)
    path = make(mount, "small.txt", content)
    hidden = masked(content)

    def pieces() -> bool:
        with path.open("rb", buffering=0) as file:
            return all(
                os.pread(file.fileno(), 7, offset) == hidden[offset : offset + 7]
                for offset in range(0, len(content), 3)
            )

    assert as_other(pieces) is True


def test_others_do_not_write(mount: Mount) -> None:
    path = make(mount, "held.txt", b"a@b.org\n")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC):
        assert as_other(partial(os.open, path, flags)) == "EACCES"
    assert as_other(lambda: os.truncate(path, 0)) == "EACCES"
    new = mount.path / "new.txt"
    assert as_other(lambda: os.open(new, os.O_CREAT | os.O_RDONLY)) == "EACCES"
    assert as_other(lambda: os.rename(path, mount.path / "held.bin")) == "EXDEV"
    assert as_other(lambda: os.link(path, mount.path / "held.bin")) == "EXDEV"
    assert (mount.source / "held.txt").read_bytes() == b"a@b.org\n"
    plain = make(mount, "free.bin", b"a@b.org\n")
    assert as_other(plain.read_bytes) == b"a@b.org\n"
    assert as_other(lambda: plain.write_bytes(b"mine")) == 4


def test_copies_are_masked(mount: Mount) -> None:
    path = make(mount, "source.txt", b"a@b.org " * 10_000)
    target = make(mount, "target.bin", b"")

    def copy() -> bytes:
        with path.open("rb") as source, target.open("wb") as file:
            try:
                os.copy_file_range(source.fileno(), file.fileno(), 1 << 20)
            except OSError:
                file.write(source.read())
        return target.read_bytes()

    assert as_other(copy) == b"******* " * 10_000


def test_what_members_write_shows_masked_at_once(mount: Mount) -> None:
    # The first half of a number ends a page; the second half comes later.
    half = b" " * (PAGE - 9) + b"4111 1111"
    path = make(mount, "grows.txt", half)
    with path.open("rb", buffering=0) as held, mmap.mmap(
        held.fileno(), 0, access=mmap.ACCESS_READ
    ) as pages:  # fmt: skip
        assert pages[-9:] == b"4111 1111"

        def append() -> int:
            with path.open("ab") as file:
                return file.write(b" 1111 1111\n")

        assert as_member(append) == 11
        assert pages[-9:] == b"*" * 9
        assert as_other(path.read_bytes)[PAGE - 9 :] == b"*" * 19 + b"\n"
        assert as_member(lambda: os.truncate(path, PAGE)) is None
        assert pages[-9:] == b"4111 1111"
    assert as_member(lambda: (mount.path / "made.txt").write_bytes(b"a@b.org")) == 7
    assert as_member((mount.path / "made.txt").read_bytes) == b"a@b.org"
    (mount.source / "made.txt").chmod(0o644)
    assert as_other((mount.path / "made.txt").read_bytes) == b"*******"
