"""The tables and the JSON of a run."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure.contenders import BARE, PASSTHROUGHFS
from bench.measure.goals import Rates, Verdict
from rich.console import Console
from rich.table import Table

Samples = dict[str, dict[str, list[float]]]
"""All rates measured, by workload and contender, in the order of the rounds."""


def summarise(samples: Samples, units: dict[str, str]) -> Rates:
    """One rate of each: the best for bandwidth, which noise only lowers, else the median."""
    return {
        workload: {
            name: max(values) if units[workload] == "MiB/s" else median(values)
            for name, values in row.items()
        }
        for workload, row in samples.items()
    }


def _ratio(value: float, reference: float | None) -> str:
    return f"{value / reference:.3g}" if reference else "-"


def show(console: Console, rates: Rates, units: dict[str, str], names: list[str]) -> None:
    """Rates, and below each its ratios to the bare tree and to passthroughfs.py."""
    title = f"rate, and its ratio to {BARE} / to {PASSTHROUGHFS}"
    table = Table("workload", *names, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for workload, row in rates.items():
        cells = []
        for name in names:
            value = row.get(name)
            if value is None:
                cells.append("-")
                continue
            ratios = (_ratio(value, row.get(BARE)), _ratio(value, row.get(PASSTHROUGHFS)))
            cells.append(f"{value:,.0f}\n{' / '.join(ratios)}")
        table.add_row(f"{workload}\n{units[workload]}", *cells)
    console.print(table)


def show_verdicts(console: Console, verdicts: list[Verdict]) -> None:
    """Which goals are reached."""
    table = Table("goal", "reached", "wanted", "", title="goals of the issue")
    for verdict in verdicts:
        mark = "[green]yes[/]" if verdict.good else "[red]no[/]"
        table.add_row(verdict.goal, f"{verdict.reached:.3g}", verdict.wanted, mark)
    console.print(table)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "kernel": platform.release(),
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def add_files(parser: argparse.ArgumentParser, *, svg: bool = True) -> None:
    """The options ``--json`` and ``--svg``, which must be where a file can be before a run."""

    def new_file(path: str) -> str:
        if not Path(path).resolve().parent.is_dir():
            raise argparse.ArgumentTypeError(f"{path}: there is no such directory; make it first")
        return path

    parser.add_argument("--json", type=new_file, metavar="FILE", help="write all numbers there")
    if svg:
        parser.add_argument("--svg", type=new_file, metavar="FILE", help="draw the picture there")


def save(path: str, facts: dict[str, Any]) -> None:
    """Write *facts* as JSON."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1, ensure_ascii=False)
        file.write("\n")
