"""With ``coherence: notify``, names and attributes are believed for an hour, and yet right.

Changes underneath show within a tenth of a second.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.mounting import Mount, in_place
from support.notifying import (
    TYPICAL,
    links,
    mode,
    mtime,
    notified,
    requests,
    shows,
    size,
)
from support.programs import error_of
from support.waiting import within

pytestmark = pytest.mark.host


@pytest.fixture(scope="module", params=["none-fanotify", "rw-fanotify", "rw-inotify"])
def mount(host: None, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One mount for many tests: each has a directory of its own."""
    with in_place("notify") as place, notified(place, request.param) as made:
        yield made
        assert made.complaints() == []


@pytest.fixture
def below(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """This test's directory in the source."""
    name = re.sub(r"\W", "_", request.node.name)
    (mount.source / name).mkdir()
    assert within((mount.path / name).is_dir)
    return mount.source / name


@pytest.fixture
def above(mount: Mount, below: Path) -> Path:
    """The same directory in the mount."""
    return mount.path / below.name


def test_every_kind_of_change_shows_at_once(below: Path, above: Path) -> None:
    for name in ("mode", "longer", "same", "short", "times", "gone", "old", "target", "type"):
        (below / name).write_text("content")
        os.utime(below / name, (5, 7))
    (below / "dir" / "deep").mkdir(parents=True)
    (below / "dir" / "deep" / "file").write_text("deep")
    (below / "link").symlink_to("before")
    number = (below / "old").stat().st_ino
    steps: list[tuple[Callable[[], object], Callable[[], bool]]] = [
        (lambda: (below / "mode").chmod(0o751), lambda: mode(above / "mode") == 0o751),
        (lambda: (below / "mode").chmod(0o640), lambda: mode(above / "mode") == 0o640),
        (
            lambda: (below / "longer").write_text("longer text"),
            lambda: size(above / "longer") == 11,
        ),
        (lambda: os.truncate(below / "short", 3), lambda: size(above / "short") == 3),
        (lambda: os.utime(below / "times", (9, 9)), lambda: mtime(above / "times") == 9),
        (lambda: os.chown(below / "times", 7, 8), lambda: (above / "times").stat().st_gid == 8),
        ((below / "new").touch, (above / "new").exists),
        ((below / "gone").unlink, lambda: not (above / "gone").exists()),
        ((below / "gone").mkdir, (above / "gone").is_dir),
        ((below / "gone").rmdir, lambda: not (above / "gone").exists()),
        (
            lambda: (below / "old").rename(below / "renamed"),
            lambda: (above / "renamed").exists() and not (above / "old").exists(),
        ),
        (
            lambda: (below / "renamed").rename(below / "target"),
            lambda: (above / "target").stat().st_ino == number,
        ),
        (
            lambda: (below / "dir" / "deep").rename(below / "moved"),
            (above / "moved" / "file").exists,
        ),
        (
            lambda: os.rename(below / "moved", below / "dir" / "deeper"),
            lambda: not (above / "moved").exists() and (above / "dir" / "deeper" / "file").exists(),
        ),
        (lambda: swap(below / "type"), (above / "type" / "inner").is_dir),
        (lambda: relink(below / "link"), lambda: os.readlink(above / "link") == "after"),
        ((below / "dir" / "x").touch, lambda: "x" in os.listdir(above / "dir")),
        ((below / "dir" / "y").mkdir, lambda: (above / "dir").stat().st_nlink == 4),
        (lambda: os.link(below / "mode", below / "hard"), lambda: links(above / "mode") == 2),
        ((below / "hard").unlink, lambda: links(above / "mode") == 1),
    ]
    taken = []
    for act, check in steps:
        remember(above)
        assert not check()
        act()
        taken.append(shows(check))

    def asks(number: int) -> float:
        return shows(lambda: not (above / f"nothing{number}").exists())

    # On a machine that is held up, the measure is how long any question to the daemon takes.
    asked = statistics.median(asks(number) for number in range(20))
    assert statistics.median(taken) < max(TYPICAL, 20 * asked), (taken, asked)


def remember(above: Path) -> None:
    """Let the kernel know every name and attribute, and some names that are not there."""
    for folder, folders, files in os.walk(above):
        for name in (*folders, *files, "new", "old", "renamed", "moved", "gone", "hard"):
            with suppress(OSError):
                os.lstat(os.path.join(folder, name))


def swap(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("after")


def test_what_is_known_is_not_asked_again(mount: Mount, below: Path, above: Path) -> None:
    for number in range(50):
        (below / f"dir{number % 5}").mkdir(exist_ok=True)
        (below / f"dir{number % 5}" / f"file{number}").touch()
    time.sleep(0.3)
    for _ in range(2):  # watching by directory begins with the first look
        remember(above)
    time.sleep(1.5)
    remember(above)
    before = requests(mount)
    for _ in range(3):
        time.sleep(1.2)
        for number in range(50):
            os.stat(above / f"dir{number % 5}" / f"file{number}")
            assert error_of(lambda: os.stat(above / "missing")) in (0, errno.ENOENT)
    assert requests(mount) - before <= 1, "only the name that is not there was new"


def test_content_of_an_open_file(mount: Mount, below: Path, above: Path) -> None:
    (below / "file").write_text("old" * 5000)
    with (above / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 3, 9000) == b"old"
        with (below / "file").open("r+b", buffering=0) as under:
            os.pwrite(under.fileno(), b"new", 9000)
            shows(lambda: os.pread(file.fileno(), 3, 9000) == b"new")
            os.pwrite(under.fileno(), b"more", 15_000)
            shows(lambda: os.fstat(file.fileno()).st_size == 15_004)
            assert os.pread(file.fileno(), 9, 15_000) == b"more"
        os.truncate(below / "file", 6)
        shows(lambda: os.fstat(file.fileno()).st_size == 6)
        assert os.pread(file.fileno(), 100, 0) == b"oldold"
        (below / "file").unlink()
        shows(lambda: not (above / "file").exists())
        shows(lambda: os.fstat(file.fileno()).st_nlink == 0)
        assert os.pread(file.fileno(), 100, 0) == b"oldold"


def test_the_same_size_and_time(below: Path, above: Path) -> None:
    """Nothing but the content differs: attributes alone would not tell."""
    (below / "file").write_bytes(b"old")
    with (above / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 3, 0) == b"old"
        moment = (below / "file").stat()
        with (below / "file").open("r+b", buffering=0) as under:
            under.write(b"new")
            os.utime(under.fileno(), ns=(moment.st_atime_ns, moment.st_mtime_ns))
        shows(lambda: os.pread(file.fileno(), 3, 0) == b"new")


def test_a_mapping_sees_changes(below: Path, above: Path) -> None:
    """By timeouts alone, a mapping of a file that the daemon serves never would."""
    (below / "file").write_bytes(b"old" * 5000)
    with (
        (above / "file").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        (below / "file").open("r+b", buffering=0) as under,
    ):
        assert mapped[9000:9003] == b"old"
        os.pwrite(under.fileno(), b"new", 9000)
        shows(lambda: mapped[9000:9003] == b"new")


def test_stores_into_a_mapping_underneath(below: Path, above: Path) -> None:
    """The kernel tells of them when the mapped file is closed."""
    (below / "file").write_bytes(b"old" * 5000)
    os.utime(below / "file", (5, 7))
    with (above / "file").open("rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 3, 0) == b"old"
        with (below / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:3] = b"new"
            mapped.flush()
        shows(lambda: mtime(above / "file") != 7)
        shows(lambda: os.pread(reader.fileno(), 3, 0) == b"new")


def test_stores_into_a_mapping_through_the_mount(below: Path, above: Path) -> None:
    (below / "file").write_bytes(b"old" * 5000)
    os.utime(below / "file", (5, 7))
    assert mtime(above / "file") == 7
    with (above / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert os.fstat(file.fileno()).st_mtime == 7
        mapped[:3] = b"new"
        mapped.flush()
    shows(lambda: mtime(above / "file") == mtime(below / "file") != 7)


def test_files_without_a_name(below: Path, above: Path) -> None:
    (below / "file").write_text("content")
    with (above / "file").open("rb") as file, (below / "file").open("r+b") as under:
        (below / "file").unlink()
        shows(lambda: os.fstat(file.fileno()).st_nlink == 0)
        os.fchmod(under.fileno(), 0o600)
        shows(lambda: stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600)


def test_links_made_where_nobody_has_looked(mount: Mount, below: Path, above: Path) -> None:
    if mount.stats()["coherence"] == "inotify":
        pytest.skip("what is done in directories that nobody has looked at is not told there")
    (below / "unseen").mkdir()
    (below / "file").write_text("content")
    assert links(above / "file") == 1
    os.link(below / "file", below / "unseen" / "another")
    shows(lambda: links(above / "file") == 2)
    (below / "unseen" / "another").write_text("by its other name")
    shows(lambda: (above / "file").read_text() == "by its other name")
    shows(lambda: size(above / "file") == 17)


def test_set_id_files_are_asked_for_each_time(mount: Mount, below: Path, above: Path) -> None:
    (below / "file").write_text("content")
    (below / "file").chmod(0o4755)
    assert stat.S_IMODE((above / "file").stat().st_mode) == 0o4755
    before = mount.stats()["GETATTR"]["daemon"]
    for _ in range(5):
        (above / "file").stat()
    assert mount.stats()["GETATTR"]["daemon"] >= before + 5


def test_ten_thousand_quick_changes(below: Path, above: Path) -> None:
    for number in range(1000):
        (below / f"file{number}").touch()
    remember(above)
    for turn in range(10):
        for number in range(1000):
            os.chmod(below / f"file{number}", 0o600 + turn)
    shows(lambda: mode(above / "file999") == 0o611)
    assert [mode(above / f"file{number}") for number in range(1000)] == [0o611] * 1000
