"""A day's work through the overlay: as on a bare copy of the lower layer, and as the kernel has it.

Afterwards the kernel's overlayfs shows the same tree over the same layers, and the tools tell just
what has changed.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from support.kernel_layers import view
from support.layer_changes import expected_changes, told_changes
from support.layer_snapshots import Tree, apart, shown
from support.mounting import in_place, inopt
from support.overlay_work import WORK, Tools, make_tree
from support.overlays import Layers, left_in_work, mounted_by_kernel, mounted_by_us
from support.programs import sh

pytestmark = pytest.mark.host

TIERS: Final = tuple(os.environ.get("INOPT_TEST_TIERS", "none rw").split())
# git notes inode numbers and times there; what it lists is compared instead.
_INDEX: Final = b"/.git/index"


@dataclass(frozen=True)
class Bare:
    """A lower tree, and what the work has made of a bare copy of it."""

    lower: Path
    tools: Tools
    said: dict[str, object]
    tree: Tree


def comparable(tree: Tree) -> Tree:
    """What a mount has in common with a bare tree: no counts of directories' links."""
    for path, entry in tree.items():
        if stat.S_ISDIR(entry["mode"]):
            entry.pop("nlink")
        elif path.endswith(_INDEX):
            entry["bytes"] = entry["size"] = None
    return tree


def work_in(root: Path, tools: Tools) -> dict[str, object]:
    """Do it all; returns what was said."""
    said: dict[str, object] = {}
    for name, work in WORK.items():
        began = time.monotonic()
        said[name] = work(root, tools)
        print(f"{name}: {time.monotonic() - began:.1f} s")
    return said


@pytest.fixture(scope="module")
def bare(host: None) -> Iterator[Bare]:
    with in_place("everyday") as place:
        tools = Tools(place)
        tools.make()
        lower, copy = place / "lower", place / "bare"
        lower.mkdir()
        make_tree(lower, tools)
        sh("cp", "-a", str(lower), str(copy))
        said = work_in(copy, tools)
        yield Bare(lower, tools, said, comparable(shown(copy)))


@pytest.mark.parametrize("tier", TIERS)
def test_a_day(bare: Bare, place: Path, tier: str) -> None:
    layers = Layers.made(place, 1)
    sh("cp", "-a", "--no-target-directory", str(bare.lower), str(layers.lowers[0]))
    before = view(layers.lowers[0])
    with mounted_by_us(layers, place / "mnt", "--tier", tier) as mount:
        said = work_in(mount.path, bare.tools)
        ours = shown(mount.path)
        # On tier inode it is told that what is copied up is not given to the kernel.
        complaints = mount.complaints()
        if tier == "inode":
            complaints = [line for line in complaints if "or copied up" not in line]
        assert complaints == []
    assert said == bare.said
    assert left_in_work(layers) == []
    assert view(layers.lowers[0]) == before, "the lower layer has changed"
    with mounted_by_kernel(layers, place / "kernel") as path:
        assert apart(ours, shown(path), ("ours showed", "the kernel shows")) == []
        after = view(path)
    assert apart(bare.tree, comparable(ours), ("the bare tree has", "ours showed")) == []
    answer = told("diff", layers)
    assert answer["exact"]
    assert told_changes(answer) == expected_changes(before, after)
    assert told("fsck", layers, "--work", str(layers.work))["findings"] == []


def told(tool: str, layers: Layers, *arguments: str) -> dict[str, Any]:
    """What ``inopt overlay`` answers; it finds nothing wrong."""
    lower = str(layers.lowers[0])
    done = inopt("overlay", tool, str(layers.upper), "--lower", lower, "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
