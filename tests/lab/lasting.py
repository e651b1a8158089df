"""Runs inside the lab: what is attached is given back, whatever happens, and nobody meets EIO.

python -m lab.lasting COUNT SECONDS    COUNT files for the leaks, SECONDS for each storm
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

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

LOG: Final = SCRATCH / "log"
_WAITING: Final = 300  # seconds that a storm goes on at most, for what it has to meet
# What a name that comes and goes may answer.
PASSING: Final = {"ENOENT", "ESTALE", "EEXIST", "ENOTDIR", "EISDIR", "ENOTEMPTY", "ELOOP"}


def mount(policy: str, source: Path = BACK) -> int:
    return mount_by(f"require: inode\n{policy}", source, "--log-file", str(LOG))


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def evicted(count: int) -> dict[str, Any]:
    """*count* inodes are looked up, forgotten, and looked up again."""
    for number in range(count):
        directory = BACK / f"d{number // 200}"
        directory.mkdir(exist_ok=True)
        os.close(os.open(directory / f"f{number}", os.O_CREAT | os.O_WRONLY))
    mount("")
    answer = {}
    for round_ in ("first", "second"):
        subprocess.run(["find", str(MOUNT), "-size", "+9"], check=True)
        answer[round_] = stats(MOUNT)["attached_inodes"]
        drop_caches()
        until(lambda: stats(MOUNT)["attached_inodes"] <= 1)
    answer["known"] = stats(MOUNT)["known_inodes"]
    served = Counters(MOUNT).now()["served"]
    answer["attach"], answer["detach"] = served["attach"], served["detach"]
    umount()
    subprocess.run(["rm", "-rf", *map(str, BACK.iterdir())], check=True)
    return answer


def killed() -> dict[str, Any]:
    """The daemon dies while much is attached and a file is open."""
    for number in range(100):
        (BACK / f"f{number}").write_bytes(b"data")
    pid = mount("")
    subprocess.run(["ls", "-l", str(MOUNT)], check=True, stdout=subprocess.DEVNULL)
    descriptor = os.open(MOUNT / "f0", os.O_RDWR)
    attached = stats(MOUNT)["attached_inodes"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    # What the kernel serves by itself goes on.
    answer = {"attached": attached, "read": os.pread(descriptor, 4, 0).decode()}
    answer["size"] = os.fstat(descriptor).st_size
    os.close(descriptor)
    umount()
    for path in BACK.iterdir():
        path.unlink()
    return answer


def numbered() -> dict[str, Any]:
    """Inode numbers with the top bit set: a mount of ours has them for what is mounted below."""
    inner, below = SCRATCH / "inner", BACK / "below"
    inner.mkdir()
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    (below / "file").write_bytes(b"data")
    command("mount", "mirror", BACK, inner, "--tier", "none")
    mount("", inner)
    os.chmod(MOUNT / "below/file", 0o640)
    with (MOUNT / "below/file").open("r+b") as file:
        content = file.read()
        file.write(b"more")
    seen, known = ((root / "below/file").stat() for root in (MOUNT, inner))
    answer = {
        "top_bits": [status.st_ino >> 63 for status in (seen, known)],
        "alike": seen.st_ino == known.st_ino,
        "file": [oct(seen.st_mode), seen.st_size, content.decode()],
        "attached": stats(MOUNT)["attached_inodes"],
        "served": Counters(MOUNT).now()["served"],
    }
    umount()
    command("umount", inner)
    subprocess.run(["umount", str(below)], check=True)
    below.rmdir()
    return answer


def errors_of(
    operations: list[Callable[[], object]],
    seconds: float,
    threads: int = 3,
    wanted: frozenset[str] = frozenset(),
) -> set[str]:
    """Do them at random in several threads; the errors that they met.

    For *seconds*, and until all of *wanted* were met, but not for ever.
    """
    met: set[str] = set()
    deadline = time.monotonic() + seconds
    latest = deadline + _WAITING

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while (now := time.monotonic()) < deadline or (now < latest and not wanted <= met):
            try:
                chance.choice(operations)()
            except OSError as error:
                met.add(errno.errorcode[error.errno or errno.EIO])

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return met


def reused(seconds: float) -> dict[str, Any]:
    """Names and inode numbers come and go, of all types, on both sides at once."""
    mount("cache: {entry: 200ms}")
    names = [f"n{number}" for number in range(4)]
    chance = random.Random(0)

    def name(root: Path) -> Path:
        return root / chance.choice(names)

    def write(root: Path) -> None:
        with name(root).open("wb") as file:
            file.write(b"data")

    def read(root: Path) -> None:
        with name(root).open("rb") as file:
            content = file.read()
        assert content in (b"", b"data"), content

    def change(root: Path) -> None:
        os.chmod(name(root), 0o600)
        os.utime(name(root), ns=(1, 2))
        os.truncate(name(root), 4)

    def on(root: Path) -> list[Callable[[], object]]:
        return [
            lambda: write(root),
            lambda: name(root).mkdir(),
            lambda: name(root).symlink_to("n0"),
            lambda: name(root).unlink(),
            lambda: name(root).rmdir(),
            lambda: name(root).rename(name(root)),
        ]

    operations = on(BACK) + on(MOUNT)
    operations += [
        lambda: read(MOUNT),
        lambda: change(MOUNT),
        lambda: name(MOUNT).lstat(),
        lambda: os.listdir(name(MOUNT)),
    ] * 2
    met = errors_of(operations, seconds)
    served = Counters(MOUNT).now()["served"]
    umount()
    subprocess.run(["rm", "-rf", *map(str, BACK.iterdir())], check=True)
    return {"unexpected": sorted(met - PASSING), "reject": served["reject"]}


def bordered(seconds: float) -> dict[str, Any]:
    """Links and renames, underneath and through the mount, across the border of a rule.

    One after the other, and names are always looked up: what a name leads to is no question then.
    """
    for place in ("free", "strict"):
        (BACK / place).mkdir()
    mount("cache: {entry: 0s}\nrules: [{match: {path: /strict/**}, deny: chmod}]")
    names = [f"n{number}" for number in range(4)]
    chance = random.Random(1)
    broken: list[str] = []

    def path(root: Path, place: str = "") -> Path:
        return root / (place or chance.choice(("free", "strict"))) / chance.choice(names)

    def make(root: Path) -> None:
        target = path(root)
        with contextlib.suppress(FileExistsError), target.open("xb"):
            os.chmod(BACK / target.relative_to(root), 0o644)

    def strict_chmod() -> None:
        target = path(MOUNT, "strict")
        os.chmod(target, 0o777)
        broken.append(str(target))

    operations: list[Callable[[], object]] = [
        lambda: make(BACK),
        lambda: make(MOUNT),
        lambda: os.link(path(BACK), path(BACK)),
        lambda: os.link(path(MOUNT), path(MOUNT)),
        lambda: path(BACK).rename(path(BACK)),
        lambda: path(MOUNT).rename(path(MOUNT)),
        lambda: path(BACK).unlink(),
        lambda: path(MOUNT).unlink(),
        lambda: path(MOUNT).stat(),
        lambda: os.chmod(path(MOUNT, "free"), 0o600),
        strict_chmod,
        strict_chmod,
    ]
    met = errors_of(operations, seconds, 1, frozenset({"EXDEV", "EACCES"}))
    served = Counters(MOUNT).now()["served"]
    umount()
    subprocess.run(["rm", "-rf", *map(str, BACK.iterdir())], check=True)
    allowed = PASSING | {"EXDEV", "EACCES", "EMLINK"}
    return {
        "unexpected": sorted(met - allowed), "met": sorted(met), "reject": served["reject"],
        "broken": broken,
    }  # fmt: skip


def main() -> None:
    begin()
    BACK.mkdir()
    MOUNT.mkdir()
    count, seconds = int(sys.argv[1]), float(sys.argv[2])
    answer = {
        "evicted": evicted(count),
        "killed": killed(),
        "numbered": numbered(),
        "reused": reused(seconds),
        "bordered": bordered(seconds),
    }
    complaints = [line for line in LOG.read_text().splitlines() if "failed" in line]
    subprocess.run(["umount", str(SCRATCH)], check=True)  # nothing is pinned
    print(json.dumps(answer | {"complaints": complaints}))


if __name__ == "__main__":
    main()
