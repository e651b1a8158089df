"""What ``coherence: notify`` gains and costs, beside times of a second, on one backing tree.

    .venv/bin/python tests/bench/notify.py [ROUNDS]

The three take turns within each round; numbers are medians, and only ratios mean anything.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

INOPT: Final = str(Path(sys.executable).with_name("inopt"))
WAYS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "timeout": ("version: 1\n", {}),
    "fanotify": ("version: 1\ncache: {coherence: notify}\n", {}),
    "inotify": ("version: 1\ncache: {coherence: notify}\n", {"INOPT_NO_FANOTIFY": "1"}),
}
FILES: Final = 10_000
PAUSE: Final = 1.2  # seconds: longer than names and attributes are believed by default


def fill(tree: Path) -> None:
    for number in range(FILES):
        folder = tree / f"dir{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_bytes(b"x" * (number % 3000))


def walk(top: Path) -> None:
    for folder, _, files in os.walk(top):
        for name in files:
            os.lstat(os.path.join(folder, name))


def stat_all(top: Path) -> None:
    for number in range(FILES):
        os.lstat(f"{top}/tree/dir{number // 100}/file{number}")


def untar(top: Path, archive: Path) -> None:
    (top / "untarred").mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(top / "untarred")], check=True)


def create_and_unlink(top: Path) -> None:
    for number in range(2000):
        os.close(os.open(top / f"new{number}", os.O_CREAT | os.O_WRONLY, 0o644))
    for number in range(2000):
        os.unlink(top / f"new{number}")


def write_pages(top: Path) -> None:
    chance, page = random.Random(1), b"x" * 4096
    with (top / "pages").open("r+b", buffering=0) as file:
        for _ in range(100_000):
            os.pwrite(file.fileno(), page, chance.randrange(16_384) * 4096)


def measured(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def stats(mountpoint: Path) -> dict[str, Any]:
    done = subprocess.run(
        [INOPT, "stats", str(mountpoint), "--json"], check=True, capture_output=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def asked(told: dict[str, Any]) -> int:
    return sum(told[name]["daemon"] for name in ("LOOKUP", "GETATTR", "READDIRPLUS"))


def one_round(place: Path, way: str, archive: Path) -> dict[str, float]:
    """Measure everything once, on a fresh mount."""
    text, environment = WAYS[way]
    policy, source, mountpoint = place / "policy.yaml", place / "source", place / "mount"
    policy.write_text(text)
    found: dict[str, float] = {}
    command = [INOPT, "mount", str(policy), str(source), str(mountpoint)]
    subprocess.run(command, check=True, env={**os.environ, **environment})
    try:
        for _ in range(2):
            stat_all(mountpoint)
        time.sleep(PAUSE)
        before = asked(stats(mountpoint))
        time.sleep(PAUSE)
        found["stat of 10,000 known files, seconds"] = measured(lambda: stat_all(mountpoint))
        time.sleep(PAUSE)
        walking = measured(lambda: walk(mountpoint / "tree"))
        found["walk and stat of them, seconds"] = walking
        found["requests for names and attributes"] = asked(stats(mountpoint)) - before
        before = stats(mountpoint).get("invalidated_inodes", 0)
        found["untar of 3,000 files, seconds"] = measured(lambda: untar(mountpoint, archive))
        time.sleep(0.1)
        more = stats(mountpoint).get("invalidated_inodes", 0) - before
        found["notifications meanwhile"] = more
        found["create and unlink 2,000, seconds"] = measured(lambda: create_and_unlink(mountpoint))
        writing = [measured(lambda: write_pages(mountpoint)) for _ in range(3)]
        found["100,000 writes of 4 KiB, seconds"] = min(writing)
    finally:
        subprocess.run([INOPT, "umount", str(mountpoint)], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", str(source / "untarred")], check=True)
    return found


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory(prefix="inopt-bench-", dir="/var/tmp") as name:
        place = Path(name)
        (place / "mount").mkdir()
        fill(place / "source" / "tree")
        (place / "source" / "pages").write_bytes(bytes(16_384 * 4096))
        archive = place / "archive.tar"
        with tarfile.open(archive, "w") as tar:
            for number in range(3000):
                file = place / "source" / "tree" / f"dir{number // 100}" / f"file{number}"
                tar.add(file, f"{number % 30}/file{number}")
        results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, found in results.items():
                found.append(one_round(place, way, archive))
    print("| | " + " | ".join(results) + " |")
    print("|---|" + "--:|" * len(results))
    for what in results["timeout"][0]:
        medians = [statistics.median(each[what] for each in found) for found in results.values()]
        print(f"| {what} | " + " | ".join(f"{value:,.3g}" for value in medians) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
