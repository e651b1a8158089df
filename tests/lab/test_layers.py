"""Layers on the kernel that has tier inode: what it serves alone, and that nobody can tell."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from lab.booting import PATIENCE, Boot
from support.sizing import STRESS

pytestmark = [pytest.mark.lab, pytest.mark.timeout(PATIENCE + 120)]

COUNT: Final = 100 if STRESS else 5
SEQUENCES: Final = 48 if STRESS else 4
# Of files that are not copied up; listings know numbers that the layers do not.
SILENT: Final = ("SETATTR", "STATX", "READDIRPLUS")
BOOTED: Final = Boot("ino2", ("-m", "lab.layered", str(COUNT), str(SEQUENCES)), late=True)


@pytest.mark.boot(BOOTED)
def test_layers(printed: str) -> None:
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    assert found["different"] == [], "from the kernel's own overlayfs"
    upper, lowers = found["upper"], found["lowers"]
    for view in (upper, lowers):
        assert view["tier"] == "inode"
        assert view["served"]["reject"] == 0
        assert view["served"]["readdir"] == 0
        for name in SILENT:
            assert view["requests"].get(name, 0) == 0, name
        # Of the mount's root, and of what is copied up.
        assert view["requests"].get("GETATTR", 0) < 10
    assert set(upper["attached"]) == set(upper["attached_new"]) >= {"getattr", "setattr"}
    assert upper["attached_low"] == [], "it may be copied up"
    assert upper["served"]["setattr"] >= 8 * COUNT
    # The one that is copied up keeps the number that it had in the lower layer.
    assert (upper["requests"]["READ"], upper["requests"]["WRITE"]) == (1, 1)
    assert upper["complaints"], "that it is not given to the kernel is told"
    assert all("or copied up" in line for line in upper["complaints"])
    assert "getattr" in lowers["attached"]
    assert "setattr" not in lowers["attached"]
    assert lowers["attached_both"] == []
    assert lowers["complaints"] == []
    assert lowers["served"]["read"] >= 2 * COUNT
    assert lowers["served"]["getattr"] >= 2 * COUNT
    assert "READ" not in lowers["requests"]
