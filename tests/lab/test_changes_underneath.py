"""Changes underneath on other kernels: told of (`notify.py`), or right by itself (`at_once.py`)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.booting import PATIENCE, Boot
from support.sizing import STRESS

pytestmark = [pytest.mark.lab, pytest.mark.timeout(PATIENCE + 120)]


def booting(abi: str, kind: str, program: str, *arguments: str, append: str = "") -> Boot:
    """Run a program of this folder, its backing tree on a filesystem of that *kind*."""
    options = ("--append", append) if append else ()
    return Boot(
        abi, ("-m", f"lab.{program}", *arguments), options, kind=kind, late=abi == "mainline"
    )


def answer_in(output: str) -> dict[str, Any]:
    """What a program says at its end."""
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


def notified(output: str) -> dict[str, Any]:
    """What was seen of changes that the kernel was told of."""
    answer = answer_in(output)
    assert answer["watch_overflows"] == 1
    return answer


def on_each(abi: str, program: str, *kinds: str) -> pytest.MarkDecorator:
    """A test for each kind of filesystem; for the first alone in the usual run."""
    cases = [
        pytest.param(kind, marks=pytest.mark.boot(booting(abi, kind, program)))
        for kind in (kinds if STRESS else kinds[:1])
    ]
    return pytest.mark.parametrize("kind", cases)


@on_each("mainline", "notify", "xfs", "btrfs")
def test_other_filesystems(printed: str, kind: str) -> None:
    answer = notified(printed)
    assert (answer["coherence"], answer["tier"]) == ("fanotify", "rw"), kind


@pytest.mark.boot(booting("mainline", "btrfs", "notify", "subvolume"))
def test_a_subvolume(printed: str) -> None:
    """It cannot be watched as a whole."""
    assert notified(printed)["coherence"] == "inotify"


@pytest.mark.boot(booting("mainline", "ext4", "notify", append="fuse.lab_minor=43"))
def test_a_kernel_without_epochs(printed: str) -> None:
    """Before 7.44, names are made stale one by one."""
    answer = notified(printed)
    assert (answer["coherence"], answer["protocol"]) == ("fanotify", "7.43")


@pytest.mark.boot(booting("ino2", "ext4", "notify"))
def test_the_inode_tier(printed: str) -> None:
    """There the kernel answers for attributes by itself; names are still told of."""
    answer = notified(printed)
    assert (answer["coherence"], answer["tier"]) == ("fanotify", "inode")


@on_each("ino2", "at_once", "ext4", "xfs")
def test_what_the_kernel_answers_by_itself(printed: str, kind: str) -> None:
    """It does not matter for how long it may believe what it was told."""
    assert answer_in(printed) == {"tier": "inode", "asked": 0, "seen_late": True}, kind
