"""Backing trees of other kinds: stacked, without file handles, of several mounts, changing."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from support.mounting import detach, inopt, inopt_program, mounted, mounts_below
from support.programs import (
    error_of,
    overlay_in,
    sh,
    start_client,
)
from support.waiting import running, within

from inopt import syscalls

pytestmark = pytest.mark.host

EXCHANGE = 2
WALKS_IN = """
import os, sys
print("ready")
seen = set()
top = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
while not os.path.exists(sys.argv[2]):
    try:
        inner = os.open("dir", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    except OSError:
        continue
    try:
        for name in os.listdir(inner):
            seen.add(name)
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=inner)
            seen.add(os.read(file, 100).decode())
            os.close(file)
        for name in ("name", "made"):
            try:
                os.mkdir(name, dir_fd=inner)
            except OSError:
                pass
            else:
                os.rmdir(name, dir_fd=inner)
    except OSError:
        pass
    finally:
        os.close(inner)
print(sorted(seen))
"""


@pytest.fixture(params=["none", "auto"])
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def use_files(path: Path, count: int) -> None:
    """Write, read, rename and remove *count* files."""
    for number in range(count):
        (path / f"file{number}").write_text(f"file {number}")
    for number in range(count):
        assert (path / f"file{number}").read_text() == f"file {number}"
    (path / "file0").rename(path / "renamed")
    assert (path / "renamed").read_text() == "file 0"
    (path / "renamed").unlink()


def test_backing_that_cannot_bypass(place: Path) -> None:
    source = overlay_in(place, ",index=on,nfs_export=on")
    (place / "lower" / "low").write_text("low")
    with mounted(source, place / "mnt") as mount:
        assert (mount.path / "low").read_text() == "low"
        (mount.path / "low").write_text("copied up")
        use_files(mount.path, 50)
        told = mount.stats()
        assert told["READ"]["daemon"] > 0
        assert told["backing_ids"] == 0
        complaints = mount.complaints()
        assert len(complaints) == (1 if told["tier"] == "rw" else 0), complaints
        assert all("not bypassed" in line for line in complaints)
    assert (source / "low").read_text() == "copied up"
    with mounted(source, place / "deeper", "-o", "max_stack_depth=2") as mount:
        use_files(mount.path, 50)
        told = mount.stats()
        assert (told["READ"]["daemon"] > 0) == (told["tier"] == "none")
        assert mount.complaints() == []


def test_without_file_handles(place: Path) -> None:
    for number in range(500):
        folder = place / "lower" / f"dir{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_text(f"{number}")
    source = overlay_in(place)
    with mounted(source, place / "mnt", "--fd-budget", "128") as mount:
        told = mount.stats()
        assert told["file_handles"] is False
        for _ in range(2):
            for number in range(500):
                path = mount.path / f"dir{number % 10}" / f"file{number}"
                assert path.read_text() == f"{number}"
        use_files(mount.path, 20)
        complaints = mount.complaints()
        assert 1 <= len(complaints) <= 2, complaints
        assert any("no file handles" in line for line in complaints)


def test_without_file_handles_at_the_hard_limit(place: Path) -> None:
    (place / "lower").mkdir()
    for number in range(400):
        (place / "lower" / f"file{number}").write_text(f"{number}")
    source, path = overlay_in(place), place / "mnt"
    path.mkdir()
    arguments = ("mount", "mirror", str(source), str(path), "--log-file", str(place / "log"))
    sh("prlimit", "--nofile=256:256", inopt_program(), *arguments)
    try:
        failed = {error_of((path / f"file{number}").read_bytes) for number in range(400)}
        assert failed <= {0, errno.EMFILE, errno.ENFILE}, f"only the limit shows: {failed}"
        assert (path / "file0").stat().st_size == 1, "the daemon lives"
        done = inopt("stats", str(path), "--json")
        assert done.returncode == 0, done.stderr

        # What is forgotten makes room; the kernel sends what it forgets a little later.
        def can_be_read() -> bool:
            Path("/proc/sys/vm/drop_caches").write_text("2")
            return (path / "file399").read_text() == "399"

        assert within(can_be_read)
    finally:
        done = inopt("umount", str(path))
        if mounts_below(path):
            detach(path)
    assert done.returncode == 0, done.stderr


def test_mounts_below_the_root(place: Path, tier: str) -> None:
    source = place / "src"
    for name in ("tmpfs", "itself", "plain"):
        (source / name).mkdir(parents=True)
    (source / "plain" / "file").write_text("plain")
    sh("mount", "-t", "tmpfs", "tmpfs", str(source / "tmpfs"))
    (source / "tmpfs" / "dir").mkdir()
    (source / "tmpfs" / "dir" / "file").write_text("tmpfs")
    sh("mount", "--bind", str(source), str(source / "itself"))
    with mounted(source, place / "mnt", "--tier", tier) as mount:
        # (On the bare tree find and ls refuse the bind mount as a loop: the numbers are equal.)
        expected = [str(Path(top).relative_to(source)) for top, *_ in os.walk(source)]
        found = sh("find", ".", "-type", "d", "-printf", "./%P\n", cwd=mount.path)
        assert found.stderr == ""
        assert sorted(map(os.path.normpath, found.stdout.split())) == sorted(expected)
        listed = sh("ls", "-R", cwd=mount.path)
        assert listed.stdout.count(":\n") == len(expected)
        numbers = sh("find", ".", "-printf", "%i\n", cwd=mount.path).stdout.split()
        assert len(numbers) == len(set(numbers)), "each file has a number of its own"
        by_mount = sh("find", ".", "-xdev", "-printf", "%D\n", cwd=mount.path).stdout.split()
        assert len(set(by_mount)) == 1
        for old, new in (
            ("plain/file", "tmpfs/file"),
            ("tmpfs/dir/file", "plain/new"),
            ("plain/file", "itself/plain/new"),
        ):
            assert error_of(lambda: (mount.path / old).rename(mount.path / new)) == errno.EXDEV  # noqa: B023
            assert error_of(lambda: os.link(mount.path / old, mount.path / new)) == errno.EXDEV  # noqa: B023
        (mount.path / "tmpfs" / "new").write_text("new")
        assert (source / "tmpfs" / "new").read_text() == "new"
        (mount.path / "itself" / "plain" / "file").write_text("by the other way")
        assert (source / "plain" / "file").read_text() == "by the other way"
        assert error_of((mount.path / "tmpfs").rmdir) == errno.EBUSY
        assert mount.complaints() == []
    detach(source / "itself")


def test_numbers_with_the_top_bit(place: Path, tier: str) -> None:
    """A mount of ours shows them for another device below: over that, they stay as they are."""
    source = place / "src"
    (source / "there").mkdir(parents=True)
    sh("mount", "-t", "tmpfs", "none", str(source / "there"))
    try:
        (source / "there/low").write_text("low")
        with (
            mounted(source, place / "inner", "--tier", "none") as inner,
            mounted(inner.path, place / "mnt", "--tier", tier) as mount,
        ):
            use_files(mount.path / "there", 5)
            for name in ("there", "there/low", "there/file1"):
                number = (inner.path / name).stat().st_ino
                assert number >> 63
                assert (mount.path / name).stat().st_ino == number
            listed = {entry.name: entry.inode() for entry in os.scandir(mount.path / "there")}
            assert listed["low"] == (mount.path / "there/low").stat().st_ino
    finally:
        detach(source / "there")


def test_swapped_for_a_symbolic_link(place: Path, tier: str) -> None:
    source, outside, stop = place / "src", place / "outside", place / "stop"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "inside name").write_text("inside text")
    outside.mkdir()
    (outside / "outside name").write_text("outside text")
    (source / "link").symlink_to(outside)
    with mounted(source, place / "mnt", "--tier", tier) as mount:
        walker = start_client(WALKS_IN, str(mount.path), str(stop))
        directory = os.open(source, os.O_RDONLY)
        try:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                syscalls.renameat2(directory, b"dir", directory, b"link", EXCHANGE)
                time.sleep(0.0002)
            if (source / "dir").is_symlink():
                syscalls.renameat2(directory, b"dir", directory, b"link", EXCHANGE)
            time.sleep(1.3)  # now the walker sees the directory
        finally:
            os.close(directory)
            stop.touch()
        output, _ = walker.communicate(timeout=240)
        assert output.strip() == "['inside name', 'inside text']"
        assert os.listdir(outside) == ["outside name"]
        assert error_of(lambda: os.listdir(mount.path / ".." / ".." / "none")) == errno.ENOENT
        assert running(mount.pid)
