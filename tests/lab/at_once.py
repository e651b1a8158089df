"""Runs inside the lab: what the kernel answers by itself is right at once, whatever is cached.

python at_once.py    exit code 1 and a line if attributes of the backing file are not those told
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from inopt.session import asking, places

SCRATCH = Path(os.environ.get("LAB_SCRATCH", "/lab"))
INOPT = [sys.executable, "-m", "inopt"]


def facts(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return (
        status.st_mode, status.st_ino, status.st_nlink, status.st_uid, status.st_size,
        status.st_mtime_ns, status.st_ctime_ns, status.st_blocks,
    )  # fmt: skip


def main() -> int:
    back, mountpoint = SCRATCH / "back", SCRATCH / "mnt"
    policy = SCRATCH / "policy.yaml"
    for directory in (back, mountpoint, back / "dir"):
        directory.mkdir()
    policy.write_text("version: 1\ncache: {entry: 1h, attributes: 1h}\n")
    file, folder = back / "dir" / "file", back / "dir"
    file.write_text("before")
    subprocess.run([*INOPT, "mount", str(policy), str(back), str(mountpoint)], check=True)
    above = mountpoint / "dir" / "file"
    control = places.control_path(os.minor(mountpoint.stat().st_dev))
    differing = []
    facts(above)
    before = asking.ask(control, "stats", 60)
    for what, change in (
        ("mode", lambda: file.chmod(0o611)),
        ("owner", lambda: os.chown(file, 5, 6)),
        ("size", lambda: file.write_text("after that" * 1000)),
        ("times", lambda: os.utime(file, (5, 7))),
        ("links", lambda: os.link(file, folder / "another")),
        ("entries", (folder / "inner").mkdir),
    ):
        change()
        seen = (facts(above), facts(above.parent)), (facts(file), facts(folder))
        if seen[0] != seen[1]:
            differing.append((what, *seen))
    after = asking.ask(control, "stats", 60)
    asked = sum(after[name]["daemon"] - before[name]["daemon"] for name in ("GETATTR", "STATX"))
    subprocess.run([*INOPT, "umount", str(mountpoint)], check=True)
    if differing:
        print("differs:", differing[0])
        return 1
    # And names, and what the daemon answers for, when the times are over.
    subprocess.run(
        [*INOPT, "mount", "mirror", str(back), str(mountpoint), "--tier", "none"], check=True
    )
    facts(above)
    file.chmod(0o600)
    (folder / "another").rename(folder / "renamed")
    time.sleep(1.1)
    seen_late = facts(above) == facts(file) and (above.parent / "renamed").exists()
    seen_late = seen_late and not (above.parent / "another").exists()
    subprocess.run([*INOPT, "umount", str(mountpoint)], check=True)
    print(json.dumps({"tier": before["tier"], "asked": asked, "seen_late": seen_late}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
