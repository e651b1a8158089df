"""Runs inside the lab: what the kernel answers by itself is right at once, whatever is cached.

python -m lab.at_once    exit code 1 and a line if attributes of the backing file are not those told
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from lab.within import BACK, MOUNT, begin, command, mount_by, stats, umount


def facts(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return (
        status.st_mode, status.st_ino, status.st_nlink, status.st_uid, status.st_size,
        status.st_mtime_ns, status.st_ctime_ns, status.st_blocks,
    )  # fmt: skip


def main() -> int:
    begin()
    for directory in (BACK, MOUNT, BACK / "dir"):
        directory.mkdir()
    file, folder = BACK / "dir" / "file", BACK / "dir"
    file.write_text("before")
    mount_by("cache: {entry: 1h, attributes: 1h}")
    above = MOUNT / "dir" / "file"
    differing = []
    facts(above)
    before = stats(MOUNT)
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
    after = stats(MOUNT)
    asked = sum(after[name]["daemon"] - before[name]["daemon"] for name in ("GETATTR", "STATX"))
    umount()
    if differing:
        print("differs:", differing[0])
        return 1
    # And names, and what the daemon answers for, when the times are over.
    command("mount", "mirror", BACK, MOUNT, "--tier", "none")
    facts(above)
    file.chmod(0o600)
    (folder / "another").rename(folder / "renamed")
    time.sleep(1.1)
    seen_late = facts(above) == facts(file) and (above.parent / "renamed").exists()
    seen_late = seen_late and not (above.parent / "another").exists()
    umount()
    print(json.dumps({"tier": before["tier"], "asked": asked, "seen_late": seen_late}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
