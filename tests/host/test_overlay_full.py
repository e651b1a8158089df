"""A full disk in the middle of a copy-up: ENOSPC to who asked for it, and nothing half-copied."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from support.layer_snapshots import apart, shown
from support.mounting import Mount
from support.overlays import Layers, left_in_work, mounted_by_kernel, mounted_by_us
from support.programs import error_of, filesystem_in

pytestmark = pytest.mark.host

_ROOM: Final = 16 << 20  # bytes of the upper's filesystem
_BIG: Final = _ROOM * 2
_SMALL: Final = 1 << 16


@pytest.fixture
def layers(place: Path) -> Iterator[Layers]:
    """A lower file that does not fit into the upper's filesystem, and a small one."""
    with filesystem_in(place, size=_ROOM, name="small") as small:
        made = Layers((place / "lower",), small / "upper", small / "work")
        for directory in made.all:
            directory.mkdir()
        made.work.mkdir()
        (place / "lower" / "d").mkdir()
        with (place / "lower" / "d" / "big").open("wb") as big:
            for _ in range(_BIG >> 20):
                big.write(os.urandom(1 << 20))
        (place / "lower" / "d" / "small").write_bytes(b"x" * _SMALL)
        yield made


def _open_for_writing(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY))


CHANGES: Final[dict[str, Callable[[Path], object]]] = {
    "open": _open_for_writing,
    "append": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
    "chmod": lambda path: path.chmod(0o600),
    "chown": lambda path: os.chown(path, 1001, 1001),
    "times": lambda path: os.utime(path, (1, 1)),
    "attribute": lambda path: os.setxattr(path, "user.a", b"1"),
    "rename": lambda path: path.rename(path.parent / "other"),
    "link": lambda path: os.link(path, path.parent / "other"),
    "shorter": lambda path: os.truncate(path, _BIG - 1),
}


def _tried(path: Path) -> dict[str, int]:
    """The errno of each change to the file that does not fit."""
    return {name: error_of(lambda: change(path)) for name, change in CHANGES.items()}  # noqa: B023


def _nothing_left(layers: Layers, mount: Mount) -> None:
    assert left_in_work(layers) == []
    assert mount.complaints() == []


@pytest.mark.parametrize("tier", ["none", "rw"])
def test_what_does_not_fit_stays_as_it_was(layers: Layers, tier: str) -> None:
    place = layers.lowers[0].parent
    with mounted_by_kernel(layers, place / "theirs") as theirs:
        wanted = _tried(theirs / "d" / "big")
        before = shown(theirs)
    with mounted_by_us(layers, place / "ours", "--tier", tier) as mount:
        reader = os.open(mount.path / "d" / "big", os.O_RDONLY)
        try:
            assert _tried(mount.path / "d" / "big") == wanted
            assert os.pread(reader, 100, _BIG - 100) == os.pread(reader, 100, _BIG - 100)
        finally:
            os.close(reader)
        assert apart(before, shown(mount.path), ("before", "after")) == []
        assert not (layers.upper / "d" / "big").exists()
        _nothing_left(layers, mount)
        # What fits can still be changed, and what does not fit can be emptied and removed.
        (mount.path / "d" / "small").chmod(0o600)
        (mount.path / "d" / "big").open("wb").close()
        assert (layers.upper / "d" / "big").stat().st_size == 0
        (mount.path / "d" / "big").unlink()
        _nothing_left(layers, mount)


@pytest.mark.parametrize("tier", ["none", "rw"])
def test_room_that_is_made_is_used(layers: Layers, tier: str) -> None:
    place = layers.lowers[0].parent
    ballast = layers.upper.parent / "ballast"
    content = (layers.lowers[0] / "d" / "small").read_bytes()
    with mounted_by_us(layers, place / "ours", "--tier", tier) as mount:
        path = mount.path / "d" / "small"
        with ballast.open("wb", buffering=0) as file:
            assert error_of(lambda: _fill(file.fileno()))
        assert error_of(lambda: _open_for_writing(path)) == 28
        assert path.read_bytes() == content
        ballast.unlink()
        with path.open("r+b") as file:
            file.write(b"y")
        assert path.read_bytes() == b"y" + content[1:]
        assert (layers.upper / "d" / "small").read_bytes() == b"y" + content[1:]
        _nothing_left(layers, mount)


def _fill(descriptor: int) -> None:
    while True:
        os.write(descriptor, bytes(4096))
