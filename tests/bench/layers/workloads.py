"""What is done in each overlay. A scenario has one mount, and one or more steps that are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.lab import workloads as looking
from bench.layers.scratch import Scratch
from bench.measure.programs import BenchError, Placement, on, run, timed

SECONDS = "s"
RATE = "MiB/s"


@dataclass(frozen=True)
class Step:
    """What is measured by one number; in ``RATE`` more is better, in ``SECONDS`` less."""

    name: str
    title: str
    unit: str = SECONDS


Timed = tuple[Step, Callable[[], float]]
Scenario = Callable[[Scratch, Path, Placement], Iterator[Timed]]

READ_LOWER = Step("read-lower", "1 MiB sequential read, lower", RATE)
READ_UPPER = Step("read-upper", "1 MiB sequential read, upper", RATE)
RANDOM_LOWER = Step("random-lower", "4 KiB random read, lower", RATE)
RANDOM_UPPER = Step("random-upper", "4 KiB random read, upper", RATE)
FIND_COLD = Step("find-cold", "find -ls, first pass")
FIND_WARM = Step("find-warm", "find -ls, second pass")
NAMES_COLD = Step("find-names-cold", "find, first pass")
NAMES_WARM = Step("find-names-warm", "find, second pass")
STAT_COLD = Step("stat-cold", "stat storm, first pass")
STAT_WARM = Step("stat-warm", "stat storm, second pass")
STATUS_COLD = Step("status-cold", "git status, first")
STATUS_WARM = Step("status-warm", "git status, second")
UNTAR = Step("untar", "untar")
COMPILE = Step("compile", "make -j2, 100 sources")
REMOVE = Step("remove", "rm -rf, lower directory")
COPY_MANY = Step("copy-up-many", "copy-up, files of 1 MiB")
COPY_LARGE = Step("copy-up-large", "copy-up, one large file")

READS = (READ_LOWER, READ_UPPER, RANDOM_LOWER, RANDOM_UPPER)
COPIES = (COPY_MANY, COPY_LARGE)


def _read(scratch: Scratch, root: Path, mode: str, name: str, placement: Placement) -> float:
    """A fixed amount, not for a fixed time: on a busy machine a short time may pass unused."""
    command = [*scratch.client, mode, str(root), name]
    count, seconds = run(on(placement.client, command)).split()
    return int(count) / (1 << 20) / float(seconds)


def _reading(scratch: Scratch, root: Path, placement: Placement) -> Iterator[Timed]:
    for step, mode, name in (
        (READ_LOWER, "sequential", "lower-data"),
        (READ_UPPER, "sequential", "upper-data"),
        (RANDOM_LOWER, "random", "lower-data"),
        (RANDOM_UPPER, "random", "upper-data"),
    ):
        yield step, partial(_read, scratch, root, mode, name, placement)


def _twice(
    workload: looking.Workload, cold: Step, warm: Step
) -> Callable[[Scratch, Path, Placement], Iterator[Timed]]:
    """The same in a mount that is new, and again."""

    def scenario(scratch: Scratch, root: Path, _placement: Placement) -> Iterator[Timed]:
        for step in (cold, warm):
            tree = scratch.tree
            yield step, partial(workload.measure, tree, root / tree.name)

    return scenario


def _untar(scratch: Scratch, root: Path, placement: Placement) -> Iterator[Timed]:
    command = ["tar", "-xf", str(scratch.archive), "-C", str(root / "untarred")]
    yield UNTAR, partial(timed, on(placement.client, command))


def _compile(_scratch: Scratch, root: Path, placement: Placement) -> Iterator[Timed]:
    command = ["make", "-s", "-j2", "-C", str(root / "project")]
    yield COMPILE, partial(timed, on(placement.client, command))


def _remove(_scratch: Scratch, root: Path, placement: Placement) -> Iterator[Timed]:
    yield REMOVE, partial(timed, on(placement.client, ["rm", "-rf", str(root / "removed")]))
    if (root / "removed").exists():
        raise BenchError("rm -rf has left the directory")


def _append(scratch: Scratch, names: Path, root: Path, placement: Placement) -> float:
    command = [*scratch.client, "append", str(root), str(names)]
    return float(run(on(placement.client, command)).split()[1])


def _copy_many(scratch: Scratch, root: Path, placement: Placement) -> Iterator[Timed]:
    yield COPY_MANY, partial(_append, scratch, scratch.copied, root, placement)


def _copy_large(scratch: Scratch, root: Path, placement: Placement) -> Iterator[Timed]:
    scratch.use_memory()
    yield COPY_LARGE, partial(_append, scratch, scratch.large, root, placement)
    if (scratch.upper / "large").stat().st_size != (scratch.lower / "large").stat().st_size + 1:
        raise BenchError("the copy is not as large as it must be")


_BY_NAME = {workload.name: workload for workload in looking.WORKLOADS}

SCENARIOS: dict[tuple[Step, ...], Scenario] = {
    READS: _reading,
    (FIND_COLD, FIND_WARM): _twice(_BY_NAME["find"], FIND_COLD, FIND_WARM),
    (NAMES_COLD, NAMES_WARM): _twice(_BY_NAME["find-names"], NAMES_COLD, NAMES_WARM),
    (STAT_COLD, STAT_WARM): _twice(_BY_NAME["stat-deep"], STAT_COLD, STAT_WARM),
    (STATUS_COLD, STATUS_WARM): _twice(_BY_NAME["git-status"], STATUS_COLD, STATUS_WARM),
    (UNTAR,): _untar,
    (COMPILE,): _compile,
    (REMOVE,): _remove,
    (COPY_MANY,): _copy_many,
    (COPY_LARGE,): _copy_large,
}
"""By the steps that each has."""

STEPS = [step for steps in SCENARIOS for step in steps]
