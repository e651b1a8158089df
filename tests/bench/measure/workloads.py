"""What is done to each contender, as a rate: more is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.measure.programs import BenchError, Placement, on, run, timed
from bench.measure.scratch import Scratch

Measure = Callable[[Scratch, Path, Placement], float]
_FIO_WARM_UP = 0.5  # seconds, so that the page cache of a contender that has one is warm


@dataclass(frozen=True)
class Workload:
    """A name to choose it by, what it counts per second, and how to measure it in a directory."""

    name: str
    unit: str
    measure: Measure


def _client(mode: str, scratch: Scratch, root: Path, argument: str, placement: Placement) -> float:
    command = [*scratch.client, mode, str(root), argument]
    count, seconds = run(on(placement.client, command)).split()
    if not int(count):
        raise BenchError(f"client {mode}: found nothing in {root}")
    return int(count) / float(seconds)


def _stat(scratch: Scratch, root: Path, placement: Placement) -> float:
    return _client("stat", scratch, root, str(scratch.names), placement)


def _open(scratch: Scratch, root: Path, placement: Placement) -> float:
    return _client("open", scratch, root, str(scratch.opened), placement)


def _walk(scratch: Scratch, root: Path, placement: Placement) -> float:
    return _client("walk", scratch, root, "-", placement)


def _create(scratch: Scratch, root: Path, placement: Placement) -> float:
    return _client("create", scratch, root, str(scratch.sizes.created), placement)


def _list(scratch: Scratch, root: Path, placement: Placement) -> float:
    return scratch.sizes.files / timed(on(placement.client, ["ls", "-lR", str(root / "many")]))


def _untar(scratch: Scratch, root: Path, placement: Placement) -> float:
    command = ["tar", "-xf", str(scratch.archive), "-C", str(root / "untarred")]
    return scratch.sizes.archived / timed(on(placement.client, command))


def _fio(kind: str, block: str, scratch: Scratch, root: Path, placement: Placement) -> float:
    """Mebibytes a second. ``--invalidate=0``: else fio empties the bare tree's cache only."""
    seconds = scratch.sizes.fio_seconds
    command = [
        "fio",
        "--name=bench",
        f"--filename={root / 'data'}",
        f"--size={scratch.sizes.data_mebibytes}m",
        f"--rw={kind}",
        f"--bs={block}",
        "--ioengine=psync",
        "--invalidate=0",
        "--time_based",
        f"--runtime={int(seconds * 1000)}ms",
        f"--ramp_time={int(_FIO_WARM_UP * 1000)}ms",
        "--norandommap",
        "--randrepeat=0",
        "--fallocate=none",
        "--output-format=json",
    ]
    timed(["cat", str(root / "data")])
    answer = json.loads(run(on(placement.client, command)))
    side = answer["jobs"][0]["read" if "read" in kind else "write"]
    return float(side["bw_bytes"]) / (1 << 20)


WORKLOADS = [
    Workload("stat", "files/s", _stat),
    Workload("open-read-close", "files/s", _open),
    Workload("ls-lR", "files/s", _list),
    Workload("walk", "files/s", _walk),
    Workload("create-unlink", "files/s", _create),
    Workload("untar", "files/s", _untar),
    Workload("random-read-4k", "MiB/s", partial(_fio, "randread", "4k")),
    Workload("random-write-4k", "MiB/s", partial(_fio, "randwrite", "4k")),
    Workload("sequential-read-4k", "MiB/s", partial(_fio, "read", "4k")),
    Workload("sequential-read-1m", "MiB/s", partial(_fio, "read", "1m")),
    Workload("sequential-write-1m", "MiB/s", partial(_fio, "write", "1m")),
]
