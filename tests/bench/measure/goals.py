"""What the project wants of its speed, and whether a run reached it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.measure.contenders import BARE, BINDFS, INOPT_RW, PASSTHROUGHFS
from bench.measure.daemon import IDLE, MEMORY


@dataclass(frozen=True)
class Goal:
    """inopt (tier rw) does *workload* at *factor* times the rate of *reference*, or better."""

    workload: str
    reference: str
    factor: float


@dataclass(frozen=True)
class Limit:
    """A measurement of the daemon that must not be above *most*."""

    name: str
    most: float
    unit: str


GOALS = [
    Goal("random-read-4k", BARE, 0.90),
    Goal("random-write-4k", BARE, 0.90),
    Goal("sequential-read-1m", BARE, 0.90),
    Goal("sequential-write-1m", BARE, 0.90),
    Goal("sequential-read-4k", BARE, 0.75),
    Goal("stat", PASSTHROUGHFS, 3.0),
    Goal("stat", BINDFS, 0.8),
    Goal("open-read-close", PASSTHROUGHFS, 2.0),
    Goal("ls-lR", PASSTHROUGHFS, 3.0),
]
LIMITS = [
    Limit(MEMORY, 800, "bytes per known inode"),
    Limit(IDLE, 0, "ticks while idle"),
]

Rates = dict[str, dict[str, float]]
"""By workload and contender."""


@dataclass(frozen=True)
class Verdict:
    """A goal or limit, what was reached, and whether that is enough."""

    goal: str
    reached: float
    wanted: str
    good: bool


def judge(rates: Rates, daemon: dict[str, float]) -> list[Verdict]:
    """A verdict for each goal and limit that the run has the numbers of."""
    verdicts = []
    for goal in GOALS:
        row = rates.get(goal.workload, {})
        if INOPT_RW in row and row.get(goal.reference):
            ratio = row[INOPT_RW] / row[goal.reference]
            name = f"{goal.workload}, {INOPT_RW} ÷ {goal.reference}"
            verdicts.append(Verdict(name, ratio, f"≥ {goal.factor:.2f}", ratio >= goal.factor))
    for limit in LIMITS:
        if limit.name in daemon:
            value = daemon[limit.name]
            name = f"{limit.name}, {limit.unit}"
            verdicts.append(Verdict(name, value, f"≤ {limit.most:g}", value <= limit.most))
    return verdicts
