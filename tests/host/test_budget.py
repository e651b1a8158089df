"""A tree far larger than the descriptor budget: nothing shows, and memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounting import mounted
from support.programs import client
from support.sizing import STRESS
from support.waiting import within

pytestmark = pytest.mark.host

BUDGET = 256
# Enough for the daemon's own memory not to count.
FOLDERS, FILES = (200, 1000) if STRESS else (50, 600)
MOST_BYTES = 800
MAKES = """
import os, sys
root, folders, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(folders):
    folder = f"{root}/{number:03}"
    os.mkdir(folder)
    directory = os.open(folder, os.O_RDONLY)
    for name in range(files):
        os.mknod(f"file{name:04}", 0o600 + name % 0o100, dir_fd=directory)
    for name in range(0, files, 50):
        os.truncate(f"{folder}/file{name:04}", number * files + name)
    os.close(directory)
"""
WALKS = """
import hashlib, json, os, sys
count = size = 0
digest = hashlib.sha256()
names = [""]
while names:
    folder = names.pop()
    with os.scandir(os.path.join(sys.argv[1], folder)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        count += 1
        size += status.st_size
        path = os.path.join(folder, entry.name)
        digest.update(
            f"{path} {entry.inode()} {status.st_ino} {status.st_size} {status.st_mode}".encode())
        if entry.is_dir():
            names.append(path)
print(json.dumps([count, size, digest.hexdigest()]))
"""


def walk(path: Path) -> list[object]:
    done = client(WALKS, str(path), timeout=250)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


@contextmanager
def descriptors_sampled(pid: int) -> Iterator[list[int]]:
    """The numbers of descriptors that a process has held, every few milliseconds."""
    samples: list[int] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.002):
            samples.append(len(os.listdir(f"/proc/{pid}/fd")))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def test_many_files_within_the_budget(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = place / "src"
    source.mkdir()
    start = time.monotonic()
    done = client(MAKES, str(source), str(FOLDERS), str(FILES), timeout=250)
    assert done.returncode == 0, done.stderr
    made = time.monotonic()
    expected = walk(source)
    assert expected[0] == FOLDERS * FILES + FOLDERS
    with mounted(source, place / "mnt", "--fd-budget", str(BUDGET)) as mount:
        before = mount.stats()
        walking = time.monotonic()
        with descriptors_sampled(mount.pid) as samples:
            first = walk(mount.path)
            between = time.monotonic()
            after = mount.stats()
            second = walk(mount.path)
        walked = time.monotonic()
        assert first == expected
        assert second == expected
        assert len(samples) > 100
        assert max(samples) <= BUDGET
        assert after["fds"] <= BUDGET
        known = after["known_inodes"] - before["known_inodes"]
        growth = after["resident_bytes"] - before["resident_bytes"]
        with capsys.disabled():
            print(
                f"\n{known} inodes known: {growth / known:.0f} bytes each, at most {max(samples)}"
                f" of {BUDGET} descriptors; made in {made - start:.1f} s, walked in"
                f" {between - walking:.1f} and {walked - between:.1f} s"
            )
        assert known > FOLDERS * FILES * 0.9
        assert growth / known <= MOST_BYTES
        assert mount.complaints() == []


def test_open_files_beyond_the_budget(place: Path) -> None:
    source = place / "src"
    source.mkdir()
    for number in range(300):
        (source / f"file{number}").write_text(f"{number}")
    # Open files and directories are the client's: what they need comes on top of the budget.
    with mounted(source, place / "mnt", "--fd-budget", "64", "--tier", "none") as mount:
        files = [(mount.path / f"file{number}").open() for number in range(300)]
        try:
            assert [file.read() for file in files] == [f"{number}" for number in range(300)]
            assert len(os.listdir(mount.path)) == 300
        finally:
            for file in files:
                file.close()
        subprocess.run(["ls", "-lR", str(mount.path)], check=True, capture_output=True)
        os.stat(mount.path / "file1")
        assert within(lambda: mount.stats()["fds"] <= 64)
        assert mount.complaints() == []
