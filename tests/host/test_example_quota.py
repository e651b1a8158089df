"""The example `quota`: limits hold to the byte and to the file, whichever way one comes."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.clients import clients
from support.mounting import in_place, inopt, mounted
from support.waiting import within

pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quota"
LIMIT = 1 << 20
LIMITS = """
["a"]
bytes = "1M"
files = 10
["a/inner"]
bytes = "256K"
["b"]
files = 3
["/few/"]
bytes = 100
"""


@pytest.fixture
def root(host: None) -> Iterator[Path]:
    with in_place("quota") as place, pytest.MonkeyPatch.context() as patch:
        for name in ("a/inner", "b", "few", "free"):
            (place / "back" / name).mkdir(parents=True)
        (place / "limits.toml").write_text(LIMITS)
        patch.setenv("QUOTA_LIMITS", str(place / "limits.toml"))
        with mounted(place / "back", place / "mnt", policy=EXAMPLE / "quota.yaml") as mount:
            yield mount.path
            assert mount.complaints() == []


def refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which it is, the caller tells
        attempt()
    return errno.errorcode[caught.value.errno or 0]


def left(path: Path) -> int:
    """The bytes that statfs(2) says are free, when all that was closed is released."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def fill(path: Path, piece: int = 65536) -> int:
    """Write until it is refused; returns how much was written."""
    written = 0
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                written += file.write(b"x" * piece)
            except OSError as error:
                if error.errno != errno.EDQUOT:
                    raise
                return written


def test_to_the_byte(root: Path) -> None:
    (root / "a" / "first").write_bytes(b"x" * 1000)
    assert fill(root / "a" / "rest") == LIMIT - 1000
    assert (root / "a" / "rest").read_bytes() == b"x" * (LIMIT - 1000)
    assert left(root / "a") == 0
    with (root / "a" / "first").open("r+b", buffering=0) as file:
        file.write(b"y" * 1000)  # what is there may be overwritten
        assert refused(lambda: file.write(b"y")) == "EDQUOT"
    assert refused(lambda: (root / "a" / "first").open("ab", buffering=0).write(b"y")) == "EDQUOT"
    (root / "free" / "any").write_bytes(b"x" * 2 * LIMIT)
    os.truncate(root / "a" / "rest", 0)
    assert left(root / "a") // 4096 == (LIMIT - 1000) // 4096
    assert fill(root / "a" / "again") == LIMIT - 1000


def test_every_way_to_grow(root: Path) -> None:
    path = root / "few" / "file"
    with path.open("w+b", buffering=0) as file:
        number = file.fileno()
        assert refused(lambda: os.truncate(path, 101)) == "EDQUOT"
        assert refused(lambda: os.ftruncate(number, 101)) == "EDQUOT"
        assert refused(lambda: os.posix_fallocate(number, 0, 101)) == "EDQUOT"
        assert refused(lambda: os.pwrite(number, b"x", 100)) == "EDQUOT"
        assert os.pwrite(number, b"x" * 50, 90) == 10
        os.ftruncate(number, 10)
        os.posix_fallocate(number, 0, 20)
        other = root / "few" / "other"
        with other.open("w+b", buffering=0) as more:
            (root / "free" / "long").write_bytes(b"z" * 500)
            with (root / "free" / "long").open("rb") as source:
                copied = os.copy_file_range(source.fileno(), more.fileno(), 500)
            assert copied == 80
            assert refused(lambda: more.write(b"x")) == "EDQUOT"
            with mmap.mmap(number, 20) as pages:
                pages[:] = b"m" * 20
        assert path.read_bytes() == b"m" * 20
        assert other.read_bytes() == b"z" * 80
    subprocess.run(["fallocate", "-p", "-l", "10", path], check=True)
    done = subprocess.run(
        ["fallocate", "-n", "-l", "4096", path], check=False, capture_output=True, text=True
    )
    assert "unsupported" in done.stderr


def test_every_way_to_make_a_file(root: Path) -> None:
    b = root / "b"
    (b / "one").touch()
    (b / "two").mkdir()
    os.symlink("x", b / "three")
    ways: list[Callable[[], object]] = [
        (b / "new").touch,
        (b / "two" / "new").touch,
        (b / "new").mkdir,
        lambda: os.symlink("x", b / "new"),
        lambda: os.mkfifo(b / "new"),
        lambda: os.open(b, os.O_TMPFILE | os.O_RDWR),
    ]
    for way in ways:
        assert refused(way) == "EDQUOT"
        os.unlink(b / "three")
        made = way()
        if isinstance(made, int):
            assert refused((b / "four").touch) == "EDQUOT"
            os.close(made)
        for path in (b / "new", b / "two" / "new"):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif os.path.lexists(path):
                path.unlink()
        assert within(lambda: os.statvfs(b).f_favail == 1)
        os.symlink("x", b / "three")
    os.link(b / "one", b / "two" / "hard")  # no inode more
    os.unlink(b / "one")
    assert os.statvfs(b).f_favail == 0
    os.unlink(b / "two" / "hard")
    assert os.statvfs(b).f_favail == 1


def test_moving_and_linking(root: Path) -> None:
    a, free = root / "a", root / "free"
    (a / "x").write_bytes(b"x" * 600_000)
    (free / "y").write_bytes(b"y" * 600_000)
    for old, new in ((a / "x", free / "x"), (free / "y", a / "y"), (a / "x", a / "inner" / "x")):
        assert refused(partial(os.rename, old, new)) == "EXDEV"
        assert refused(partial(os.link, old, new)) == "EXDEV"
    done = subprocess.run(["mv", free / "y", a / "y"], check=False, capture_output=True, text=True)
    assert "quota exceeded" in done.stderr
    assert (free / "y").stat().st_size == 600_000
    (a / "y").unlink(missing_ok=True)
    (a / "small").write_bytes(b"s" * 100)
    os.rename(a / "x", a / "small")  # what is replaced does not count any more
    assert within(lambda: left(a) // 4096 == (LIMIT - 600_000) // 4096)
    assert refused(lambda: os.rename(a / "inner", a / "other")) == "EBUSY"
    assert refused(lambda: os.rmdir(a / "inner")) == "EBUSY"


def test_limits_within_limits(root: Path) -> None:
    assert fill(root / "a" / "inner" / "x") == 256 << 10
    assert fill(root / "a" / "x") == LIMIT - (256 << 10)
    os.truncate(root / "a" / "inner" / "x", 0)
    assert left(root / "a") == left(root / "a" / "inner") == 256 << 10
    (root / "a" / "y").write_bytes(b"y" * (200 << 10))
    assert left(root / "a" / "inner") == 56 << 10
    assert os.statvfs(root / "free").f_blocks > os.statvfs(root / "a").f_blocks


def test_what_is_open_counts(root: Path) -> None:
    path = root / "a" / "x"
    with path.open("w+b", buffering=0) as file:
        file.write(b"x" * 1000_000)
        path.unlink()
        assert left(root / "a") < 100_000
        assert refused(lambda: os.pwrite(file.fileno(), b"x", LIMIT)) == "EDQUOT"
        file.seek(0)
        assert len(file.read()) == 1000_000
    assert within(lambda: left(root / "a") == LIMIT)


def test_many_writers(root: Path) -> None:
    totals: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: totals.append(fill(root / "a" / name, 7777)))
        for name in "pqrst"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals) == LIMIT


def test_users_are_limited_and_the_scan_counts(host: None, place: Path) -> None:
    back = place / "back"
    (back / "a" / "sub").mkdir(parents=True)
    for name in ("inner", "sub/deep"):
        (back / "a" / name).mkdir()
    for name in ("b", "few"):
        (back / name).mkdir()
    (back / "a").chmod(0o777)
    (back / "a" / "sub" / "deep" / "x").write_bytes(b"x" * 1000_000)
    os.link(back / "a" / "sub" / "deep" / "x", back / "a" / "y")
    (place / "limits.toml").write_text(LIMITS)
    with pytest.MonkeyPatch.context() as patch, clients() as people:
        patch.setenv("QUOTA_LIMITS", str(place / "limits.toml"))
        with mounted(back, place / "mnt", policy=EXAMPLE / "quota.yaml") as mount:
            assert os.statvfs(mount.path / "a").f_favail == 10 - 4
            assert left(mount.path / "a") // 4096 == (LIMIT - 1000_000) // 4096
            user = people.get("user")
            new = os.fsencode(mount.path / "a" / "new")
            user.write_file(new, b"0" * 100_000, 0o600)  # a short write
            user.open("new", new, os.O_WRONLY | os.O_APPEND)
            assert user.write("new", b"0") == "EDQUOT"
            user.close("new")
            status = (back / "a" / "new").stat()
            assert (status.st_size, status.st_uid) == (LIMIT - 1000_000, 1001)
        (place / "limits.toml").write_text('["nowhere"]\nbytes = 1\n')
        done = inopt("mount", str(EXAMPLE / "quota.yaml"), str(back), str(place / "mnt"))
        assert done.returncode != 0
        assert "nowhere" in done.stderr
