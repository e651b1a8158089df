"""`make demo`: mount a directory, work in it, and show what the kernel served by itself.

    python examples/mirror/demo.py [SOURCE]

The same work is done on the bare tree, on a mount without the bypass and on a mount with it. The
three results must be equal to the byte. Without SOURCE a tree of a few thousand files is made; in
a SOURCE of yours, all writing happens in one scratch directory, which is removed again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from workload import SCRATCH, STEPS, fingerprint, generate_tree, make_tarball

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage import inopt, own_place

READ_SIZE = 4096
READS = 16384
ROUNDS = 3
WAYS = ("bare", "none", "rw")

console = Console()


@contextmanager
def way_to(way: str, source: Path, mountpoint: Path) -> Iterator[Path]:
    """The directory to work in: the source itself, or a mount of it (``rw``: if there is it)."""
    if way == "bare":
        yield source
        return
    tier = "none" if way == "none" else "auto"
    inopt("mount", "mirror", str(source), str(mountpoint), "--tier", tier)
    try:
        yield mountpoint
    finally:
        inopt("umount", str(mountpoint))


@contextmanager
def scratch(source: Path) -> Iterator[Path]:
    """The scratch directory, on the bare tree, while no mount is there."""
    path = source / SCRATCH
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def work(root: Path, source: Path, tarball: Path, tell: Progress) -> tuple[dict[str, str], Any]:
    """Do all the work in *root*; returns what was printed, and what both trees are like then."""
    task = tell.add_task(f"work in {root}", total=len(STEPS) + 1)
    printed = {}
    for name, step in STEPS.items():
        printed[name] = step(root, tarball)
        tell.advance(task)
    tree = fingerprint(root)
    tell.advance(task)
    return printed, (tree, tree if root == source else fingerprint(source))


def random_reads(path: Path) -> float:
    """Seconds for reading every block once, in random order, without readahead."""
    offsets = [block * READ_SIZE for block in range(READS)]
    random.Random(1).shuffle(offsets)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        pread = os.pread
        start = time.perf_counter()
        for offset in offsets:
            pread(descriptor, READ_SIZE, offset)
        return time.perf_counter() - start
    finally:
        os.close(descriptor)


def time_reads(source: Path, mountpoint: Path) -> dict[str, float]:
    """Microseconds of one 4 KiB random read: the best of some rounds, interleaved."""
    best = dict.fromkeys(WAYS, float("inf"))
    with scratch(source) as space:
        (space / "blocks").write_bytes(os.urandom(READ_SIZE) * READS)
        for _ in range(ROUNDS):
            for way in WAYS:
                with way_to(way, source, mountpoint) as root:
                    spent = random_reads(root / SCRATCH / "blocks")
                best[way] = min(best[way], spent / READS * 1e6)
    return best


def routes_table(with_bypass: dict[str, Any], without: dict[str, Any]) -> Table:
    """Who served what. The kernel's share is what a mount without bypass was asked and this not."""
    tier = with_bypass["tier"]
    table = Table("opcode", "kernel", "daemon", "handler", "denied", title=f"served at tier {tier}")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in with_bypass.items():
        if not isinstance(counts, dict):
            continue
        bypassed = name in ("READ", "WRITE") and tier != "none"
        kernel = without[name]["daemon"] - counts["daemon"] if bypassed else 0
        row = [kernel, counts["daemon"], counts["handler"], counts["denied"]]
        if any(row):
            table.add_row(name, *(str(count or "") for count in row))
    return table


def times_table(times: dict[str, float], tier: str) -> Table:
    """The time of one read, in the three ways."""
    table = Table("4 KiB random read", "µs", "x bare", title="fresh mount, page cache warm")
    labels = {"bare": "bare tree", "rw": f"inopt, tier {tier}", "none": "inopt --tier none"}
    for way, label in labels.items():
        table.add_row(label, f"{times[way]:.2f}", f"{times[way] / times['bare']:.2f}")
    return table


def compare(results: dict[str, Any]) -> None:
    """End the demo unless all ways have led to the same."""
    printed_bare, (tree_bare, _) = results["bare"]
    for way in WAYS[1:]:
        printed, trees = results[way]
        steps = [name for name in STEPS if printed[name] != printed_bare[name]]
        paths = {
            path
            for tree in trees
            for path in tree.keys() | tree_bare.keys()
            if tree.get(path) != tree_bare.get(path)
        }
        if steps or paths:
            raise SystemExit(f"tier {way} differs from the bare tree: {steps} {sorted(paths)[:5]}")


def demo(source: Path, space: Path) -> None:
    """Do it all on *source*; *space* is for the mountpoint and a tarball."""
    mountpoint = space / "mnt"
    mountpoint.mkdir()
    tarball = space / "package.tar"
    make_tarball(tarball)
    results: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    with Progress(console=console, transient=True) as tell:
        for way in WAYS:
            with scratch(source), way_to(way, source, mountpoint) as root:
                results[way] = work(root, source, tarball, tell)
                if way != "bare":
                    stats[way] = json.loads(inopt("stats", str(mountpoint), "--json"))
    compare(results)
    tier = stats["rw"]["tier"]
    files = len(results["bare"][1][0])
    console.print(f"{', '.join(STEPS)}: {files} files, all three ways equal to the byte")
    console.print(routes_table(stats["rw"], stats["none"]))
    if tier == "none":
        console.print("this kernel has no bypass: see 'inopt doctor'")
    console.print(times_table(time_reads(source, mountpoint), tier))


def main() -> None:
    """Run the demo."""
    given = sys.argv[1] if len(sys.argv) > 1 else None
    if given is not None and not Path(given).is_dir():
        raise SystemExit(f"demo: SRC={given}: not a directory: name an existing one")
    with own_place() as space:
        if given is not None:
            source = Path(given).resolve()
        else:
            source = space / "source"
            source.mkdir()
            generate_tree(source)
        demo(source, space)
    console.print("unmounted; nothing is left behind")


if __name__ == "__main__":
    main()
