"""How a mount ends: asked to, in use, told twice, or killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounting import Mount, inopt, mounted, mounts_below
from support.programs import error_of, events, is_orphan, sh, socket_of, start_client
from support.waiting import running, wait_gone, within

pytestmark = pytest.mark.host

HOLDS_OPEN = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR)
print("ready")
for line in sys.stdin:
    try:
        print(len(os.pread(file, 100, 0)), os.pwrite(file, b"more", 4), os.fsync(file))
    except OSError as error:
        print("errno", error.errno)
"""


@pytest.fixture
def tree(place: Path) -> Path:
    (place / "src").mkdir()
    (place / "src" / "file").write_text("file")
    (place / "mnt").mkdir()
    return place


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has *path* open, and uses it for each line it is sent."""
    process = start_client(HOLDS_OPEN, str(path))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def use(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("use\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def ended(mount: Mount) -> bool:
    """Whether nothing is left of *mount*."""
    return wait_gone(mount.pid) and not mounts_below(mount.path)


def test_umount_says_who_is_in_the_way(tree: Path) -> None:
    with mounted(tree / "src", tree / "mnt") as mount:
        with holding(mount.path / "file") as process:
            done = inopt("umount", str(mount.path))
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1
            for text in ("in use", f"pid {process.pid}", "open file", "mnt/file", "--lazy"):
                assert text in done.stderr
            assert use(process) == "4 4 None"
        sleeper = subprocess.Popen(["sleep", "60"], cwd=mount.path)
        try:
            done = inopt("umount", str(mount.path))
            assert done.returncode == 1
            assert f"sleep (pid {sleeper.pid}: working directory)" in done.stderr
        finally:
            sleeper.kill()
            sleeper.wait()
        assert (mount.path / "file").read_text() == "filemore"


def test_lazy(tree: Path) -> None:
    mount = Mount(tree / "src", tree / "mnt", "--tier", "none")
    with holding(mount.path / "file") as process:
        assert inopt("umount", "--lazy", str(mount.path)).returncode == 0
        assert mounts_below(mount.path) == []
        assert use(process) == "4 4 None"
        assert running(mount.pid)
    assert ended(mount)
    assert (tree / "src" / "file").read_text() == "filemore"


def test_sigterm(tree: Path) -> None:
    mount = Mount(tree / "src", tree / "mnt")
    control = socket_of(mount)
    os.kill(mount.pid, signal.SIGTERM)
    assert ended(mount)
    assert not is_orphan(control.name)
    assert events(mount) == ["mounted", "asked to stop", "unmounted"]


def test_sigterm_while_in_use(tree: Path) -> None:
    mount = Mount(tree / "src", tree / "mnt", "--tier", "none")
    with holding(mount.path / "file") as process:
        os.kill(mount.pid, signal.SIGTERM)
        assert within(lambda: not mounts_below(mount.path))
        assert running(mount.pid)
        assert use(process) == "4 4 None"
    assert ended(mount)
    assert (tree / "src" / "file").read_text() == "filemore"
    assert events(mount)[-1] == "unmounted"


@pytest.mark.parametrize("tier", ["none", "auto"])
def test_second_sigterm_aborts(tree: Path, tier: str) -> None:
    mount = Mount(tree / "src", tree / "mnt", "--tier", tier)
    control = socket_of(mount)
    with holding(mount.path / "file") as process:
        os.kill(mount.pid, signal.SIGTERM)
        assert within(lambda: not mounts_below(mount.path))
        os.kill(mount.pid, signal.SIGTERM)
        assert wait_gone(mount.pid)
        if tier == "none":
            assert use(process).startswith("errno")
    assert mounts_below(mount.path) == []
    assert not is_orphan(control.name)


def test_sigkill(tree: Path) -> None:
    mount = Mount(tree / "src", tree / "mnt")
    control = socket_of(mount)
    os.kill(mount.pid, signal.SIGKILL)
    assert wait_gone(mount.pid)
    # (What the kernel has cached it tells for a second, without asking anybody.)
    unknown = mount.path / "never asked for"
    assert within(lambda: error_of(lambda: os.stat(unknown)) == errno.ENOTCONN)
    assert error_of(lambda: os.statvfs(mount.path)) == errno.ENOTCONN
    assert error_of(lambda: os.listdir(mount.path)) == errno.ENOTCONN
    done = inopt("stats", str(mount.path))
    assert done.returncode == 2
    assert f"inopt umount {mount.path}" in done.stderr
    done = inopt("umount", str(mount.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounts_below(mount.path) == []
    assert not is_orphan(control.name)


def test_mounting_over_a_dead_mount(tree: Path) -> None:
    mount = Mount(tree / "src", tree / "mnt")
    os.kill(mount.pid, signal.SIGKILL)
    assert wait_gone(mount.pid)
    with mounted(tree / "src", tree / "mnt") as again:
        assert mounts_below(tree) == [str(tree / "mnt")], "the dead one is gone"
        assert (again.path / "file").read_text() == "file"


def test_plain_umount(tree: Path) -> None:
    mount = Mount(tree / "src", tree / "mnt")
    control = socket_of(mount)
    sh("umount", str(mount.path))
    assert ended(mount)
    assert not is_orphan(control.name)
    assert events(mount)[-1] == "unmounted"
