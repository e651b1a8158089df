"""A request that is stuck in a system call must not stop the others."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounting import Mount, detach
from support.programs import start_client
from support.waiting import running, wait_asleep, wait_gone, within

pytestmark = pytest.mark.host

_MAKES_A_DIRECTORY = "import os, sys; print('ready', flush=True); os.mkdir(sys.argv[1])"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def freezable(place: Path) -> Iterator[Path]:
    """A filesystem of its own, which can be frozen: writing to it then blocks."""
    image = place / "image"
    backing = place / "back"
    backing.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(backing))
    try:
        yield backing
    finally:
        detach(backing)


@contextmanager
def frozen(backing: Path) -> Iterator[None]:
    run("fsfreeze", "--freeze", str(backing))
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", str(backing))


def test_others_are_served_while_requests_are_stuck(freezable: Path) -> None:
    # The kernel locks a directory while one of its entries is made: each stuck one gets its own.
    for name in ("0", "1", "2", "calm"):
        (freezable / name).mkdir()
    (freezable / "calm" / "file").write_text("there")
    mountpoint = freezable.parent / "mnt"
    mountpoint.mkdir()
    mount = Mount(freezable, mountpoint)
    stuck = []
    try:
        with frozen(freezable):
            stuck = [
                start_client(_MAKES_A_DIRECTORY, str(mountpoint / str(number) / "new"))
                for number in range(3)
            ]
            wait_asleep(*(process.pid for process in stuck))
            assert (mountpoint / "calm" / "file").read_text() == "there"
            assert within(lambda: mount.stats()["readers"] > 1)
            assert all(process.poll() is None for process in stuck)
        for process in stuck:
            assert process.wait(240) == 0
        assert len(list(mountpoint.glob("*/new"))) == 3

        def is_one_enough() -> bool:
            os.stat(mountpoint / "calm" / "file")
            return bool(mount.stats()["readers"] == 1)

        assert within(is_one_enough), "helpers park when nobody is stuck any more"
    finally:
        for process in stuck:
            process.kill()
            process.wait()
        mount.close()


def test_sigterm_waits_for_what_is_in_flight(freezable: Path) -> None:
    mountpoint = freezable.parent / "mnt"
    mountpoint.mkdir()
    mount = Mount(freezable, mountpoint)
    with frozen(freezable):
        process = start_client(_MAKES_A_DIRECTORY, str(mountpoint / "new"))
        wait_asleep(process.pid)
        os.kill(mount.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert running(mount.pid)
    assert process.wait(240) == 0
    assert wait_gone(mount.pid)
    assert (freezable / "new").is_dir()
