"""Changes underneath show in the mount within a second, changes through it at once."""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounting import Mount, in_place, mounted
from support.programs import client, error_of, start_client
from support.waiting import within

pytestmark = pytest.mark.host

SOON = 1.2  # seconds: the timeout, and a little
STORM = """
import errno, os, sys, time
path, seconds = sys.argv[1], float(sys.argv[2])
print("ready")
harmless = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ESTALE, errno.ENXIO}
strange, end = {}, time.monotonic() + seconds
while time.monotonic() < end:
    for name in os.listdir(path):
        for action in (os.lstat, os.readlink, os.listdir, lambda it: open(it, "rb").read()):
            try:
                if action is not os.lstat and os.path.basename(name).startswith("fifo"):
                    continue
                action(os.path.join(path, name))
            except OSError as error:
                if error.errno not in harmless:
                    key = f"{errno.errorcode[error.errno]} {name}"
                    strange[key] = strange.get(key, 0) + 1
print(strange)
"""
LISTS = """
import json, os, sys
found = {}
for folder, folders, files in os.walk(sys.argv[1]):
    for name in folders + files:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        content = open(path).read() if status.st_mode & 0o170000 == 0o100000 else ""
        found[os.path.relpath(path, sys.argv[1])] = [
            status.st_mode, status.st_ino, status.st_size, status.st_nlink, content]
print(json.dumps(found))
"""


@pytest.fixture(scope="module", params=["none", "rw"])
def mount(host: None, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One mount for all tests: each has a directory of its own."""
    with (
        in_place("coherence") as place,
        mounted(place / "src", place / "mnt", "--tier", request.param) as made,
    ):
        yield made
        assert made.complaints() == []


@pytest.fixture
def below(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """This test's directory in the source."""
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    (mount.source / name).mkdir()
    return mount.source / name


@pytest.fixture
def above(mount: Mount, below: Path) -> Path:
    """The same directory in the mount."""
    return mount.path / below.name


def tree_of(path: Path) -> dict[str, object]:
    """All of a tree, as a process of its own sees it."""
    done = client(LISTS, str(path))
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_changes_of_files_underneath(below: Path, above: Path) -> None:
    for name in ("longer", "shorter", "same", "mode", "times", "links"):
        (below / name).write_text("old")
        assert (above / name).read_text() == "old"
    (below / "longer").write_text("longer than before")
    (below / "shorter").write_text("")
    (below / "same").write_text("new")
    (below / "mode").chmod(0o751)
    os.utime(below / "times", (5, 7))
    os.link(below / "links", below / "another")
    time.sleep(SOON)
    assert (above / "longer").read_text() == "longer than before"
    assert (above / "longer").stat().st_size == 18
    assert (above / "shorter").stat().st_size == 0
    assert (above / "shorter").read_text() == ""
    assert (above / "same").read_text() == "new"
    assert stat.S_IMODE((above / "mode").stat().st_mode) == 0o751
    assert (above / "times").stat().st_mtime == 7
    assert (above / "links").stat().st_nlink == 2
    assert tree_of(above) == tree_of(below)


def test_same_size_and_time_underneath(below: Path, above: Path) -> None:
    (below / "file").write_text("old")
    os.utime(below / "file", (5, 7))
    assert (above / "file").read_text() == "old"
    (below / "file").write_text("new")
    os.utime(below / "file", (5, 7))
    assert (above / "file").read_text() == "new", "opened again, it is read again"


def test_a_file_kept_open(below: Path, above: Path) -> None:
    (below / "file").write_text("old" * 5000)
    with (above / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 3, 9000) == b"old"
        with (below / "file").open("r+b") as under:
            under.seek(9000)
            under.write(b"new")
        assert within(lambda: os.pread(file.fileno(), 3, 9000) == b"new")
        with (below / "file").open("ab") as under:
            under.write(b"more")
        assert within(lambda: os.pread(file.fileno(), 9, 15000) == b"more")
        os.truncate(below / "file", 6)
        assert within(lambda: os.fstat(file.fileno()).st_size == 6)
        assert os.pread(file.fileno(), 100, 0) == b"oldold"
        (below / "file").unlink()
        assert within(lambda: not (above / "file").exists())
        assert os.pread(file.fileno(), 100, 0) == b"oldold"


def test_a_mapped_file(mount: Mount, below: Path, above: Path) -> None:
    if mount.stats()["tier"] == "none":
        pytest.skip("without bypass a mapping is a cache of its own, on any FUSE mount")
    (below / "file").write_bytes(b"old" * 5000)
    with (above / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[9000:9003] == b"old"
        with (below / "file").open("r+b") as under:
            under.write(b"new")
        assert mapped[:3] == b"new"
        mapped[3:6] = b"mmm"
        assert (below / "file").read_bytes()[:6] == b"newmmm"


def test_changes_of_entries_underneath(below: Path, above: Path) -> None:
    for name in ("removed", "renamed", "file to directory", "exchanged", "replaced"):
        (below / name).write_text(name)
    (below / "directory to file" / "inner").mkdir(parents=True)
    (below / "file to link").write_text("file")
    (below / "moved").mkdir()
    (below / "moved" / "inner").write_text("inner")
    before = tree_of(above)
    assert before == tree_of(below)
    assert not (above / "new").exists()
    (below / "new").write_text("new")
    (below / "removed").unlink()
    (below / "renamed").rename(below / "with another name")
    (below / "file to directory").unlink()
    (below / "file to directory" / "inner").mkdir(parents=True)
    (below / "directory to file" / "inner").rmdir()
    (below / "directory to file").rmdir()
    (below / "directory to file").write_text("file")
    (below / "file to link").unlink()
    (below / "file to link").symlink_to("new")
    (below / "temporary").write_text("by another file")
    (below / "temporary").rename(below / "replaced")
    (below / "target").mkdir()
    (below / "moved").rename(below / "target" / "moved")
    assert (above / "new").read_text() == "new", "there is no negative cache"
    time.sleep(SOON)
    for name in ("removed", "renamed", "moved"):
        assert not (above / name).exists(), name
    assert (above / "replaced").read_text() == "by another file"
    assert (above / "target" / "moved" / "inner").read_text() == "inner"
    assert os.readlink(above / "file to link") == "new"
    assert tree_of(above) == tree_of(below)


def test_names_swapped_underneath(below: Path, above: Path) -> None:
    for name in ("a", "b"):
        (below / name).mkdir()
        (below / name / "who").write_text(name)
    assert [(above / name / "who").read_text() for name in ("a", "b")] == ["a", "b"]
    (below / "a").rename(below / "c")
    (below / "b").rename(below / "a")
    (below / "c").rename(below / "b")
    time.sleep(SOON)
    assert [(above / name / "who").read_text() for name in ("a", "b")] == ["b", "a"]
    assert tree_of(above) == tree_of(below)


def test_a_listing_kept_open(below: Path, above: Path) -> None:
    for number in range(50):
        (below / f"old{number}").touch()
    descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert sorted(os.listdir(descriptor)) == sorted(os.listdir(below))
        (below / "new").touch()
        (below / "old7").unlink()
        (below / "old8").rename(below / "other")
        # listdir of a descriptor is rewinddir and a listing.
        assert within(lambda: sorted(os.listdir(descriptor)) == sorted(os.listdir(below)))
        for name in os.listdir(below):
            (below / name).unlink()
        assert within(lambda: os.listdir(descriptor) == [])
        below.rmdir()
        assert within(lambda: not above.exists())
        assert os.listdir(descriptor) == []
    finally:
        os.close(descriptor)


def test_storm_of_reused_inode_numbers(below: Path, above: Path) -> None:
    seen: set[int] = set()
    reused = 0
    reader = start_client(STORM, str(above), "5")
    end = time.monotonic() + 4
    number = 0
    while time.monotonic() < end or reused <= 100:
        number += 1
        path = below / f"name{number % 7}"
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        match number % 3:
            case 0:
                path.write_text(f"{number}")
            case 1:
                path.mkdir()
            case _:
                path.symlink_to(f"nowhere{number}")
        reused += path.lstat().st_ino in seen
        seen.add(path.lstat().st_ino)
    output, _ = reader.communicate(timeout=240)
    assert output.strip() == "{}"
    time.sleep(SOON)
    assert tree_of(above) == tree_of(below)


def test_changes_through_the_mount(below: Path, above: Path) -> None:
    (below / "file").write_text("file")
    os.link(below / "file", below / "hard")
    assert (above / "hard").read_text() == "file"
    with (above / "file").open("r+b", buffering=0) as file:
        file.write(b"FILE and more")
        for path in (below / "file", below / "hard", above / "hard"):
            assert path.read_text() == "FILE and more"
            assert path.stat().st_size == 13
        file.truncate(2)
        assert (above / "hard").stat().st_size == 2
        assert (below / "hard").read_text() == "FI"
    os.link(above / "hard", above / "third")
    for name in ("file", "hard", "third"):
        assert (above / name).stat().st_nlink == 3
        assert (above / name).stat().st_ino == (below / "file").stat().st_ino
    (above / "file").chmod(0o600)
    os.setxattr(above / "hard", "user.key", b"value")
    os.utime(above / "third", ns=(1_000_000_001, 2_000_000_003))
    for name in ("file", "hard", "third"):
        assert stat.S_IMODE((above / name).stat().st_mode) == 0o600
        assert os.getxattr(above / name, "user.key") == b"value"
        assert (above / name).stat().st_mtime_ns == 2_000_000_003
    (above / "hard").unlink()
    assert (above / "third").stat().st_nlink == 2
    (above / "made" / "deep").mkdir(parents=True)
    (above / "made" / "link").symlink_to("deep")
    (above / "file").rename(above / "made" / "deep" / "file")
    assert tree_of(below) == tree_of(above)
    assert sorted(os.listdir(below)) == ["made", "third"]
    (above / "made" / "link").unlink()
    assert (above / "made" / "deep" / "file").read_text() == "FI"


def test_both_sides_append(below: Path, above: Path) -> None:
    (below / "log").touch()
    with (above / "log").open("ab", buffering=0) as one, (below / "log").open("ab", 0) as other:
        for number in range(100):
            one.write(b"mount %d\n" % number)
            other.write(b"below %d\n" % number)
    assert len((below / "log").read_text().splitlines()) == 200
    assert (above / "log").read_bytes() == (below / "log").read_bytes()


def test_removed_underneath_while_known(below: Path, above: Path) -> None:
    (below / "dir").mkdir()
    (below / "dir" / "file").write_text("file")
    assert (above / "dir" / "file").read_text() == "file"
    subprocess.run(["rm", "-rf", "--one-file-system", str(below / "dir")], check=True)
    assert error_of((above / "dir" / "new").mkdir) in (errno.ENOENT, errno.ESTALE)
    time.sleep(SOON)
    assert not (above / "dir").exists()
    assert os.listdir(above) == []
