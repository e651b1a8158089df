"""``coherence: notify`` on other filesystems, protocols and dialects: see `notify.py`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

PACKAGES: Final = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
HERE: Final = Path(__file__).parent


def notified(lab: Path, abi: str, kind: str, *arguments: str, append: str = "") -> dict[str, Any]:
    """What the program in the lab has seen."""
    if shutil.which(f"mkfs.{kind}") is None:
        reason = f"mkfs.{kind} is missing: install {PACKAGES[kind]}"
        print(f"lab test skipped: {reason}")
        pytest.skip(reason)
    options = ["--abi", abi, "--fs", kind, "--cpus", "1", "--timeout", "300"]
    if append:
        options += ["--append", append]
    done = subprocess.run(
        [str(lab), *options, "--", sys.executable, str(HERE / "notify.py"), *arguments],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["watch_overflows"] == 1
    return answer


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_other_filesystems(lab: Path, kind: str) -> None:
    answer = notified(lab, "mainline", kind)
    assert (answer["coherence"], answer["tier"]) == ("fanotify", "rw")


def test_a_subvolume(lab: Path) -> None:
    """It cannot be watched as a whole."""
    answer = notified(lab, "mainline", "btrfs", "subvolume")
    assert answer["coherence"] == "inotify"


def test_a_kernel_without_epochs(lab: Path) -> None:
    """Before 7.44, names are made stale one by one."""
    answer = notified(lab, "mainline", "ext4", append="fuse.lab_minor=43")
    assert (answer["coherence"], answer["protocol"]) == ("fanotify", "7.43")


def test_the_inode_tier(lab: Path) -> None:
    """There the kernel answers for attributes by itself; names are still told of."""
    answer = notified(lab, "ino2", "ext4")
    assert (answer["coherence"], answer["tier"]) == ("fanotify", "inode")
