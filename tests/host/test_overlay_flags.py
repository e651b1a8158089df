"""Flags of chattr(1) over layers: the same may be changed as on the kernel's own overlayfs."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from support.mounting import in_place
from support.overlays import Layers, Mounting, mounted_by_kernel, mounted_by_us

TIERS: Final = tuple(os.environ.get("INOPT_TEST_TIERS", "none rw").split())

_GETVERSION: Final = 0x80087601  # FS_IOC_GETVERSION, linux/fs.h

# Each by sh in the mount; a directory is `i*` if immutable and `a*` if append-only.
STEPS: Final = """
echo y >> immutable
echo y > immutable
truncate -s 0 immutable
chmod 600 immutable
chown 1 immutable
touch immutable
setfattr -n user.a -v b immutable
setfacl -m u:1:r immutable
ln immutable hard
mv immutable other
mv victim immutable
rm -f immutable
cat immutable; lsattr immutable
echo y > append
echo y >> append; cat append
truncate -s 0 append
chmod 600 append
setfattr -n user.a -v b append
setfattr -x user.a append
mv append other
mv victim append
rm -f append
touch -d 2001-01-01 append
touch append
touch -a append
fallocate -l 100 append
lsattr append
echo z > i/new
mkdir i/new
ln -s x i/new
mkfifo i/new
ln plain i/new
rm -f i/file
mv i/file .
mv victim i/
chmod 700 i
mv i other
rmdir i
echo k >> i/file; cat i/file
rm -f i/file
echo z > a/new; ls a
rm a/new
rm a/file
mv a/file .
mv plain a/; ls a
mv a/plain plain
mv -f victim a/file
touch a
chmod 700 a
rm -rf a 2>&1 | sort
lsattr -d immutable append i a
chmod 600 sync; lsattr sync
echo more >> noatime; lsattr noatime
touch d/x; lsattr -d d
chattr +i d/file; lsattr d/file; echo >> d/file
chattr -i d/file; echo >> d/file; lsattr d/file
chattr +a d; lsattr -d d; rm d/file; echo a > d/g; ls d
chattr -a d; rm d/file; ls d
chattr +i d; echo > d/new; echo more >> d/g; chattr -i d
chattr -i immutable; echo q >> immutable; rm immutable; ls
chattr +a victim; echo q > victim; echo q >> victim; cat victim
chattr -ia a i; rm -r a i; ls
lsattr -R . | sort
getfattr -R -d -m - . | sort
""".strip().splitlines()


@pytest.fixture
def layers(host: None) -> Iterator[Layers]:
    with in_place("flags") as place:
        probe = place / "probe"
        probe.touch()
        done = _chattr("+i", probe)
        if done.returncode:
            pytest.skip(f"no inode flags here: {done.stderr.strip()}")
        _chattr("-i", probe)
        made = Layers.made(place / "ours", 1)
        fill(made.lowers[0])
        yield made
        _chattr("-R", "-f", "-ia", place)


def _chattr(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["chattr", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)


def fill(lower: Path) -> None:
    for name in ("immutable", "append", "sync", "noatime", "plain", "victim"):
        (lower / name).write_text(name + "\n")
    for name in ("i", "a", "d"):
        (lower / name).mkdir()
        (lower / name / "file").write_text(name + "\n")
    for flag, names in (("+i", "immutable i"), ("+a", "append a"), ("+S", "sync"),
                        ("+A", "noatime d")):  # fmt: skip
        assert not _chattr(flag, *(lower / name for name in names.split())).returncode


def outcome(mnt: Path, step: str) -> str:
    done = subprocess.run(
        ["sh", "-c", step], cwd=mnt, check=False, capture_output=True, text=True, timeout=240,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("tier", TIERS)
def test_what_flags_protect(layers: Layers, tier: str) -> None:
    place = layers.upper.parent.parent
    own = Layers.made(place / "kernels", 0)
    kernels = Layers(layers.lowers, own.upper, own.work)
    with ExitStack() as stack:
        oracle = stack.enter_context(mounted_by_kernel(kernels, place / "oracle"))
        mnt = stack.enter_context(mounted_by_us(layers, place / "mnt", "--tier", tier)).path
        for step in STEPS:
            assert outcome(mnt, step) == outcome(oracle, step), step
        with (mnt / "append").open("ab", buffering=0) as file:
            # The kernel does not ask the daemon about this: but what is there stays.
            fcntl.fcntl(file, fcntl.F_SETFL, 0)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            os.write(file.fileno(), b"at the end\n")
            with pytest.raises(PermissionError):
                os.ftruncate(file.fileno(), 0)
        with (oracle / "append").open("ab") as file:
            file.write(b"at the end\n")
        assert (mnt / "append").read_bytes() == (oracle / "append").read_bytes()
    assert marks(layers.upper) == marks(kernels.upper)
    with mounted_by_kernel(layers, place / "oracle"):
        refused = outcome(place / "oracle", "rm append")
        assert refused == "1\nrm: cannot remove 'append': Operation not permitted\n"


def test_only_flags_are_told_as_flags(layers: Layers) -> None:
    """What else an ioctl(2) reads stays as the upper layer's file says."""
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        with (mount.path / "append").open("ab") as file:
            file.write(b"copied up")
        assert "-a-" in outcome(mount.path, "lsattr append")
        assert version_of(mount.path / "append") == version_of(layers.upper / "append")


@pytest.mark.parametrize("maker", [mounted_by_kernel, mounted_by_us])
def test_nothing_is_copied_into_a_file_that_has_become_immutable(
    layers: Layers, maker: Mounting
) -> None:
    tree = layers.upper.parent / "mnt"
    with (
        maker(layers, tree),
        (tree / "plain").open("r+b") as file,
        (tree / "noatime").open("rb") as other,
    ):
        assert not _chattr("+i", tree / "plain").returncode
        with pytest.raises(PermissionError):
            os.copy_file_range(other.fileno(), file.fileno(), 1, 0, 0)


@pytest.mark.parametrize("flag", ["+i", "+a"])
def test_flags_that_the_upper_layer_has_itself(layers: Layers, flag: str) -> None:
    """That a directory is kept comes before that it is not empty."""
    (layers.upper / "own/full/file").mkdir(parents=True)
    (layers.upper / "own/empty").mkdir()
    (layers.upper / "other").mkdir()
    assert not _chattr(flag, layers.upper / "own").returncode
    place = layers.upper.parent
    steps = ("rmdir own/full", "rmdir own/empty", "mv -T other own/full")
    with mounted_by_kernel(layers, place / "mnt") as tree:
        expected = [outcome(tree, step) for step in steps]
    assert all("not permitted" in told for told in expected)
    with mounted_by_us(layers, place / "mnt") as mount:
        assert [outcome(mount.path, step) for step in steps] == expected


def version_of(path: Path) -> int:
    answer = bytearray(8)
    with path.open("rb") as file:
        fcntl.ioctl(file, _GETVERSION, answer)
    return int.from_bytes(answer[:4], "little")


def marks(upper: Path) -> list[str]:
    """What `lsattr` shows of an upper layer itself, and the marks of protection in it."""
    listed = outcome(upper, "lsattr -R . 2>/dev/null | sort; getfattr -R -d -m protattr . | sort")
    return listed.splitlines()
