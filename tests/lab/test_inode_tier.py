"""Tier inode on the kernel that has it: what it serves alone, and that nobody can tell.

A part of the batteries of `tests/host` runs there, since the machine is emulated; all of them in
`test_all_batteries.py`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from lab.booting import PATIENCE, ROOM, Boot, Boots, with_pytest
from lab.bypassed import LOOKS
from support.sizing import STRESS

pytestmark = [pytest.mark.lab, pytest.mark.timeout(PATIENCE + 120)]

# Never asked for by a kernel that serves them from the backing inode.
SILENT: Final = ("SETATTR", "READ", "WRITE", "READDIR", "READDIRPLUS", "STATX")


def booting(abi: str, *command: str) -> Boot:
    return Boot(abi, command, ROOM, late=abi == "ino1")


COUNT: Final = 5000 if STRESS else 400
BYPASSED: Final = {abi: booting(abi, "-m", "lab.bypassed", str(COUNT)) for abi in ("ino2", "ino1")}
LASTING: Final = (200_000, 60) if STRESS else (300, 6)
# Beside what `test_kernels.py` runs on every kernel.
BATTERY: Final = with_pytest("ino2", "test_battery_owners.py", tier="inode")


def answer_of(output: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    "abi", [pytest.param(abi, marks=pytest.mark.boot(boot)) for abi, boot in BYPASSED.items()]
)
def test_nothing_but_names_and_opens_reaches_the_daemon(printed: str, abi: str) -> None:
    answer = answer_of(printed)
    stats, served, requests = answer["stats"], answer["served"], answer["requests"]
    assert stats["tier"] == "inode"
    assert stats["attached_inodes"] >= COUNT
    for name in SILENT:
        assert stats[name]["daemon"] == 0, name
        assert requests.get(name, 0) == 0, f"{name}, by the kernel's account"
    # The root has no entry that anything could be attached by.
    assert stats["GETATTR"]["daemon"] < 100
    assert served["getattr"] > 4 * COUNT
    assert served["setattr"] >= 4 * COUNT  # chmod twice, chown, touch
    for name in ("readdir", "read", "write", "mmap"):
        assert served[name] > 0, name
    assert served["reject"] == 0
    if abi == "ino1":
        assert stats["OPEN"]["daemon"] == 0
        assert served["open"] >= COUNT
    assert answer["left"] <= 1, "what is forgotten is given back; the root's listing stays"
    assert "getattr" in answer["live"]["paths"][0]["live"]["attached"]
    cached = answer["cached"]
    assert cached["different"] == [], "what was changed through the mount shows"
    assert cached["served"]["getattr"] == LOOKS, "of the files, not of the directories above them"
    assert not any(cached["requests"].values())


@pytest.mark.boot(booting("ino2", "-m", "lab.lasting", *map(str, LASTING)))
def test_what_is_attached_is_given_back(printed: str) -> None:
    """Also when the daemon is killed; and whatever comes and goes meanwhile, nobody meets EIO."""
    answer = answer_of(printed)
    count = LASTING[0]
    evicted = answer["evicted"]
    assert evicted["first"] >= count
    assert evicted["second"] >= count
    assert evicted["known"] == 1
    assert evicted["attach"] == evicted["detach"] >= 2 * count
    assert answer["killed"] == {"attached": 100, "read": "data", "size": 4}
    numbered = answer["numbered"]
    assert (numbered["top_bits"], numbered["alike"]) == ([1, 1], True)
    assert numbered["file"] == ["0o100640", 8, "data"]
    assert numbered["attached"] >= 2
    assert numbered["served"]["setattr"] == numbered["served"]["write"] == 1
    assert numbered["served"]["reject"] == 0
    for storm in ("reused", "bordered"):
        assert answer[storm]["unexpected"] == []
        assert answer[storm]["reject"] == 0, "the kernel refused an entry"
    assert {"EXDEV", "EACCES"} <= set(answer["bordered"]["met"])
    assert answer["bordered"]["broken"] == [], "chmod by names that may not"
    assert answer["complaints"] == []


@pytest.mark.boot(BATTERY)
def test_owners(boots: Boots) -> None:
    """The same operations on the bare tree and through the mount; see `support.battery`."""
    boots.output_of(BATTERY)
