"""What ``-o`` does, and what root's mounts allow without it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from support.mounting import Mount, mounted
from support.programs import STRANGER, client, error_of, sh, user_options

pytestmark = pytest.mark.host

TRIES = """
import os, sys
for action in (os.listdir, lambda it: open(it).read(), lambda it: open(it, "w").close()):
    try:
        print(repr(action(sys.argv[1])))
    except OSError as error:
        print(error.errno)
"""


@pytest.fixture(params=["none", "auto"])
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(place: Path) -> Path:
    made = place / "src"
    made.mkdir()
    (made / "file").write_text("file")
    (made / "program").write_text("#!/bin/sh\necho ran\n")
    (made / "program").chmod(0o755)
    shutil.copy("/usr/bin/id", made / "id")
    (made / "id").chmod(0o4755)
    os.mknod(made / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (made / "null").chmod(0o666)
    return made


def options_of(mount: Mount) -> set[str]:
    return set(sh("findmnt", "-n", "-o", "OPTIONS", str(mount.path)).stdout.strip().split(","))


def tries(path: Path) -> list[str]:
    """What another user gets by listing, reading and writing *path*."""
    return client(TRIES, str(path), user=STRANGER).stdout.split("\n")[:3]


def effective_user(program: Path) -> str:
    return sh(
        "setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups",
        str(program), "-u",
    ).stdout.strip()  # fmt: skip


def test_by_default(source: Path, tier: str) -> None:
    with mounted(source, source.parent / "mnt", "--tier", tier) as mount:
        assert {"rw", "allow_other", "default_permissions"} <= options_of(mount)
        assert not {"nosuid", "nodev", "noexec", "ro"} & options_of(mount)
        assert sh(str(mount.path / "program")).stdout == "ran\n"
        (mount.path / "null").write_text("gone")
        assert (mount.path / "null").read_bytes() == b""
        assert effective_user(mount.path / "id") == "0"
        assert mount.complaints() == []


def test_other_users(source: Path, tier: str) -> None:
    with mounted(source, source.parent / "mnt", "--tier", tier) as mount:
        (source / "secret").write_text("secret")
        (source / "secret").chmod(0o600)
        (source / "closed").mkdir(0o700)
        (source / "theirs").write_text("theirs")
        os.chown(source / "theirs", STRANGER, STRANGER)
        denied, not_directory = str(errno.EACCES), str(errno.ENOTDIR)
        assert "'file'" in tries(mount.path)[0]
        assert tries(mount.path / "file") == [not_directory, "'file'", denied]
        assert tries(mount.path / "secret") == [not_directory, denied, denied]
        assert tries(mount.path / "theirs") == [not_directory, "'theirs'", "None"]
        assert tries(mount.path / "closed")[0] == denied
        assert tries(mount.path / "closed" / "inner")[1] == denied
        assert (source / "theirs").read_text() == ""
        assert user_options(STRANGER)["user"] == STRANGER


def test_read_only(source: Path, tier: str) -> None:
    with mounted(source, source.parent / "mnt", "-o", "ro", "--tier", tier) as mount:
        assert "ro" in options_of(mount)
        for action in (
            lambda: (mount.path / "file").write_text("new"),
            lambda: (mount.path / "new").write_text("new"),
            (mount.path / "new").mkdir,
            (mount.path / "file").unlink,
            lambda: (mount.path / "file").chmod(0o600),
            lambda: os.setxattr(mount.path / "file", "user.key", b""),
            lambda: os.utime(mount.path / "file"),
        ):
            assert error_of(action) == errno.EROFS
        assert (mount.path / "file").read_text() == "file"
        (source / "file").write_text("underneath all goes on")


def test_nosuid_and_nodev(source: Path) -> None:
    with mounted(source, source.parent / "mnt", "-o", "nosuid", "-o", "nodev,rw") as mount:
        assert {"nosuid", "nodev"} <= options_of(mount)
        assert error_of(lambda: (mount.path / "null").write_text("x")) == errno.EACCES
        assert effective_user(mount.path / "id") == str(STRANGER)
        assert sh(str(mount.path / "program")).stdout == "ran\n"
        assert (mount.path / "id").stat().st_mode & stat.S_ISUID


def test_noexec(source: Path, tier: str) -> None:
    with mounted(source, source.parent / "mnt", "-o", "noexec", "--tier", tier) as mount:
        assert "noexec" in options_of(mount)
        assert error_of(lambda: sh(str(mount.path / "program"))) == errno.EACCES


@pytest.mark.parametrize("options", ["", "noatime"])
def test_access_times(source: Path, tier: str, options: str) -> None:
    # relatime: an access time older than the modification time is due.
    os.utime(source / "file", (1000, 2000))
    os.utime(source, (1000, 2000))
    with mounted(source, source.parent / "mnt", "-o", options, "--tier", tier) as mount:
        assert ("noatime" in options_of(mount)) == (options == "noatime")
        assert (mount.path / "file").read_text() == "file"
        os.listdir(mount.path)
        for path in (source / "file", source):
            assert (path.stat().st_atime == 1000) == (options == "noatime"), path
        (mount.path / "file").write_text("new")
        assert (mount.path / "file").read_text() == "new"
        assert (source / "file").read_text() == "new"
        assert mount.complaints() == []


def test_sync(source: Path, tier: str) -> None:
    with mounted(source, source.parent / "mnt", "-o", "sync", "--tier", tier) as mount:
        assert "sync" in options_of(mount)
        (mount.path / "new").write_bytes(b"x" * 300_000)
        assert (source / "new").stat().st_size == 300_000


def test_max_read(source: Path) -> None:
    (source / "large").write_bytes(os.urandom(1 << 18))
    counts = []
    for options in ("max_read=4096", "max_read=65536", "rw"):
        arguments = ("--tier", "none", "-o", options)
        with mounted(source, source.parent / "mnt", *arguments) as mount:
            assert (mount.path / "large").read_bytes() == (source / "large").read_bytes()
            counts.append(mount.stats()["READ"]["daemon"])
    assert counts[0] >= 64
    assert 4 <= counts[1] < 64
    assert counts[2] <= counts[1]


def test_all_that_fstab_may_say(source: Path) -> None:
    options = (
        "defaults,_netdev,nofail,x-systemd.automount,comment=mine,dirsync,strictatime,nodiratime"
    )
    with mounted(source, source.parent / "mnt", "-o", options, "-o", "noexec,exec") as mount:
        assert {"dirsync", "nodiratime"} <= options_of(mount)
        assert "noexec" not in options_of(mount), "the later one wins"
        assert sh(str(mount.path / "program")).stdout == "ran\n"


def test_name_of_the_source(source: Path) -> None:
    with mounted(source, source.parent / "mnt", "-o", "fsname=some name:1") as mount:
        found = sh("findmnt", "-n", "-o", "SOURCE", str(mount.path)).stdout.strip()
        assert found == "some name:1"


def test_writeback_cache(source: Path) -> None:
    arguments = ("--tier", "none", "-o", "writeback_cache")
    with mounted(source, source.parent / "mnt", *arguments) as mount:
        with (mount.path / "new").open("wb", buffering=0) as file:
            for number in range(5000):
                file.write(b"%9d\n" % number)
        assert mount.stats()["WRITE"]["daemon"] < 1000
        assert (source / "new").stat().st_size in (0, 50_000)
    assert (source / "new").read_bytes() == b"".join(b"%9d\n" % number for number in range(5000))
