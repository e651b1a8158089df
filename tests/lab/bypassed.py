"""Runs inside the lab: with everything bypassed, nothing but names and opens reaches the daemon.

python bypassed.py COUNT    prints what was asked of the daemon, and what the kernel served
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRATCH = Path(os.environ.get("LAB_SCRATCH", "/lab"))
INOPT = [sys.executable, "-m", "inopt"]
PER_DIRECTORY = 100
MAPPED = 300


def connection(mountpoint: Path) -> Path:
    """The kernel's own account of the mount's connection."""
    return Path("/sys/fs/fuse/connections") / str(os.minor(mountpoint.stat().st_dev))


def numbers_in(path: Path) -> dict[str, int]:
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.replace(":", " ").partition(" ")
        if value.strip().isdigit():
            found[name] = int(value)
    return found


def stats(mountpoint: Path) -> dict[str, Any]:
    done = subprocess.run(
        [*INOPT, "stats", str(mountpoint), "--json"], check=True, capture_output=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def each_file(root: Path, *command: str) -> None:
    """Run *command* with the paths of all files below *root*, hundreds at a time."""
    found = subprocess.run(
        ["find", str(root), "-type", "f", "-print0"], check=True, capture_output=True
    )
    subprocess.run(["xargs", "-0", "-n", "200", *command], input=found.stdout, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def work(root: Path) -> None:
    """Everything that a kernel with ops_mask can do alone, on every file below *root*."""
    subprocess.run(["chmod", "-R", "g+w,o-x", *map(str, root.iterdir())], check=True)
    each_file(root, "chmod", "640")
    each_file(root, "chown", "1:2")
    each_file(root, "truncate", "-s", "3000")
    each_file(root, "touch", "-d", "@1000000001")
    subprocess.run(["ls", "-lR", str(root)], check=True, stdout=subprocess.DEVNULL)
    each_file(root, "sh", "-c", 'printf written | tee -- "$@" >&2', "sh")
    each_file(root, "cat")
    mapped = 0
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            status = os.stat(path)
            assert (status.st_mode, status.st_uid, status.st_gid) == (0o100640, 1, 2)
            assert status.st_size == 7
            if mapped < MAPPED:
                mapped += 1
                map_and_change(path)


def map_and_change(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 0) as mapping:
        assert mapping[:] == b"written"
        mapping[0:6] = b"mapped"
    assert os.pread(descriptor, 7, 0) == b"mappedn"
    assert os.fstat(descriptor).st_size == 7
    os.close(descriptor)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not in half a minute"
        time.sleep(0.1)


def main() -> int:
    back, mountpoint = SCRATCH / "back", SCRATCH / "mnt"
    back.mkdir()
    mountpoint.mkdir()
    count = int(sys.argv[1])
    for number in range(count):
        directory = back / f"d{number // PER_DIRECTORY}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(b"x" * 4096)
    policy = SCRATCH / "policy.yaml"
    policy.write_text("version: 1\nrequire: inode\ncache: {entry: 1h, attributes: 1h}\n")
    subprocess.run([*INOPT, "mount", str(policy), str(back), str(mountpoint)], check=True)
    work(mountpoint)
    counted = stats(mountpoint)
    kernel = connection(mountpoint)
    requests = numbers_in(kernel / "request_counts")
    served = numbers_in(kernel / "passthrough_stats")
    live = subprocess.run(
        [*INOPT, "explain", "--mount", str(mountpoint), "d0/f0", "--json"],
        check=True, capture_output=True,
    )  # fmt: skip
    # Everything that the kernel forgets is given back.
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    until(lambda: stats(mountpoint)["attached_inodes"] <= 1)
    left = stats(mountpoint)
    subprocess.run([*INOPT, "umount", str(mountpoint)], check=True)
    subprocess.run(["umount", str(SCRATCH)], check=True)  # nothing is pinned
    print(
        json.dumps(
            {
                "stats": counted,
                "requests": requests,
                "served": served,
                "left": left["attached_inodes"],
                "live": json.loads(live.stdout),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
