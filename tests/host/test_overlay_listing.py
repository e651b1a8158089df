"""What listings of layers tell beside names, and what failed renames leave behind."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support import rawcalls
from support.mounting import in_place
from support.overlays import Layers, Mounting, OverlayMount, mounted_by_kernel, mounted_by_us

from inopt.backing.files import DirectoryEntry, read_entries

BUFFER: Final = ctypes.create_string_buffer(1 << 16)
ACLS: Final = {"system.posix_acl_access", "system.posix_acl_default"}
NAMES: Final = ("below-a-whiteout", "below-a-file", "merged", "opaque", "removed", "upper", "file")


@pytest.fixture
def layers(host: None) -> Iterator[Layers]:
    """Directories that go on in lower layers, and some that only seem to."""
    with in_place("listing") as place:
        made = Layers.made(place, 2)
        top, base = (lower / "d" for lower in made.lowers)
        for name in NAMES[:-1]:
            (base / name).mkdir(parents=True)
        top.mkdir()
        os.mknod(top / "below-a-whiteout", stat.S_IFCHR)
        (top / "below-a-file").touch()
        for name in ("merged", "opaque"):
            (top / name).mkdir()
        os.setxattr(top / "opaque", "trusted.overlay.opaque", b"y")
        (top / "file").touch()
        yield made


def mend(tree: Path) -> None:
    """Have something of each in the upper layer."""
    for name in ("below-a-whiteout", "below-a-file", "removed"):
        path = tree / "d" / name
        if name == "below-a-file":
            path.unlink()
        elif name == "removed":
            path.rmdir()
        path.mkdir()
    for name in ("merged", "opaque", "upper"):
        (tree / "d" / name / "new").touch()


@pytest.mark.parametrize("by_name_first", [False, True])
def test_inode_numbers_are_those_of_stat(layers: Layers, by_name_first: bool) -> None:
    """Also where nothing is looked up for the listing, as all has been asked for by name."""
    place = layers.upper.parent
    with mounted_by_kernel(layers, place / "mnt") as tree:
        mend(tree)
    with mounted_by_us(layers, place / "mnt") as mount:
        directory = mount.path / "d"
        if by_name_first:
            for name in NAMES:
                os.lstat(directory / name)
        with os.scandir(directory) as entries:
            listed = {entry.name: entry.inode() for entry in entries}
        assert listed == {name: os.lstat(directory / name).st_ino for name in NAMES}


@pytest.mark.parametrize("maker", [mounted_by_kernel, mounted_by_us])
def test_a_copy_keeps_its_number_where_it_was_moved(layers: Layers, maker: Mounting) -> None:
    place = layers.upper.parent
    original = (layers.lowers[0] / "d/file").stat().st_ino
    with maker(layers, place / "mnt"):
        (place / "mnt/d/upper").rmdir()
        (place / "mnt/d/upper").mkdir()
        os.utime(place / "mnt/d/file")
        (place / "mnt/d/file").rename(place / "mnt/d/upper/moved")
        (place / "mnt/d/upper/own").touch()
    with mounted_by_us(layers, place / "mnt") as mount:
        directory = mount.path / "d/upper"
        assert (directory / "moved").stat().st_ino == original
        with os.scandir(directory) as entries:
            listed = {entry.name: entry.inode() for entry in entries}
        assert listed == {name: (directory / name).stat().st_ino for name in ("moved", "own")}
        (directory / "moved").rename(mount.path / "d/opaque/moved")
        assert (mount.path / "d/opaque/moved").stat().st_ino == original


def test_a_directory_that_is_not_empty_stays_below(layers: Layers) -> None:
    (layers.lowers[0] / "d/merged/file").touch()
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            (mount.path / "d/merged").rmdir()
        assert caught.value.errno == errno.ENOTEMPTY
    assert not (layers.upper / "d").exists()


@pytest.fixture
def mount(layers: Layers) -> Iterator[OverlayMount]:
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        yield mount


def test_a_rename_that_cannot_be_copies_nothing_up(mount: OverlayMount) -> None:
    file, other = mount.path / "d/file", mount.path / "d/merged"
    for old, new in ((file, other), (other, file)):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            rawcalls.renameat2(os.fsencode(old), os.fsencode(new), rawcalls.RENAME_EXCHANGE)
        assert caught.value.errno == errno.EXDEV
    (mount.path / "d/empty").mkdir()
    (mount.path / "d/merged/new").touch()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        (mount.path / "d/empty").rename(other)
    assert caught.value.errno == errno.ENOTEMPTY
    assert not (mount.layers.upper / "d/file").exists()


def test_a_whiteout_inherits_nothing(mount: OverlayMount) -> None:
    """It changes places with the one that the new name had."""
    directory = mount.path / "d"
    (mount.path / "d/merged").rmdir()
    done = subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", str(directory)], check=False)
    assert done.returncode == 0
    (directory / "file").rename(directory / "merged")
    left = mount.layers.upper / "d/file"
    assert stat.S_ISCHR(left.lstat().st_mode)
    assert "system.posix_acl_access" not in os.listxattr(left)


def test_copies_inherit_nothing_from_the_work_directory(layers: Layers) -> None:
    (layers.lowers[0] / "d/runs").touch(0o750)
    for path in (layers.work, layers.upper):
        path.chmod(0o2777)
        os.chown(path, -1, 1)
    command = ["setfacl", "-d", "-m", "u:1:rwx,m:rwx", str(layers.work)]
    assert not subprocess.run(command, check=False).returncode
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        directory = mount.path / "d"
        for name in ("file", "runs", "merged"):
            before = (directory / name).stat()
            (directory / name).chmod(stat.S_IMODE(before.st_mode))  # copies it up
            after = (layers.upper / "d" / name).stat()
            assert (after.st_mode, after.st_gid) == (before.st_mode, before.st_gid)
            assert not {*os.listxattr(layers.upper / "d" / name)} & ACLS
        (directory / "below-a-whiteout").mkdir()
        (directory / "file").unlink()
        (directory / "file").touch()
        for name in ("below-a-whiteout", "file"):
            assert not {*os.listxattr(layers.upper / "d" / name)} & ACLS
    assert not stat.S_IMODE((layers.work / "work").stat().st_mode)


def test_the_end_of_a_file_that_was_opened_before(mount: OverlayMount) -> None:
    path = mount.path / "d/file"
    reader = os.open(path, os.O_RDONLY | os.O_APPEND)
    try:
        with path.open("ab") as writer:
            writer.write(b"more")
        assert os.fstat(reader).st_size == os.lseek(reader, 0, os.SEEK_END) == 4
    finally:
        os.close(reader)


def test_a_reader_whose_file_was_linked_and_removed(mount: OverlayMount) -> None:
    path = mount.path / "d/file"
    reader = os.open(path, os.O_RDONLY)
    try:
        os.link(path, mount.path / "d/another")
        os.close(os.open(path, os.O_RDWR))
        path.unlink()
        (mount.path / "d/another").unlink()
        assert os.fstat(reader).st_nlink == 0
    finally:
        os.close(reader)


def test_the_parent_of_a_directory_that_was_listed_before(mount: OverlayMount) -> None:
    moved, place = mount.path / "d/moved", mount.path / "d/opaque"
    moved.mkdir()
    assert number_above(moved) == (mount.path / "d").stat().st_ino
    moved.rename(place / "moved")
    assert number_above(place / "moved") == place.stat().st_ino
    (place / "moved").rename(moved)
    assert number_above(moved) == (mount.path / "d").stat().st_ino


def number_above(directory: Path) -> int:
    """The inode number that a listing tells of `..`; the kernel may have kept it."""
    for _ in range(2):
        listed = listing(directory)
    return next(number for number, _, _, name in listed if name == b"..")


def test_a_copy_that_the_kernel_has_not_met(layers: Layers) -> None:
    """It is another inode, as the lower file is being read; its number is that of before."""
    directory = layers.lowers[0] / "d"
    os.link(directory / "file", directory / "other")
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        tree = mount.path / "d"
        (tree / "below-a-file").unlink()  # so there is an upper part
        with (tree / "file").open("rb"):
            for name in ("merged", "opaque", "removed", "file", "other"):
                os.lstat(tree / name)  # so the listing tells names alone
            os.utime(tree / "file", (5, 5))
            listed = {name: number for number, _, _, name in listing(tree)}
            assert listed[b"file"] == (tree / "file").stat().st_ino


def listing(directory: Path) -> list[DirectoryEntry]:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return all_of(opened)
    finally:
        os.close(opened)


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_copy_up_beside_a_listing_that_was_begun(layers: Layers, is_merged: bool) -> None:
    """The kernel has kept the part that was read, and is not told of the copy."""
    big = layers.lowers[1] / "big"
    big.mkdir()
    names = {f"name-{number:04}" for number in range(1000)}
    for name in names:
        (big / name).touch()
    if is_merged:
        (layers.lowers[0] / "big").mkdir()
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        opened = [os.open(mount.path / "big", os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]
        try:
            read_entries(opened[0], ctypes.create_string_buffer(1 << 12))
            for name in ("name-0003", "name-0500", "name-0999"):
                (mount.path / "big" / name).chmod(0o600)
            for _ in range(3):
                listed = [name for _, _, _, name in all_of(opened[1])]
                assert sorted(listed) == sorted(map(os.fsencode, (".", "..", *names)))
                assert {*os.listdir(mount.path / "big")} == names
        finally:
            for descriptor in opened:
                os.close(descriptor)


def all_of(opened: int) -> list[DirectoryEntry]:
    os.lseek(opened, 0, os.SEEK_SET)
    listed: list[DirectoryEntry] = []
    while more := read_entries(opened, BUFFER):
        listed += more
    return listed


def test_a_removed_directory_keeps_its_mode(mount: OverlayMount) -> None:
    path = mount.path / "d/merged"
    path.chmod(0o755)
    opened = os.open(path, os.O_RDONLY)
    try:
        path.rmdir()
        assert stat.S_IMODE(os.fstat(opened).st_mode) == 0o755
    finally:
        os.close(opened)
