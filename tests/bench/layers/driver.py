"""The command line of the bench of layers, and the order in which things are measured."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from bench.lab.machine import CLOCKS, run_in_lab
from bench.lab.picture import Words, draw, number_of
from bench.lab.workloads import use_git_alone
from bench.layers.contenders import FUSE, KERNEL, OURS, OURS_VOLATILE, daemon_of, overlays
from bench.layers.scratch import Scratch, Sizes
from bench.layers.verdicts import OF_FUSE, OF_KERNEL, Rounds, judge, middle, ratio
from bench.layers.workloads import COPIES, RATE, READS, SCENARIOS, STEPS, Scenario, Step
from bench.measure import report
from bench.measure.contenders import Contender, unmount
from bench.measure.daemon import processor_ticks
from bench.measure.programs import BenchError, Placement
from rich.console import Console
from rich.table import Table
from support.laboratory import LabMissingError

PROGRAM = Path(__file__).resolve().parents[1] / "overlay.py"
_TICK = os.sysconf("SC_CLK_TCK")


def _clients_used() -> float:
    """Processor seconds of all clients so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Samples:
    """Of each step: what was measured, and the processor seconds it took.

    ``processor`` is of client and daemon, ``daemon`` of the latter only; there is none for the
    kernel's own.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.values: dict[str, Rounds] = {step.name: {} for step in steps}
        self.processor: dict[str, Rounds] = {step.name: {} for step in steps}
        self.daemon: dict[str, Rounds] = {step.name: {} for step in steps}

    def add(
        self, step: Step, name: str, number: int, value: float, client: float, daemon: float
    ) -> None:
        """One more."""
        self.values[step.name].setdefault(name, {})[number] = value
        self.processor[step.name].setdefault(name, {})[number] = client + daemon
        self.daemon[step.name].setdefault(name, {})[number] = daemon


def arguments() -> argparse.Namespace:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(
        description=f"How fast layers are: {OURS} beside the kernel's {KERNEL} and {FUSE}."
    )
    report.add_files(parser)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=names,
                        help="only these and their like: " + ", ".join(names))  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small and inexact")
    parser.add_argument("--rounds", type=int, default=0, help="5 by default, 1 with --quick")
    parser.add_argument("--place", metavar="DIR", default="/var/tmp",
                        help="make the layers below DIR: /var/tmp by default")  # fmt: skip
    parser.add_argument("--large", type=int, default=0, metavar="MIB",
                        help="size of the large file to copy up: 1024 by default")  # fmt: skip
    parser.add_argument("--lab", action="store_true",
                        help="in the lab, by a clock that counts instructions")  # fmt: skip
    options = parser.parse_args()
    if options.lab and options.place != parser.get_default("place"):
        parser.error("--place: the lab has a disk of its own; leave it out, or --lab")
    return options


def measure(
    scratch: Scratch, scenario: Scenario, contender: Contender, number: int, samples: Samples
) -> None:
    """One scenario in a new mount. Raises `BenchError`."""
    placement = Placement.named("free")
    scratch.clean()
    with contender.mounted(scratch.layers, scratch.mountpoint, placement) as root:
        daemon = daemon_of(root)
        for step, action in scenario(scratch, root, placement):
            before = processor_ticks(daemon) if daemon else 0
            clients = _clients_used()
            value = action()
            clients = _clients_used() - clients
            used = (processor_ticks(daemon) - before) / _TICK if daemon else 0
            samples.add(step, contender.name, number, value, clients, used)
            tail = f"client {clients:6.2f} s, daemon {used:6.2f} s"
            print(f"{step.title:31} {contender.name:16} {value:10.3f} {step.unit:5}  {tail}")


def rounds_of(
    scratch: Scratch,
    chosen: dict[tuple[Step, ...], Scenario],
    found: list[Contender],
    rounds: int,
    samples: Samples,
) -> None:
    """Everything, *rounds* times; another contender begins each time."""
    for number in range(rounds):
        first = number % len(found)
        for steps, scenario in chosen.items():
            for contender in found[first:] + found[:first]:
                if contender.name == OURS_VOLATILE and not set(steps) & set(COPIES):
                    continue
                try:
                    measure(scratch, scenario, contender, number, samples)
                except BenchError as error:
                    print(f"{steps[0].title}, {contender.name}: {error}", file=sys.stderr)


def show(console: Console, steps: list[Step], samples: Samples, names: list[str]) -> None:
    """What was measured, the ratios, and what the daemons used."""
    ratios = [f"{OURS} ÷ {other}" for other in (KERNEL, FUSE)]
    title = "medians, and processor seconds of client and daemon; ratios of speed, more is better"
    table = Table("", *names, *ratios, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for step in steps:
        rounds = samples.values[step.name]
        digits = 0 if step.unit == RATE else 3
        cells = []
        for name in names:
            value, used = (middle(each, name) for each in (rounds, samples.processor[step.name]))
            both = value is not None and used is not None
            cells.append(f"{value:,.{digits}f}\n{used:.2f} s" if both else "-")
        for other in (KERNEL, FUSE):
            found = ratio(step, rounds, OURS, other)
            cells.append("-" if found is None else number_of(found))
        table.add_row(f"{step.title}, {step.unit}", *cells)
    console.print(table)


def picture(steps: list[Step], samples: Samples, caption: str) -> str:
    """Speeds beside the kernel's overlayfs."""
    speeds: dict[str, dict[str, float]] = {}
    for step in steps:
        row = {name: ratio(step, samples.values[step.name], name, KERNEL) for name in (OURS, FUSE)}
        speeds[step.name] = {name: speed for name, speed in row.items() if speed is not None}
    words = Words(f"kernel {KERNEL} = 1", f"goal of {OURS}, reads", {OURS: OURS, FUSE: FUSE})
    wanted = {step.name: OF_KERNEL for step in READS}
    return draw(speeds, {step.name: step.title for step in steps}, wanted, caption, words)


def bench(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure everything that was asked for; what there is is reported even if interrupted."""
    chosen = {
        steps: scenario
        for steps, scenario in SCENARIOS.items()
        if {step.name for step in steps} & set(options.only)
    }
    steps = [step for each in chosen for step in each]
    found, missing = overlays()
    for name, reason in missing.items():
        console.print(f"without {name}: {reason}", style="yellow")
    sizes = Sizes.quick() if options.quick else Sizes()
    if options.large:
        sizes = replace(sizes, large_mebibytes=options.large)
    rounds = options.rounds or (1 if options.quick else 5)
    samples = Samples(steps)
    before = report.machine()
    interrupted = False
    use_git_alone()
    with ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="inopt-bench-", dir=options.place)
        top = Path(stack.enter_context(place)).resolve()
        mountpoint = top / "mnt"
        stack.callback(unmount, mountpoint, ["umount", str(mountpoint)])
        try:
            print("making the layers", flush=True)
            rounds_of(Scratch(top, sizes), chosen, found, rounds, samples)
        except KeyboardInterrupt:
            interrupted = True
            console.print("interrupted: this is what there is", style="red")
    show(console, steps, samples, [contender.name for contender in found])
    verdicts = judge(steps, samples.values)
    report.show_verdicts(console, verdicts)
    if options.svg:
        machine = f"Linux {before['kernel']}, {before['processors']} processors"
        caption = (
            f"medians of {rounds} rounds, {machine}, load {before['load'][0]:.0f} at the start"
        )
        Path(options.svg).write_text(picture(steps, samples, caption), encoding="utf-8")
    return {
        "machine": before,
        "interrupted": interrupted,
        "rounds": rounds,
        "sizes": asdict(sizes),
        "missing": missing,
        "steps": {step.name: {"title": step.title, "unit": step.unit} for step in steps},
        "samples": samples.values,
        "processor_seconds": samples.processor,
        "daemon_seconds": samples.daemon,
        "ratios": {
            step.name: {
                other: ratio(step, samples.values[step.name], OURS, other)
                for other in (KERNEL, FUSE)
            }
            for step in steps
        },
        "wanted": {"reads": OF_KERNEL, "else": OF_FUSE},
        "goals": [asdict(verdict) for verdict in verdicts],
    }


def bench_in_lab(options: argparse.Namespace) -> int:
    """The same on the lab's kernel: what else this machine does is not in the numbers there."""
    with tempfile.TemporaryDirectory(prefix="inopt-bench-", dir="/var/tmp") as top:
        wanted = {"facts.json": options.json, "picture.svg": options.svg}
        program = [
            str(PROGRAM), "--place", "/lab", "--rounds", str(options.rounds), "--large",
            str(options.large), "--json", "facts.json", "--svg", "picture.svg",
            *(["--quick"] if options.quick else []), "--only", *options.only,
        ]  # fmt: skip
        try:
            print(run_in_lab(program, Path(top), clock=CLOCKS[0], timeout=4 * 3600, disk=6000))
        except (BenchError, LabMissingError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        for name, path in wanted.items():
            if path:
                shutil.copy(Path(top) / name, path)
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = arguments()
    if os.geteuid():
        print("the benches mount filesystems: run them as root", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    if options.lab:
        return bench_in_lab(options)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts = bench(options, console)
    if options.json:
        report.save(options.json, facts)
    return 130 if facts["interrupted"] else 0
