"""The command line of the bench in the lab: boots it, shows what came out, draws the picture."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.lab.machine import CLOCKS, run_in_lab
from bench.lab.picture import Words, draw, number_of
from bench.lab.verdicts import REFERENCE, SHARE, WANTED, Speeds, judge, relative
from bench.lab.workloads import WORKLOADS
from bench.measure import report
from bench.measure.programs import BenchError
from bench.measure.scratch import compile_client
from rich.console import Console
from rich.table import Table
from support.laboratory import LabMissingError

GUEST = Path(__file__).with_name("guest.py")
# Names, found or missing, for an hour, so that they stay warm; and attributes not at all: then all
# tiers promise the same about these, as tier inode serves them from the backing inode anyway.
_POLICY = """version: 1
require: none
cache: {entry: 1h, attributes: 0s, negative: 1h}
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="What tier inode is worth, on the lab's kernel: tier inode with as many files"
        f" as asked for, tiers rw and none with 1/{SHARE} of them."
    )
    parser.add_argument("--files", type=int, default=20_000, help="20000 by default")
    parser.add_argument("--rounds", type=int, default=5, help="5 by default; slow ones get fewer")
    parser.add_argument("--tiers", nargs="*", choices=REFERENCE, default=list(REFERENCE),
                        metavar="TIER", help="only these: " + "; ".join(REFERENCE))  # fmt: skip
    parser.add_argument("--clock", choices=CLOCKS, default=CLOCKS[0],
                        help="what seconds are counted by: instructions by default")  # fmt: skip
    parser.add_argument("--fs", choices=("ext4", "xfs", "btrfs"), default="ext4")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds: 1800 by default")
    report.add_files(parser)
    options = parser.parse_args()
    if options.files < 1 or options.rounds < 1:
        parser.error("--files and --rounds: at least 1")
    return options


def run_guest(options: argparse.Namespace, top: Path) -> dict[str, Any]:
    """What `guest.py` found. Raises `BenchError` and `LabMissingError`."""
    program = [
        str(GUEST), "--files", str(options.files), "--rounds", str(options.rounds),
        "--policy", _POLICY, "--tiers", *options.tiers, "--client", *compile_client(top),
    ]  # fmt: skip
    last = run_in_lab(
        program, top, clock=options.clock, timeout=options.timeout, filesystem=options.fs
    )
    try:
        answer: dict[str, Any] = json.loads(last)
    except ValueError:
        raise BenchError(f"the lab said: {last.strip()}") from None
    return answer


def show(console: Console, answer: dict[str, Any], speeds: Speeds) -> None:
    """Times and speeds, and how many requests were sent and operations served by the kernel."""
    headings = ("files", "bare, s", "tier, s", "speed", "requests", "bypassed")
    table = Table("workload", "tier", *headings, title="speed, where that of the bare tree is 1")
    for column in table.columns[2:]:
        column.justify = "right"
    for workload in WORKLOADS:
        for tier, speed in speeds[workload.name].items():
            seconds = answer["seconds"][workload.name]
            counted = answer["counted"][workload.name][tier]
            table.add_row(
                workload.title,
                tier,
                f"{answer['files'][REFERENCE[tier]]:,}",
                f"{min(seconds[REFERENCE[tier]]):.3f}",
                f"{min(seconds[tier]):.3f}",
                number_of(speed),
                *(f"{sum(counted[kind].values()):,}" for kind in ("requests", "served")),
            )
    console.print(table)


def main() -> int:
    options = arguments()
    # As Ctrl-C does: the emulated machine must not go on without this.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    console = Console(width=None if sys.stdout.isatty() else 120)
    # The guest does not see the host's /tmp.
    with tempfile.TemporaryDirectory(prefix="inopt-bench-", dir="/var/tmp") as top:
        try:
            answer = run_guest(options, Path(top))
        except (BenchError, LabMissingError) as error:
            print(f"bench-lab: {error}", file=sys.stderr)
            return 2
    speeds = relative(answer["seconds"])
    if options.tiers:
        show(console, answer, speeds)
    verdicts = judge(speeds)
    report.show_verdicts(console, verdicts)
    titles = {workload.name: workload.title for workload in WORKLOADS}
    caption = (
        f"{options.files:,} files, tiers rw and none 1/{SHARE} of them; {options.fs},"
        f" Linux {answer['kernel']}, {answer['processor']}, clock: {options.clock}"
    )
    if options.svg:
        names = {tier: f"tier {tier}" for tier in REFERENCE}
        words = Words("bare tree = 1", "goal of tier inode", names)
        picture = draw(speeds, titles, WANTED, caption, words)
        Path(options.svg).write_text(picture, encoding="utf-8")
    if options.json:
        facts = {
            "filesystem": options.fs,
            "clock": options.clock,
            "policy": _POLICY,
            "speeds": speeds,
            "goals": [asdict(verdict) for verdict in verdicts],
        }
        report.save(options.json, facts | answer)
    return 0
