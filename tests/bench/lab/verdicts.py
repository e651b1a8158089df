"""What a run in the lab says: each tier beside the bare tree, and whether the goals are reached."""

from __future__ import annotations

from bench.measure.goals import Verdict

BARE = "bare"
BARE_FEW = "bare, few"
INODE = "inode"
CACHED = "inode, cached"
# What the policy has for that, instead of attributes that are never believed.
CHANGE = "attributes: 0s", "attributes: 1s, directory_attributes: cached"
RW = "rw"
NONE = "none"

# Where each request goes to Python, a file takes hundreds of times as long: a part of the files
# will do, beside a bare tree of as many. What a program takes to start weighs more then, which is
# to the advantage of the slower tiers.
REFERENCE = {INODE: BARE, CACHED: BARE, RW: BARE_FEW, NONE: BARE_FEW}
SHARE = 10

# How much of the bare tree's speed tier inode is to have; and how many times that of tier none. The
# system call alone, asked for from C, has no goal: what is slower there is the kernel's own path.
WANTED = {"stat": 0.6, "find": 0.5, "git-status": 0.6, "chmod": 0.5}
TIMES_NONE = 10.0

Seconds = dict[str, dict[str, list[float]]]
"""What each pass took, by workload and contender."""

Speeds = dict[str, dict[str, float]]
"""By workload and tier: the speed, where that of the bare tree is 1."""


def relative(seconds: Seconds) -> Speeds:
    """The speeds by the best pass of each: what else the machine does only makes one longer."""
    return {
        workload: {
            tier: min(row[reference]) / min(row[tier])
            for tier, reference in REFERENCE.items()
            if tier in row
        }
        for workload, row in seconds.items()
    }


def judge(speeds: Speeds) -> list[Verdict]:
    """A verdict for each goal that there are numbers for."""
    verdicts = []
    for workload, wanted in WANTED.items():
        row = speeds.get(workload, {})
        verdicts += [
            _verdict(f"{workload}, {tier} ÷ bare", row[tier], wanted)
            for tier in (INODE, CACHED)
            if tier in row
        ]
        if INODE in row and NONE in row:
            ratio = row[INODE] / row[NONE]
            verdicts.append(_verdict(f"{workload}, inode ÷ none", ratio, TIMES_NONE))
    return verdicts


def _verdict(goal: str, reached: float, wanted: float) -> Verdict:
    return Verdict(goal, reached, f"≥ {wanted:g}", reached >= wanted)
