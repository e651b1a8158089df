"""Runs inside the lab: the same work on a bare tree and on mounts of it, at each tier.

All mounts are there at once, over one tree, and take turns within each workload, so what the
machine does besides meets all of them. Prints what it is doing, and as its last line all times,
and what the kernel counted meanwhile, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.lab.verdicts import BARE, BARE_FEW, CACHED, CHANGE, INODE, REFERENCE, SHARE
from bench.lab.workloads import WARMING, WORKLOADS, Tree, Workload, use_git_alone

from lab.within import SCRATCH, Counters, begin, command

_ENOUGH = 10.0  # seconds: what has taken so many in all is not repeated
_EXPIRED = 1.1  # seconds, after which attributes are not believed that have a second


class Contender(NamedTuple):
    """A way to reach a tree, and the tree that it is measured on."""

    name: str
    tree: Tree
    mountpoint: Path

    @property
    def root(self) -> Path:
        """The tree's own directory, as it is reached."""
        return self.mountpoint / self.tree.name

    @property
    def mounted(self) -> bool:
        """Whether there is a mount between."""
        return self.mountpoint != self.tree.source


@contextmanager
def mounted(trees: dict[str, Tree], policy: str, tiers: list[str]) -> Iterator[list[Contender]]:
    """The trees as they are, and mounted at each of *tiers*."""
    found = [Contender(name, tree, tree.source) for name, tree in trees.items()]
    try:
        for tier in tiers:
            tree = trees[REFERENCE[tier]]
            mountpoint = SCRATCH / tier
            mountpoint.mkdir()
            path = SCRATCH / f"{tier}.yaml"
            path.write_text(policy.replace(*CHANGE) if tier == CACHED else policy)
            level = INODE if tier == CACHED else tier
            command("mount", path, tree.source, mountpoint, "--tier", level)
            found.append(Contender(tier, tree, mountpoint))
        yield found
    finally:
        for contender in found:
            if contender.mounted:
                command("umount", contender.mountpoint)


def warm(contenders: list[Contender]) -> None:
    """The first pass of everything that a kernel caches: names, inodes, git's index."""
    for contender in contenders:
        for workload in WARMING:
            say(workload, contender, workload.measure(contender.tree, contender.root), "first")


def measure(
    workload: Workload, contenders: list[Contender], rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, dict[str, int]]]]:
    """The seconds of each pass by contender, and what was counted during the first of them."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    counted: dict[str, dict[str, dict[str, int]]] = {}
    for _ in range(rounds):
        for contender in contenders:
            if sum(seconds[contender.name]) > _ENOUGH:
                continue
            os.sync()
            time.sleep(_EXPIRED)
            counters = Counters(contender.mountpoint) if contender.mounted else None
            taken = workload.measure(contender.tree, contender.root)
            if counters is not None and contender.name not in counted:
                counted[contender.name] = {
                    kind: {name: count for name, count in counts.items() if count}
                    for kind, counts in counters.since().items()
                }
            seconds[contender.name].append(taken)
            say(workload, contender, taken)
    return seconds, counted


def say(workload: Workload, contender: Contender, seconds: float, *more: str) -> None:
    """Tell whoever waits."""
    print(f"{workload.name:11} {contender.name:13} {seconds:9.3f} s", *more, flush=True)


def processor() -> str:
    """What the kernel takes the processor for; the emulated one says so."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown processor"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", required=True, nargs="+")
    parser.add_argument("--files", required=True, type=int)
    parser.add_argument("--rounds", required=True, type=int)
    parser.add_argument("--tiers", required=True, nargs="*")
    parser.add_argument("--policy", required=True)
    options = parser.parse_args()
    begin()
    use_git_alone()
    source = SCRATCH / "source"
    source.mkdir()
    few = max(options.files // SHARE, 1)
    trees = {
        BARE: Tree(source, "many-files", options.client, options.files),
        BARE_FEW: Tree(source, "few-files", options.client, few),
    }
    for tree in trees.values():
        print(f"making {tree.files} files, and a repository of them", flush=True)
        tree.make()
    seconds: dict[str, dict[str, list[float]]] = {}
    counted: dict[str, Any] = {}
    with mounted(trees, options.policy, options.tiers) as contenders:
        warm(contenders)
        for workload in WORKLOADS:
            seconds[workload.name], counted[workload.name] = measure(
                workload, contenders, options.rounds
            )
    answer = {
        "kernel": platform.release(),
        "processor": processor(),
        "files": {name: tree.files for name, tree in trees.items()},
        "seconds": seconds,
        "counted": counted,
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
