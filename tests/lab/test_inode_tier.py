"""Tier inode on the kernel that has it: what it serves alone, and that nobody can tell.

By default a part of the batteries of `tests/host` runs there, since the machine is emulated; all of
them with ``INOPT_LAB_ALL=1``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent

EVERYTHING: Final = bool(os.environ.get("INOPT_LAB_ALL"))

# Never asked for by a kernel that serves them from the backing inode.
SILENT: Final = ("SETATTR", "READ", "WRITE", "READDIR", "READDIRPLUS", "STATX")
# Beside what `test_kernels.py` runs on every kernel.
SOME: Final = {
    "ino2": ("test_battery_owners.py",),
}
ALL: Final = tuple(sorted(path.name for path in (HERE.parent / "host").glob("test_battery_*.py")))


def in_lab(lab: Path, abi: str, *command: str, **environment: str) -> str:
    """What *command* printed on a kernel of this ABI."""
    done = subprocess.run(
        [str(lab), "--abi", abi, "--cpus", "1", "--mem", "3072", "--disk", "3000",
         "--timeout", "1400", "--", sys.executable, *command],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1450,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def answer_of(output: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


@pytest.mark.parametrize("abi", ["ino2", "ino1"])
def test_nothing_but_names_and_opens_reaches_the_daemon(lab: Path, abi: str) -> None:
    count = 5000 if EVERYTHING else 400
    answer = answer_of(in_lab(lab, abi, str(HERE / "bypassed.py"), str(count)))
    stats, served, requests = answer["stats"], answer["served"], answer["requests"]
    assert stats["tier"] == "inode"
    assert stats["attached_inodes"] >= count
    for name in SILENT:
        assert stats[name]["daemon"] == 0, name
        assert requests.get(name, 0) == 0, f"{name}, by the kernel's account"
    # The root has no entry that anything could be attached by.
    assert stats["GETATTR"]["daemon"] < 100
    assert served["getattr"] > 4 * count
    assert served["setattr"] >= 4 * count  # chmod twice, chown, touch
    for name in ("readdir", "read", "write", "mmap"):
        assert served[name] > 0, name
    assert served["reject"] == 0
    if abi == "ino1":
        assert stats["OPEN"]["daemon"] == 0
        assert served["open"] >= count
    assert answer["left"] <= 1, "what is forgotten is given back; the root's listing stays"
    assert "getattr" in answer["live"]["paths"][0]["live"]["attached"]


def test_what_is_attached_is_given_back(lab: Path) -> None:
    """Also when the daemon is killed; and whatever comes and goes meanwhile, nobody meets EIO."""
    count, seconds = (200_000, 60) if EVERYTHING else (300, 6)
    answer = answer_of(in_lab(lab, "ino2", str(HERE / "lasting.py"), str(count), str(seconds)))
    evicted = answer["evicted"]
    assert evicted["first"] >= count
    assert evicted["second"] >= count
    assert evicted["known"] == 1
    assert evicted["attach"] == evicted["detach"] >= 2 * count
    assert answer["killed"] == {"attached": 100, "read": "data", "size": 4}
    for storm in ("reused", "bordered"):
        assert answer[storm]["unexpected"] == []
        assert answer[storm]["reject"] == 0, "the kernel refused an entry"
    assert {"EXDEV", "EACCES"} <= set(answer["bordered"]["met"])
    assert answer["bordered"]["broken"] == [], "chmod by names that may not"
    assert answer["complaints"] == []


@pytest.mark.parametrize("abi", ["ino2", "ino1"] if EVERYTHING else sorted(SOME))
def test_batteries(lab: Path, abi: str) -> None:
    """The same operations on the bare tree and through the mount; see `support.battery`."""
    files = ALL if EVERYTHING else SOME[abi]
    in_lab(
        lab, abi, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--no-header", "--tb=short",
        *(f"tests/host/{name}" for name in files),
        INOPT_TEST_TIERS="inode", INOPT_TEST_SPACE="/lab", INOPT_TEST_SLOWNESS="10",
    )  # fmt: skip
