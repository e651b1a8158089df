"""The example `versions`: what is kept of files that change, and that they bypass meanwhile."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients import USER, clients
from support.mounting import Mount, in_place, mounted
from support.waiting import within

pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "versions"
KEEP = 3


@pytest.fixture(scope="module")
def mount(host: None) -> Iterator[Mount]:
    with in_place("versions") as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERSIONS_KEEP", str(KEEP))
        with mounted(place / "back", place / "mnt", policy=EXAMPLE / "versions.yaml") as made:
            yield made
            assert made.complaints() == []


def settled(mount: Mount) -> None:
    """RELEASE comes after close(2) has returned."""
    assert within(lambda: mount.stats()["open_files"] == 0)


def versions(mount: Mount, name: str) -> list[bytes]:
    settled(mount)
    folder = mount.path / ".versions" / name
    if not folder.is_dir():
        return []
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


def test_overwriting_truncating_and_appending(mount: Mount) -> None:
    path = mount.path / "a.txt"
    path.write_bytes(b"one")
    assert versions(mount, "a.txt") == []
    path.write_bytes(b"two")  # O_TRUNC
    assert versions(mount, "a.txt") == [b"one"]
    with path.open("ab") as file:
        file.write(b"!")
    assert versions(mount, "a.txt") == [b"one", b"two"]
    os.truncate(path, 1)
    assert versions(mount, "a.txt") == [b"one", b"two", b"two!"]
    with path.open("r+b") as same, mmap.mmap(same.fileno(), 1) as pages:
        pages[0:1] = b"T"
    assert versions(mount, "a.txt") == [b"two", b"two!", b"t"]
    assert path.read_bytes() == b"T"


def test_what_does_not_change_has_no_version(mount: Mount) -> None:
    path = mount.path / "same.txt"
    path.write_bytes(b"same")
    settled(mount)
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        os.close(os.open(path, flags))
    assert versions(mount, "same.txt") == []
    os.chmod(path, 0o600)
    assert versions(mount, "same.txt") == []


def test_writers_beside_each_other_make_one_version(mount: Mount) -> None:
    path = mount.path / "both.txt"
    path.write_bytes(b"before")
    settled(mount)
    with path.open("r+b", buffering=0) as one, path.open("r+b", buffering=0) as other:
        one.write(b"1")
        other.seek(1)
        other.write(b"2")
        one.close()
        time.sleep(0.1)
        other.write(b"3")
    assert versions(mount, "both.txt") == [b"before"]
    assert path.read_bytes() == b"123ore"


def test_replacing_and_removing(mount: Mount) -> None:
    os.makedirs(mount.path / "dir")
    path = mount.path / "dir" / "b.txt"
    path.write_bytes(b"one")
    settled(mount)
    inode = path.stat().st_ino
    temporary = mount.path / "dir" / "b.tmp"
    temporary.write_bytes(b"two")
    os.replace(temporary, path)
    assert versions(mount, "dir/b.txt") == [b"one"]
    with path.open("rb") as held:
        os.unlink(path)
        assert held.read() == b"two"
    assert versions(mount, "dir/b.txt") == [b"one", b"two"]
    kept = min((mount.path / ".versions" / "dir" / "b.txt").iterdir())
    assert kept.stat().st_ino == inode  # a name, not a copy
    assert kept.stat().st_nlink == 1
    with pytest.raises(FileNotFoundError):
        os.unlink(path)
    os.rmdir(mount.path / "dir")


def test_failing_leaves_nothing(mount: Mount) -> None:
    path = mount.path / "stays.txt"
    path.write_bytes(b"x")
    os.makedirs(mount.path / "full" / "sub")
    with pytest.raises(OSError, match="directory"):
        os.rename(mount.path / "full", path)
    program = mount.path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    settled(mount)
    with subprocess.Popen([program, "30"]) as running:
        assert within(lambda: os.path.samefile(f"/proc/{running.pid}/exe", program))
        with pytest.raises(OSError, match="busy"):
            program.open("r+b")
        running.kill()
    assert versions(mount, "stays.txt") == []
    assert versions(mount, "program") == []


def test_nobody_writes_history(mount: Mount) -> None:
    path = mount.path / "c.txt"
    path.write_bytes(b"one")
    path.write_bytes(b"two")
    assert versions(mount, "c.txt") == [b"one"]
    folder = mount.path / ".versions" / "c.txt"
    (kept,) = folder.iterdir()
    for attempt in (
        lambda: kept.open("r+b"),
        lambda: kept.open("ab"),
        lambda: os.truncate(kept, 0),
        lambda: os.unlink(kept),
        lambda: os.chmod(kept, 0o777),
        (folder / "new").touch,
        lambda: os.setxattr(kept, "user.x", b""),
        lambda: os.rmdir(folder),
    ):
        with pytest.raises(OSError, match="Read-only"):
            attempt()
    for attempt in (
        lambda: os.rename(kept, mount.path / "out"),
        lambda: os.rename(path, kept),
        lambda: os.rename(mount.path / ".versions", mount.path / "other"),
        lambda: os.link(kept, mount.path / "out"),
    ):
        with pytest.raises(OSError, match=r"Read-only|Invalid cross-device"):
            attempt()
    subprocess.run(["cp", str(kept), str(path)], check=True)
    assert path.read_bytes() == b"one"


def test_versions_are_as_private_as_files(mount: Mount) -> None:
    with clients() as people:
        user = people.get("user")
        private = mount.path / "private"
        private.mkdir(mode=0o700)
        secret = private / "secret.txt"
        secret.write_bytes(b"one")
        open_ = mount.path / "open"
        open_.mkdir()
        closed = open_ / "closed.txt"
        closed.write_bytes(b"one")
        closed.chmod(0o640)
        os.chown(closed, 0, USER)
        for path in (secret, closed):
            path.write_bytes(b"two")
        settled(mount)
        versions_ = os.fsencode(mount.path / ".versions")
        assert user.listdir(versions_ + b"/private") == "EACCES"
        (kept,) = (mount.path / ".versions" / "open" / "closed.txt").iterdir()
        status = kept.stat()
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 0, USER)


def test_reads_and_writes_bypass(mount: Mount) -> None:
    before = mount.stats()
    path = mount.path / "large"
    path.write_bytes(b"0" * (3 << 20))
    path.write_bytes(b"1" * (3 << 20))
    assert path.read_bytes() == b"1" * (3 << 20)
    assert versions(mount, "large") == [b"0" * (3 << 20)]
    after = mount.stats()
    assert before["READ"] == after["READ"]
    assert before["WRITE"] == after["WRITE"]
    assert after["OPEN"]["handler"] > before["OPEN"]["handler"]
