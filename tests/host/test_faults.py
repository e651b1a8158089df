"""What fails underneath reaches the caller as itself, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounting import Mount, in_place, inopt, mounted
from support.programs import (
    STRANGER,
    client,
    error_of,
    filesystem_in,
    sh,
)
from support.skipping import skip
from support.waiting import wait_gone

pytestmark = pytest.mark.host

FILLS = """
import os, sys
written = 0
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o666)
try:
    while True:
        written += os.write(file, b"0123456789abcdef" * 256)
except OSError as error:
    print(error.errno, written)
"""


@pytest.fixture(params=["none", "auto"])
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fill(path: Path, user: int = 0) -> tuple[int, int]:
    """Write to *path* until it fails; returns the errno and how many bytes were acknowledged."""
    done = client(FILLS, str(path), user=user)
    assert done.returncode == 0, done.stderr
    number, written = done.stdout.split()
    return int(number), int(written)


def check_filled(path: Path, written: int) -> None:
    data = path.read_bytes()
    assert len(data) == written
    assert data == (b"0123456789abcdef" * (written // 16 + 1))[:written]


def test_no_space(place: Path, tier: str) -> None:
    source = place / "src"
    source.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(source))
    with mounted(source, place / "mnt", "--tier", tier) as mount:
        (mount.path / "first").write_text("first")
        number, written = fill(mount.path / "large")
        assert number == errno.ENOSPC
        assert 1 << 20 < written <= 2 << 20
        assert (mount.path / "first").read_text() == "first"
        with (mount.path / "large").open("r+b") as file:
            assert error_of(lambda: os.posix_fallocate(file.fileno(), 0, 8 << 20)) == errno.ENOSPC
        (mount.path / "first").unlink()
    check_filled(source / "large", written)


def test_read_only_underneath(place: Path, tier: str) -> None:
    with (
        filesystem_in(place) as source,
        mounted(source, place / "mnt", "--tier", tier) as mount,
    ):
        (mount.path / "file").write_text("file")
        sh("mount", "-o", "remount,ro", str(source))
        for action in (
            lambda: (mount.path / "file").write_text("new"),
            lambda: (mount.path / "new").write_text("new"),
            (mount.path / "new").mkdir,
            (mount.path / "file").unlink,
            lambda: (mount.path / "file").chmod(0o600),
            lambda: (mount.path / "file").rename(mount.path / "other"),
        ):
            assert error_of(action) == errno.EROFS
        assert (mount.path / "file").read_text() == "file"
        sh("mount", "-o", "remount,rw", str(source))
        (mount.path / "file").write_text("written again")
        assert (source / "file").read_text() == "written again"


@contextmanager
def with_quota(place: Path) -> Iterator[Path]:
    """A filesystem on which the other user may have 256 KiB in 6 files."""
    with filesystem_in(
        place, "-O", "quota", "-E", "quotatype=usrquota", options="loop,usrquota"
    ) as source:
        sh("setquota", "-u", str(STRANGER), "0", "256", "0", "6", str(source))
        yield source


def why_no_quota() -> str | None:
    """Why quotas cannot be tried here, or None."""
    if shutil.which("setquota") is None:
        return "setquota (Debian: quota) is missing"
    if not os.path.exists("/proc/sys/fs/quota"):
        return "the kernel has no quotas (CONFIG_QUOTA)"
    with in_place("quota") as place:
        try:
            with with_quota(place):
                return None
        except AssertionError as error:
            return f"ext4 takes no quotas here (CONFIG_QFMT_V2): {str(error)[:200]}"


def test_quota(place: Path, tier: str) -> None:
    reason = why_no_quota()
    if reason:
        skip(reason)
    with with_quota(place) as source:
        source.chmod(0o777)
        with mounted(source, place / "mnt", "--tier", tier) as mount:
            number, written = fill(mount.path / "theirs", STRANGER)
            assert number == errno.EDQUOT
            assert 200 << 10 < written <= 256 << 10
            code = "import os, sys\nfor n in range(9): os.mknod(f'{sys.argv[1]}/n{n}')"
            done = client(code, str(mount.path), user=STRANGER)
            assert "Disk quota exceeded" in done.stderr
            assert len(list(source.glob("n*"))) == 5
            assert fill(mount.path / "mine")[0] == errno.ENOSPC, "root has none"
        check_filled(source / "theirs", written)


@pytest.mark.parametrize("synced", [True, False])
def test_killed_daemon_loses_nothing(place: Path, tier: str, synced: bool) -> None:
    (place / "src").mkdir()
    (place / "mnt").mkdir()
    mount = Mount(place / "src", place / "mnt", "--tier", tier)
    with (mount.path / "file").open("wb", buffering=0) as file:
        for number in range(1000):
            file.write(b"%99d\n" % number)
        if synced:
            os.fsync(file.fileno())
        os.kill(mount.pid, signal.SIGKILL)
        assert wait_gone(mount.pid)
    expected = b"".join(b"%99d\n" % number for number in range(1000))
    assert (place / "src" / "file").read_bytes() == expected
    assert inopt("umount", str(mount.path)).returncode == 0
    with mounted(place / "src", place / "mnt", "--tier", tier) as again:
        assert (again.path / "file").read_bytes() == expected
        subprocess.run(["rm", str(again.path / "file")], check=True)
