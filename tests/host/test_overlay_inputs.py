"""Layers that cannot be mounted: exit 2, one line with the way out, nothing changed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from support.mounting import detach, inopt, mounts_below
from support.overlays import Layers, mounted_by_kernel, mounted_by_us
from support.programs import filesystem_in, sh

pytestmark = pytest.mark.host

_WAY_OUT: Final = "use a directory on ext4, xfs, btrfs or tmpfs"


@pytest.fixture
def layers(place: Path) -> Layers:
    made = Layers.made(place, 2)
    (made.lowers[0] / "file").write_text("file")
    (place / "mnt").mkdir()
    return made


def _snapshot(place: Path) -> list[str]:
    return sorted(f"{path} {path.lstat().st_mode}" for path in place.rglob("*"))


def refused(layers: Layers, *arguments: str, line: str, policy: str = "overlay") -> None:
    """``inopt mount`` says just *line*, in which ``{place}`` is where the layers are."""
    place = layers.upper.parent
    before, points = _snapshot(place), mounts_below(place)
    done = inopt("mount", policy, str(place / "mnt"), *arguments, cwd=place)
    try:
        said = f"inopt: {line.format(place=place)}\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
        assert mounts_below(place) == points
        assert _snapshot(place) == before
    finally:
        for point in mounts_below(place / "mnt"):
            detach(point)


@pytest.mark.parametrize(
    ("upper", "work", "lower", "line"),
    [
        ("upper", "upper/work", "lower0", ("--work '{place}/upper/work': inside of --upper"
         " {place}/upper: name another one")),
        ("upper/in", "upper", "lower0", ("--work '{place}/upper': --upper {place}/upper/in is"
         " inside of it: name another")),
        ("upper", "upper", "lower0", ("--work '{place}/upper': the same as --upper {place}/upper:"
         " name another one")),
        ("lower0", "work", "lower0", ("--lower '{place}/lower0': the same as --upper"
         " {place}/lower0: name another one")),
        ("lower0/in", "work", "lower0", ("--lower '{place}/lower0': --upper {place}/lower0/in is"
         " inside of it: name another")),
        ("upper", "work", "upper/in", ("--lower '{place}/upper/in': inside of --upper"
         " {place}/upper: name another one")),
        ("upper", "lower0/in", "lower0", ("--work '{place}/lower0/in': inside of --lower"
         " {place}/lower0: name another one")),
        ("upper", "work", "lower0:lower0", ("--lower '{place}/lower0': the same as --lower"
         " {place}/lower0: name another one")),
        ("upper", "work", "lower0:other", ("--lower '{place}/other': the same as --lower"
         " {place}/lower0: name another one")),
        ("nothing", "work", "lower0", ("--upper '{place}/nothing': No such file or directory: name"
         " an existing directory")),
        ("upper", "work", "lower0/file", ("--lower '{place}/lower0/file': not a directory: name a"
         " directory")),
    ],
)  # fmt: skip
def test_directories_in_one_another(
    layers: Layers, upper: str, work: str, lower: str, line: str
) -> None:
    place = layers.upper.parent
    for name in ("upper/work", "upper/in", "lower0/in"):
        (place / name).mkdir()
    (place / "other").symlink_to("lower0")
    refused(layers, "--lower", lower, "--upper", upper, "--work", work, line=line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--upper", "upper", "--work", "work"],
         "--lower: no lower directory is given: give --lower DIRECTORY[:…]"),
        (["--lower", "lower0", "--upper", "upper"],
         ("--upper upper: needs a work directory: give --work DIRECTORY, an empty one on the same"
         " filesystem")),
        (["--lower", "lower0", "--work", "work"],
         "--work work: means nothing without --upper: leave it out"),
        (["--lower", "lower0:"],
         ("'lower0:': an empty name among the lower layers: write L1:L2, the topmost first"
         " (data-only layers, after '::', are not read)")),
        (["-o", "lowerdir=lower0::lower1"],
         ("'lower0::lower1': an empty name among the lower layers: write L1:L2, the topmost first"
         " (data-only layers, after '::', are not read)")),
        (["-o", "lowerdir=lower0,datadir+=lower1"],
         "-o datadir+=lower1: inopt does not read data-only layers: leave it out"),
        (["-o", "lowerdir=lower0,redirect_dir=on"],
         "-o redirect_dir=on: inopt does not do this: leave it out, or use redirect_dir=off"),
        (["-o", "lowerdir=lower0,metacopy=on"],
         "-o metacopy=on: inopt does not do this: leave it out, or use metacopy=off"),
        (["-o", "lowerdir=lower0,index=on"],
         "-o index=on: inopt does not do this: leave it out, or use index=off"),
        (["-o", "lowerdir=lower0,verity=require"],
         "-o verity=require: inopt does not do this: leave it out, or use verity=off"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(layers: Layers, arguments: list[str], line: str) -> None:
    refused(layers, *arguments, line=line)


def test_another_filesystem(layers: Layers) -> None:
    place = layers.upper.parent
    with filesystem_in(place, name="back"):
        (place / "back" / "work").mkdir()
        refused(
            layers, "--lower", "lower0", "--upper", "upper", "--work", "back/work",
            line="--work '{place}/back/work': not on the mount of --upper {place}/upper:"
            " put it there",
        )  # fmt: skip


def test_a_work_directory_with_something_in_it(layers: Layers) -> None:
    (layers.work / "mine").touch()
    refused(
        layers, *layers.arguments(),
        line="--work '{place}/work': not empty: it has 'mine': name an empty one",
    )  # fmt: skip


def test_directories_in_use(layers: Layers) -> None:
    place = layers.upper.parent
    (place / "upper2").mkdir()
    (place / "work2").mkdir()
    upper = ["--lower", "lower0", "--upper", "upper", "--work", "work2"]
    work = ["--lower", "lower0", "--upper", "upper2", "--work", "work"]
    line = ": in use by another mount: unmount that, or use another one"
    with mounted_by_us(layers, place / "ours"):
        for arguments, what in (
            (upper, "--upper '{place}/upper'"),
            (work, "--work '{place}/work'"),
        ):
            refused(layers, *arguments, line=what + line)
    line = ": in use by the overlay at {place}/the kernel's: unmount that"
    with mounted_by_kernel(layers, place / "the kernel's"):
        for arguments, what in (
            (upper, "--upper '{place}/upper'"),
            (work, "--work '{place}/work'"),
        ):
            refused(layers, *arguments, line=what + line)
    with mounted_by_us(layers, place / "ours") as mount:
        assert (mount.path / "file").read_text() == "file"


def test_directories_that_are_given_up_at_this_moment(layers: Layers) -> None:
    """As after umount(8), or when a daemon has been killed: it may not have ended yet."""
    held = os.open(layers.upper, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    soon = threading.Timer(0.2, os.close, (held,))
    soon.start()
    with mounted_by_us(layers, layers.upper.parent / "ours") as mount:
        assert (mount.path / "file").read_text() == "file"
    soon.join()


@contextmanager
def _mounted(path: Path, kind: str, source: str, options: str) -> Iterator[None]:
    sh("mount", "-t", kind, "-o", options, source, str(path))
    try:
        yield
    finally:
        detach(path)


@pytest.mark.parametrize("kind", ["ramfs", "read-only"])
def test_a_filesystem_that_cannot_be_an_upper(layers: Layers, kind: str) -> None:
    place = layers.upper.parent
    (place / "back").mkdir()
    arguments = ["--lower", "lower0", "--upper", "back/upper", "--work", "back/work"]
    with _mounted(place / "back", "tmpfs" if kind == "read-only" else kind, "none", "mode=755"):
        for name in ("upper", "work"):
            (place / "back" / name).mkdir()
        if kind == "read-only":
            sh("mount", "-o", "remount,ro", str(place / "back"))
            line = "--upper '{place}/back/upper': mounted read-only: remount it writable"
        else:
            line = (
                "--upper '{place}/back/upper': its filesystem lacks what an upper needs"
                f" ('trusted.overlay.*', O_TMPFILE): {_WAY_OUT}"
            )
        refused(layers, *arguments, line=line)


def test_an_upper_made_with_an_index(layers: Layers) -> None:
    os.link(layers.lowers[0] / "file", layers.lowers[0] / "second")
    with mounted_by_kernel(
        layers, layers.upper.parent / "k", "redirect_dir=off,index=on,xino=off"
    ) as path:
        (path / "file").write_text("changed")
    refused(
        layers, *layers.arguments(),
        line="--work '{place}/work': its upper layer was made with a feature that inopt does not"
        " read: index: mount it with the kernel's overlayfs, or use other directories",
    )  # fmt: skip


@pytest.mark.parametrize("feature", ["redirect_dir", "metacopy"])
def test_what_was_made_with_a_feature_is_not_shown(layers: Layers, feature: str) -> None:
    """As with the kernel's overlayfs where the feature is off; the log names it once."""
    (layers.lowers[0] / "d").mkdir()
    (layers.lowers[0] / "d" / "below").write_text("below")
    options = "redirect_dir=on,index=off,xino=off" + ",metacopy=on" * (feature == "metacopy")
    with mounted_by_kernel(layers, layers.upper.parent / "k", options) as path:
        if feature == "redirect_dir":
            os.rename(path / "d", path / "moved")
        else:
            os.chmod(path / "file", 0o600)
    name = "moved" if feature == "redirect_dir" else "file"
    with mounted_by_us(layers, layers.upper.parent / "ours") as mount:
        for _ in range(2):
            with pytest.raises(PermissionError):
                (mount.path / name).stat()
        assert name in os.listdir(mount.path)
        complaints = mount.complaints()
        assert len(complaints) == 1, complaints
        assert feature in complaints[0]


def test_a_lower_layer_on_which_nothing_may_be_mounted(layers: Layers) -> None:
    """The mountpoint must not be in a layer, nor a layer below it."""
    place = layers.upper.parent
    (place / "lower0" / "mnt").mkdir()
    done: subprocess.CompletedProcess[str] = inopt(
        "mount", "overlay", str(place / "lower0" / "mnt"), *layers.arguments(), cwd=place
    )
    try:
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert f"{place}/lower0" in done.stderr
    finally:
        for point in mounts_below(place):
            detach(point)
