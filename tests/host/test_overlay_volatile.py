"""Volatile mounts: nobody takes an upper layer for whole that may lack something."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.mounting import detach, inopt
from support.overlays import (
    FEATURES_OFF,
    Layers,
    OverlayMount,
    left_in_work,
    mounted_by_kernel,
    mounted_by_us,
)
from support.waiting import wait_gone

pytestmark = pytest.mark.host

_MARK = "work/incompat/volatile"


@pytest.fixture
def layers(place: Path) -> Layers:
    made = Layers.made(place, 1)
    (made.lowers[0] / "file").write_text("file")
    return made


def _change(mountpoint: Path) -> None:
    (mountpoint / "file").write_text("changed")


def _is_refused_by_both(layers: Layers, mnt: Path) -> None:
    """The way out is told by ours, and nothing is changed."""
    done = inopt("mount", "overlay", str(mnt), *layers.arguments())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"inopt: --work '{layers.work}': marked as volatile: ")
    assert f"remove '{layers.work}/work/incompat' if there was no crash" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    options = f"{layers.options()},{FEATURES_OFF}"
    kernels = ["mount", "-t", "overlay", "overlay", str(mnt), "-o", options]
    assert subprocess.run(kernels, capture_output=True, check=False).returncode != 0
    assert (layers.work / _MARK).is_dir()


def _can_be_mounted_by_both(layers: Layers, mnt: Path) -> None:
    with mounted_by_us(layers, mnt):
        assert (mnt / "file").read_text() == "changed"
    with mounted_by_kernel(layers, mnt):
        assert (mnt / "file").read_text() == "changed"


def test_a_mark_that_the_kernel_left(layers: Layers, place: Path) -> None:
    mnt = place / "mnt"
    with mounted_by_kernel(layers, mnt, f"{FEATURES_OFF},volatile"):
        _change(mnt)
    _is_refused_by_both(layers, mnt)
    shutil.rmtree(layers.work / "work" / "incompat")
    _can_be_mounted_by_both(layers, mnt)


def test_a_mark_while_it_is_mounted(layers: Layers, place: Path) -> None:
    with mounted_by_us(layers, place / "mnt", "-o", "volatile") as mount:
        _change(mount.path)
        assert (layers.work / _MARK / "dirty").is_file()
    assert left_in_work(layers) == []
    _can_be_mounted_by_both(layers, place / "mnt")


def test_umount_waits_until_it_is_gone(layers: Layers, place: Path) -> None:
    mnt = place / "mnt"
    mount = OverlayMount(layers, mnt, "-o", "volatile")
    try:
        _change(mnt)
        assert inopt("umount", str(mnt)).returncode == 0
        assert not (layers.work / _MARK).exists()
    finally:
        detach(mnt)
        assert wait_gone(mount.pid)


def test_a_daemon_that_dies_leaves_it(layers: Layers, place: Path) -> None:
    mnt = place / "mnt"
    with mounted_by_us(layers, mnt, "-o", "volatile") as mount:
        _change(mnt)
        os.kill(mount.pid, signal.SIGKILL)
        assert wait_gone(mount.pid)
    _is_refused_by_both(layers, mnt)
    shutil.rmtree(layers.work / "work" / "incompat")
    _can_be_mounted_by_both(layers, mnt)


def test_a_mount_that_does_not_come_about_leaves_none(layers: Layers, place: Path) -> None:
    mnt = place / "mnt"
    mnt.mkdir()
    words = [*layers.arguments(), "-o", "volatile", "--lower", str(place / "none")]
    done = inopt("mount", "overlay", str(mnt), *words)
    assert done.returncode == 2, done.stderr
    assert left_in_work(layers) == []


def test_a_feature_that_nobody_knows(layers: Layers, place: Path) -> None:
    mnt = place / "mnt"
    mnt.mkdir()
    feature = layers.work / "work" / "incompat" / "future"
    feature.mkdir(parents=True)
    done = inopt("mount", "overlay", str(mnt), *layers.arguments())
    assert done.returncode == 2
    assert "feature that inopt does not read: future" in done.stderr
    assert feature.is_dir()
