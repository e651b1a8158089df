"""Changes underneath on other kernels: told of (`notify.py`), or right by itself (`at_once.py`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

PACKAGES: Final = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
HERE: Final = Path(__file__).parent
# Each boot takes most of a minute.
EVERYTHING: Final = bool(os.environ.get("INOPT_LAB_ALL"))


def seen_in_lab(
    lab: Path, abi: str, kind: str, program: str, *arguments: str, append: str = ""
) -> dict[str, Any]:
    """What a program in the lab says at its end."""
    if shutil.which(f"mkfs.{kind}") is None:
        reason = f"mkfs.{kind} is missing: install {PACKAGES[kind]}"
        print(f"lab test skipped: {reason}")
        pytest.skip(reason)
    options = ["--abi", abi, "--fs", kind, "--cpus", "1", "--timeout", "300"]
    if append:
        options += ["--append", append]
    done = subprocess.run(
        [str(lab), *options, "--", sys.executable, str(HERE / program), *arguments],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def notified(lab: Path, abi: str, kind: str, *arguments: str, append: str = "") -> dict[str, Any]:
    """What was seen of changes that the kernel was told of."""
    answer = seen_in_lab(lab, abi, kind, "notify.py", *arguments, append=append)
    assert answer["watch_overflows"] == 1
    return answer


@pytest.mark.parametrize("kind", ["xfs", "btrfs"] if EVERYTHING else ["xfs"])
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


@pytest.mark.parametrize("kind", ["ext4", "xfs"] if EVERYTHING else ["ext4"])
def test_what_the_kernel_answers_by_itself(lab: Path, kind: str) -> None:
    """It does not matter for how long it may believe what it was told."""
    answer = seen_in_lab(lab, "ino2", kind, "at_once.py")
    assert answer == {"tier": "inode", "asked": 0, "seen_late": True}
