"""What a run says: ratios of speeds within each round, and whether the goals are reached."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from bench.layers.contenders import FUSE, KERNEL, OURS, OURS_VOLATILE
from bench.layers.workloads import COPIES, RATE, READS, Step
from bench.measure.goals import Verdict

OF_KERNEL = 0.9  # how much of the kernel's speed bypassed reads are to have
OF_FUSE = 1.0  # and all else of fuse-overlayfs's

Rounds = dict[str, dict[int, float]]
"""What was measured of one step, by contender and round."""


def ratio(step: Step, rounds: Rounds, one: str, other: str) -> float | None:
    """How many times as fast *one* is as *other*; None if no round has both."""
    mine, theirs = rounds.get(one, {}), rounds.get(other, {})
    found = [
        mine[number] / theirs[number] if step.unit == RATE else theirs[number] / mine[number]
        for number in mine.keys() & theirs.keys()
    ]
    return median(found) if found else None


def middle(rounds: Rounds, name: str) -> float | None:
    """The median of what was measured."""
    return median(rounds[name].values()) if rounds.get(name) else None


def judge(steps: Iterable[Step], samples: dict[str, Rounds]) -> list[Verdict]:
    """A verdict for each goal that there are numbers for."""
    verdicts = []
    for step in steps:
        other, wanted = (KERNEL, OF_KERNEL) if step in READS else (FUSE, OF_FUSE)
        # fuse-overlayfs does not bring what it copies up to stable storage.
        ours = OURS_VOLATILE if step in COPIES else OURS
        reached = ratio(step, samples[step.name], ours, other)
        if reached is not None:
            goal = f"{step.title}, {ours} ÷ {other}"
            verdicts.append(Verdict(goal, reached, f"≥ {wanted:g}", reached >= wanted))
    return verdicts
