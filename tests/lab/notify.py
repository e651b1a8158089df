"""Runs inside the lab: changes underneath under ``coherence: notify``, also more than can be held.

python -m lab.notify [subvolume]    prints what ``inopt stats`` says, or a line and exit code 1
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab.within import BACK, MOUNT, SCRATCH, begin, mount_by, stats, umount

QUEUED = 300  # events; a flood of more takes too long here
PATIENCE = 10.0  # seconds: the processor is emulated


def wait(what: str, check: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > PATIENCE:
            print(f"not seen: {what}")
            sys.exit(1)
        time.sleep(0.002)
    return time.monotonic() - began


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def main() -> int:
    begin()
    if len(sys.argv) > 1:
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(BACK)], check=True)
    BACK.mkdir(exist_ok=True)
    MOUNT.mkdir()
    for interface in ("fanotify", "inotify"):
        Path(f"/proc/sys/fs/{interface}/max_queued_events").write_text(str(QUEUED))
    (BACK / "dir").mkdir()
    for name in ("file", "gone", "old"):
        (BACK / "dir" / name).write_text(name)
    mount_by("cache: {coherence: notify}")
    above = MOUNT / "dir"

    def look() -> None:
        for name in ("file", "gone", "old", "new"):
            (above / name).exists()

    for _ in range(2):
        look()
    time.sleep(1.5)
    look()
    asked = stats(MOUNT)
    time.sleep(1.5)
    look()
    told = stats(MOUNT)
    for name in ("GETATTR", "LOOKUP"):
        more = told[name]["daemon"] - asked[name]["daemon"]
        if more > 1:  # the name that is not there
            print(f"not believed: {more} more {name}")
            return 1
    taken = []
    (BACK / "dir" / "file").chmod(0o611)
    taken.append(wait("mode", lambda: mode(above / "file") == 0o611))
    (BACK / "dir" / "file").write_text("longer")
    taken.append(wait("size", lambda: (above / "file").stat().st_size == 6))
    (BACK / "dir" / "gone").unlink()
    taken.append(wait("gone", lambda: not (above / "gone").exists()))
    (BACK / "dir" / "old").rename(BACK / "dir" / "new")
    taken.append(wait("renamed", (above / "new").exists))
    taken.append(wait("renamed", lambda: not (above / "old").exists()))
    look()
    pid = told["pid"]
    os.kill(pid, signal.SIGSTOP)
    for number in range(QUEUED + 100):
        os.close(os.open(BACK / "dir" / f"flood{number}", os.O_CREAT | os.O_WRONLY))
    (BACK / "dir" / "file").chmod(0o600)
    (BACK / "dir" / "new").unlink()
    os.kill(pid, signal.SIGCONT)
    wait("overflow", lambda: stats(MOUNT)["watch_overflows"] > 0)
    wait("mode after overflow", lambda: mode(above / "file") == 0o600)
    wait("gone after overflow", lambda: not (above / "new").exists())
    answer = stats(MOUNT)
    names = ("tier", "dialect", "protocol", "coherence", "watch_overflows")
    report = {name: answer[name] for name in names} | {"taken": sorted(taken)}
    umount()
    # Nothing may be watched or pinned any more.
    subprocess.run(["umount", str(SCRATCH)], check=True)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
