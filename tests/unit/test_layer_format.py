"""What marks the files of a layer, byte by byte; and how layers are named."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inopt import syscalls
from inopt.exceptions import UsageError
from inopt.layers.format import Format, decode_origin, encode_origin, origin_number
from inopt.layers.options import LayerOptions, Wanted, is_layer_option, split_lowers

HANDLE = struct.pack("<IiII", 8, 1, 4711, 99)  # linux/exportfs.h: FILEID_INO32_GEN
UUID = bytes(range(16))


def test_an_origin_as_the_kernel_writes_it() -> None:
    """Of struct ovl_fb (fs/overlayfs/overlayfs.h): version, magic, length, flags, type, uuid."""
    expected = bytes([0, 0xFB, 29, 0, 1]) + UUID + struct.pack("<II", 4711, 99)
    assert encode_origin(HANDLE, UUID) == expected
    assert decode_origin(expected) == (HANDLE, UUID)
    assert origin_number(expected, UUID) == 4711
    assert origin_number(expected, bytes(16)) == -1, "on another filesystem"
    assert origin_number(None, UUID) == -1


@given(
    st.binary(min_size=0, max_size=100), st.integers(1, 255), st.binary(min_size=16, max_size=16)
)
def test_origins_there_and_back(data: bytes, kind: int, uuid: bytes) -> None:
    handle = struct.pack("<Ii", len(data), kind) + data
    assert decode_origin(encode_origin(handle, uuid)) == (handle, uuid)


@given(st.binary(max_size=60))
def test_whatever_is_written_there(value: bytes) -> None:
    decoded = decode_origin(value)
    if decoded is not None:
        assert encode_origin(*decoded) == bytes([*value[:3], 0]) + value[4:]


@pytest.mark.parametrize("user", [False, True])
@given(name=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30))
def test_marks_are_out_of_reach(user: bool, name: str) -> None:
    marks = Format(user=user)
    for attribute in (name, marks.prefix + name, marks.escaped + name):
        stored = marks.stored(attribute)
        assert marks.shown(stored) == attribute, "each has a name of its own in the layers"
        assert stored not in (marks.opaque, marks.origin, marks.redirect, marks.metacopy)
    assert marks.shown(marks.opaque) is None


def test_lists_of_lowers() -> None:
    assert split_lowers("a:b") == ["a", "b"]
    assert split_lowers(r"a\:b:c\\d") == ["a:b", r"c\d"]
    assert split_lowers(None) == []
    for wrong in (":", "a:", ":a", "a::b"):
        with pytest.raises(UsageError, match="empty name"):
            split_lowers(wrong)


def wanted(*options: str) -> LayerOptions | None:
    asked = Wanted()
    for option in options:
        assert is_layer_option(option)
        asked.take(option)
    return asked.options("/here")


def test_options_of_mount() -> None:
    options = wanted("lowerdir=a:/b", "upperdir=u", "workdir=w", "userxattr", "index=off")
    assert options == LayerOptions(
        lower=("/here/a", "/b"), upper="/here/u", work="/here/w", user_marks=True
    )
    assert wanted("redirect_dir=nofollow", "metacopy=off") is None
    assert wanted("lowerdir=a", "lowerdir+=b") == LayerOptions(lower=("/here/a", "/here/b"))
    assert not is_layer_option("noatime")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["lowerdir=a", "upperdir=u"], "--upper u: needs a work directory: give --work"),
        (["lowerdir=a", "workdir=w"], "--work w: means nothing without --upper: leave it out"),
        (["upperdir=u", "workdir=w"], "--lower: no lower directory is given"),
        (["lowerdir="], "-o lowerdir=: names no directory"),
        (["userxattr"], "-o userxattr: there are no layers"),
        (["metacopy=on"], "-o metacopy=on: inopt does not do this: leave it out"),
        (["redirect_dir=on"], "-o redirect_dir=on: inopt does not do this"),
        (["index=on"], "-o index=on: inopt does not do this"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        wanted(*options)
    assert str(caught.value).startswith(told)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a directory in which `d` is marked as opaque."""
    (tmp_path / "d").mkdir()
    try:
        os.setxattr(tmp_path / "d", Format(user=True).opaque, b"y")
    except OSError:
        pytest.skip("no user.* extended attributes here")
    descriptor = os.open(tmp_path, os.O_PATH)
    yield descriptor
    os.close(descriptor)


def test_reading_marks(directory: int) -> None:
    marks = Format(user=True)
    assert marks.opaqueness(directory, b"d") == b"y"
    assert marks.opaqueness(directory) == b""
    assert marks.read(marks.origin, directory, b"d") is None
    with pytest.raises(FileNotFoundError):
        marks.read(marks.origin, directory, b"none")


@pytest.mark.parametrize("refusal", [0, errno.ENOSYS, errno.EPERM])
def test_asking_for_marks(directory: int, refusal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no getxattrat(2), or a filter of system calls does not know it."""
    asked = 0

    def refuse(*_: object) -> bool:
        nonlocal asked
        asked += 1
        raise OSError(refusal, os.strerror(refusal))

    if refusal:
        monkeypatch.setattr(syscalls, "has_xattr", refuse)
    marks = Format(user=True)
    assert marks.has(marks.opaque, directory, b"d")
    assert not marks.has(marks.origin, directory, b"d")
    with pytest.raises(FileNotFoundError):
        marks.has(marks.origin, directory, b"none")
    assert asked == (1 if refusal else 0), "once only"
