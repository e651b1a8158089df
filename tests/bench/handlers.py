"""What a handler costs: no-op handlers under inopt and stock pyfuse3, and routing without them.

    .venv/bin/python tests/bench/handlers.py [--files N] [--rounds N] [--placement free|same|split]

Each measurement has a fresh mount. ``stat``: lstat(2) of every file with names cached for an hour
and attributes not at all, so that each is one GETATTR; by one client, and by four. ``read``:
open, read and close of every file. Contenders take turns; numbers are medians over the rounds,
in requests (or files) per second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure.contenders import INOPT, is_mounted, unmount
from bench.measure.programs import BenchError, Placement, on
from bench.measure.scratch import compile_client, make_files
from rich.console import Console
from rich.table import Table

_CACHE: Final = "version: 1\ncache: {entry: 1h, attributes: 0s}\n"
_HERE: Final = Path(__file__).resolve().parent


class Contender(NamedTuple):
    """A policy, and how it is mounted."""

    name: str
    policy: str
    arguments: tuple[str, ...] = ()


def _handled(handlers: str, match: str = "") -> str:
    return f"{_CACHE}handlers: handled:{handlers}\nrules: [{{{match}handle: getattr}}]\n"


_ELSEWHERE: Final = "match: {path: /no/such/place/**}, "
_PYFUSE3: Final = ("--transport", "pyfuse3")
CONTENDERS: Final = (
    Contender("inopt, daemon", _CACHE),
    Contender("inopt, handlers for another path", _handled("Async", _ELSEWHERE)),
    Contender("inopt, plain def", _handled("Plain")),
    Contender("inopt, async def", _handled("Async")),
    Contender("pyfuse3, no handler", _CACHE, _PYFUSE3),
    Contender("pyfuse3, plain def", _handled("Plain"), _PYFUSE3),
    Contender("pyfuse3, async def", _handled("Async"), _PYFUSE3),
)
COLUMNS: Final = ("stat, 1 client", "stat, 4 clients", "read, 1 client")
GOALS: Final = (
    ("plain def ÷ pyfuse3", "inopt, plain def", "pyfuse3, plain def", 3.0),
    ("async def ÷ pyfuse3", "inopt, async def", "pyfuse3, async def", 1.5),
    ("routing ÷ none", "inopt, handlers for another path", "inopt, daemon", 0.97),
)


@contextmanager
def mounted(contender: Contender, top: Path, placement: Placement) -> Iterator[Path]:
    policy, mountpoint = top / "policy.yaml", top / "mnt"
    policy.write_text(contender.policy)
    command = [INOPT, "mount", str(policy), str(top / "source"), str(mountpoint)]
    environment = os.environ | {"PYTHONPATH": str(_HERE)}
    done = subprocess.run(
        on(placement.server, [*command, *contender.arguments]),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"{contender.name}: {done.stderr.strip()}")
    try:
        yield mountpoint
    finally:
        unmount(mountpoint, ["umount", str(mountpoint)])
        deadline = time.monotonic() + 10
        while is_mounted(mountpoint) and time.monotonic() < deadline:
            time.sleep(0.05)


def clients(
    client: list[str], mode: str, root: Path, names: Path, count: int, placement: Placement
) -> float:
    """How many operations *count* clients do in a second together."""
    command = on(placement.client, [*client, mode, str(root), str(names)])
    began = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    done = [each.communicate(timeout=600)[0].split() for each in running]
    seconds = time.monotonic() - began
    if any(each.returncode for each in running):
        raise BenchError(f"client {mode} failed")
    if count == 1:
        return float(done[0][0]) / float(done[0][1])
    return sum(float(each[0]) for each in done) / seconds


def measure(
    contender: Contender, top: Path, client: list[str], placement: Placement
) -> dict[str, float]:
    names = top / "names"
    with mounted(contender, top, placement) as root:
        clients(client, "stat", root, names, 1, placement)  # names into the cache
        return {
            COLUMNS[0]: clients(client, "stat", root, names, 1, placement),
            COLUMNS[1]: clients(client, "stat", root, names, 4, placement),
            COLUMNS[2]: clients(client, "open", root, names, 1, placement),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description="What handlers cost.")
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--placement", choices=("free", "same", "split"), default="free")
    options = parser.parse_args()
    if os.geteuid():
        print("the benches mount filesystems: run them as root", file=sys.stderr)
        return 2
    placement = Placement.named(options.placement)
    console = Console(width=None if sys.stdout.isatty() else 120)
    samples: dict[str, dict[str, list[float]]] = {
        each.name: {column: [] for column in COLUMNS} for each in CONTENDERS
    }
    with tempfile.TemporaryDirectory(prefix="inopt-bench-", dir="/var/tmp") as place:
        top = Path(place).resolve()
        (top / "source").mkdir()
        (top / "mnt").mkdir()
        names = make_files(top / "source", options.files, "")
        (top / "names").write_text("".join(f"{name}\n" for name in names))
        client = compile_client(top)
        for number in range(options.rounds):
            turned = CONTENDERS[number % len(CONTENDERS) :] + CONTENDERS[: number % len(CONTENDERS)]
            for contender in turned:
                for column, value in measure(contender, top, client, placement).items():
                    samples[contender.name][column].append(value)
    table = Table(title="requests or files per second")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, columns in samples.items():
        table.add_row(name, *(f"{statistics.median(values):,.0f}" for values in columns.values()))
    console.print(table)
    medians = {
        name: {column: statistics.median(values) for column, values in columns.items()}
        for name, columns in samples.items()
    }
    judged = Table("goal", *COLUMNS, "wanted", title="ratios within this run")
    for name, one, other, wanted in GOALS:
        ratios = [medians[one][column] / medians[other][column] for column in COLUMNS]
        judged.add_row(name, *(f"{ratio:.2f}" for ratio in ratios), f"{wanted:.2f}")
    console.print(judged)
    return 0


if __name__ == "__main__":
    sys.exit(main())
