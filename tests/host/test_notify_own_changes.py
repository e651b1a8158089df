"""With ``coherence: notify``, what is done through the mount is no news to the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from support.mounting import Mount, in_place
from support.notifying import (
    mode,
    notified,
    requests,
    size,
)
from support.waiting import within

pytestmark = pytest.mark.host


@pytest.fixture(scope="module", params=["none-fanotify", "rw-fanotify"])
def mount(host: None, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One mount for all tests. (inotify does not tell who has changed something.)"""
    with in_place("notify") as place, notified(place, request.param) as made:
        yield made
        assert made.complaints() == []


def test_what_is_made_through_the_mount_is_known(mount: Mount) -> None:
    """The daemon's own changes are nothing new to the kernel: nothing is told, nothing asked."""
    above, before = mount.path, mount.stats()
    for number in range(1000):
        path = above / f"file{number}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        path.chmod(0o640)
        if number % 4 == 0:
            path.rename(above / f"renamed{number}")
        if number % 4 == 1:
            path.unlink()
        if number % 4 == 2:
            (above / f"dir{number}").mkdir()
    assert within(lambda: mount.stats()["own_events"] - before["own_events"] >= 1000)
    time.sleep(0.3)
    after = mount.stats()
    told = after["invalidated_inodes"] - before["invalidated_inodes"]
    # Who bypasses closes the backing file in its own name.
    assert told <= (5 if before["tier"] == "none" else 1005)
    assert after["invalidated_names"] == before["invalidated_names"]
    assert after["watch_overflows"] == 0
    asked = requests(mount)
    for number in range(0, 1000, 4):
        assert mode(above / f"renamed{number}") == 0o640
        assert not (above / f"file{number + 1}").exists()
        assert (above / f"dir{number + 2}").is_dir()
    if before["tier"] == "none":
        assert requests(mount) - asked <= 750, "renamed and removed ones are looked up once"


def test_writing_through_the_mount(mount: Mount) -> None:
    """Many small writes are told as few times as they are read in bunches."""
    above, before = mount.path, mount.stats()["invalidated_inodes"]
    began = time.monotonic()
    with (above / "file").open("wb", buffering=0) as file:
        for _ in range(20_000):
            file.write(b"x" * 100)
    bunches = (time.monotonic() - began) / 0.01
    assert mount.stats()["invalidated_inodes"] - before <= 2 * bunches + 10
    assert size(above / "file") == size(mount.source / "file") == 2_000_000
