"""The command line of the benches, and the order in which things are measured."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from bench.measure import daemon, report
from bench.measure.contenders import Contender, contenders, unmount
from bench.measure.goals import judge
from bench.measure.programs import BenchError, Placement
from bench.measure.scratch import Scratch, Sizes
from bench.measure.workloads import WORKLOADS, Workload
from rich.console import Console

DAEMON = {daemon.MEMORY: daemon.bytes_per_inode, daemon.IDLE: daemon.idle_ticks}


def arguments() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS] + list(DAEMON)
    parser = argparse.ArgumentParser(
        description="How fast inopt is, beside the bare tree and its peers."
    )
    report.add_files(parser, svg=False)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=names,
                        help="only these workloads: " + ", ".join(names))  # fmt: skip
    parser.add_argument("--contenders", nargs="+", metavar="NAME", default=[],
                        help="only these, by the names of the table")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small and inexact")
    parser.add_argument("--rounds", type=int, default=0, help="3 by default, 1 with --quick")
    parser.add_argument("--placement", choices=("free", "same", "split"), default="free",
                        help="processors of server and client: the scheduler's choice, the same"
                             " one, or one each")  # fmt: skip
    return parser.parse_args()


def measure_round(
    scratch: Scratch,
    chosen: list[Workload],
    found: list[Contender],
    placement: Placement,
    samples: report.Samples,
    console: Console,
) -> None:
    """Every workload once on every contender."""
    for workload in chosen:
        for contender in found:
            scratch.clean()
            try:
                with contender.mounted(scratch.source, scratch.mountpoint, placement) as root:
                    value = workload.measure(scratch, root, placement)
            except BenchError as error:
                console.print(f"{workload.name}, {contender.name}: {error}", style="red")
                continue
            samples[workload.name].setdefault(contender.name, []).append(value)
            console.print(f"{workload.name:20} {contender.name:17} {value:12,.0f} {workload.unit}")


def bench(options: argparse.Namespace, top: Path, console: Console) -> dict[str, Any]:
    """Measure everything that was asked for; what there is is reported even if interrupted."""
    chosen = [workload for workload in WORKLOADS if workload.name in options.only]
    found, missing = contenders(options.contenders) if chosen else ([], {})
    for name, reason in missing.items():
        console.print(f"without {name}: {reason}", style="yellow")
    placement = Placement.named(options.placement)
    sizes = Sizes.quick() if options.quick else Sizes()
    rounds = options.rounds or (1 if options.quick else 3)
    samples: report.Samples = {workload.name: {} for workload in chosen}
    costs: dict[str, float] = {}
    before = report.machine()
    interrupted = False
    scratch = Scratch(top, sizes)
    try:
        for number in range(rounds):
            first = number % max(len(found), 1)
            turned = found[first:] + found[:first]
            measure_round(scratch, chosen, turned, placement, samples, console)
        for name, measure in DAEMON.items():
            if name in options.only:
                costs[name] = measure(scratch, placement)
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted: this is what there is", style="red")
    finally:
        unmount(scratch.mountpoint, ["umount", str(scratch.mountpoint)])
    units = {workload.name: workload.unit for workload in chosen}
    rates = report.summarise(samples, units)
    verdicts = judge(rates, costs)
    report.show(console, rates, units, [contender.name for contender in found])
    report.show_verdicts(console, verdicts)
    return {
        "machine": before,
        "interrupted": interrupted,
        "placement": placement.name,
        "rounds": rounds,
        "sizes": asdict(sizes),
        "missing": missing,
        "units": units,
        "rates": rates,
        "samples": samples,
        "daemon": costs,
        "goals": [asdict(verdict) for verdict in verdicts],
    }


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = arguments()
    if os.geteuid():
        print("the benches mount filesystems: run them as root", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(width=None if sys.stdout.isatty() else 170)
    with tempfile.TemporaryDirectory(prefix="inopt-bench-", dir="/var/tmp") as top:
        facts = bench(options, Path(top).resolve(), console)
    if options.json:
        report.save(options.json, facts)
    return 130 if facts["interrupted"] else 0
