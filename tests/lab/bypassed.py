"""Runs inside the lab: with everything bypassed, nothing but names and opens reaches the daemon.

python -m lab.bypassed COUNT    prints what was asked of the daemon, and what the kernel served
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.within import (
    BACK,
    MOUNT,
    SCRATCH,
    Counters,
    begin,
    command,
    mount_by,
    stats,
    umount,
    until,
)

PER_DIRECTORY = 100
MAPPED = 300
LONG = "entry: 1h, attributes: 1h"
LOOKS = 100


def each_file(root: Path, *words: str) -> None:
    """Run *words* with the paths of all files below *root*, hundreds at a time."""
    found = subprocess.run(
        ["find", str(root), "-type", "f", "-print0"], check=True, capture_output=True
    )
    subprocess.run(["xargs", "-0", "-n", "200", *words], input=found.stdout, check=True,
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


def cached_directories() -> dict[str, Any]:
    """Attributes of directories are the daemon's, and cached: paths cost nothing, and are right."""
    mount_by(f"require: inode\ncache: {{{LONG}, directory_attributes: cached}}")
    path, directory = MOUNT / "d0/f0", MOUNT / "d0"
    path.stat()
    counters = Counters(MOUNT)
    for _ in range(LOOKS):
        path.stat()
    counted = counters.since()
    changes: list[Callable[[], object]] = [
        lambda: os.chmod(directory, 0o711),
        lambda: os.chown(directory, 3, 4),
        lambda: os.utime(directory, ns=(5, 6)),
        (directory / "new").mkdir,
        (directory / "new").rmdir,
    ]
    different = []
    for change in changes:
        change()
        seen, known = ([*(root / "d0").stat()] for root in (MOUNT, BACK))
        different += [f"{seen} {known}"] if seen[:2] + seen[3:] != known[:2] + known[3:] else []
    umount()
    return {"different": different, **counted}


def main() -> None:
    begin("cli.explain")
    for directory in (BACK, MOUNT):
        directory.mkdir()
    count = int(sys.argv[1])
    for number in range(count):
        directory = BACK / f"d{number // PER_DIRECTORY}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(b"x" * 4096)
    mount_by(f"require: inode\ncache: {{{LONG}}}")
    work(MOUNT)
    answer = {
        "stats": stats(MOUNT),
        **Counters(MOUNT).now(),
        "live": json.loads(command("explain", "--mount", MOUNT, "d0/f0", "--json")),
    }
    # Everything that the kernel forgets is given back.
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    until(lambda: stats(MOUNT)["attached_inodes"] <= 1)
    answer["left"] = stats(MOUNT)["attached_inodes"]
    umount()
    answer["cached"] = cached_directories()
    subprocess.run(["umount", str(SCRATCH)], check=True)  # nothing is pinned
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
