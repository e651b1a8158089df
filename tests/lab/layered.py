"""Runs inside the lab: layers at tier inode, what reaches the daemon of each, and random sequences.

python -m lab.layered COUNT SEQUENCES    prints what was found
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from lab.bypassed import work
from lab.within import Counters, command
from support.clients import clients
from support.forking import all_modules, use_forks
from support.layer_operations import generate
from support.mounting import Mount, in_place
from support.overlay_sequences import KINDS, perform
from support.overlay_stage import cross_mounted, staged
from support.overlays import Layers, mounted_by_us

_STEPS: Final = 60


def fill(directory: Path, count: int) -> None:
    """Some files, in a directory that is made."""
    directory.mkdir()
    for number in range(count):
        (directory / f"f{number}").write_bytes(b"x" * 4096)


def attached_to(mount: Mount, name: str) -> list[str]:
    """The operations that the kernel has a backing file for, by ``inopt explain``."""
    answer = command("explain", "--mount", mount.path, name, "--json")
    live: dict[str, Any] = json.loads(answer)["paths"][0]["live"]
    return list(live["attached"])


def account(mount: Mount) -> dict[str, Any]:
    """What was sent, and what the kernel served by itself: by its own counts."""
    return {
        "tier": mount.stats()["tier"],
        **Counters(mount.path).now(),
        "complaints": mount.complaints(),
    }


def upper_alone(place: Path, count: int) -> dict[str, Any]:
    """All kinds of changes where only the upper layer has something: old files and new ones."""
    layers = Layers.made(place, 1)
    (layers.lowers[0] / "low").write_text("low")
    fill(layers.upper / "old", count)
    with mounted_by_us(layers, place / "mnt") as mount:
        work(mount.path / "old")
        fill(mount.path / "new", count)
        work(mount.path / "new")
        low = mount.path / "low"
        before = attached_to(mount, "low")
        low.write_text("copied")
        assert (low.read_text(), low.stat().st_size) == ("copied", 6)
        return {
            **account(mount),
            "attached": attached_to(mount, "old/f0"),
            "attached_new": attached_to(mount, "new/f0"),
            "attached_low": before,
        }


def lowers_alone(place: Path, count: int) -> dict[str, Any]:
    """Looking, without an upper layer: at directories of one layer and at one of both."""
    layers = Layers.made(place, 2)
    for number, lower in enumerate(layers.lowers):
        fill(lower / f"alone{number}", count)
        fill(lower / "both", 3)
    with mounted_by_us(layers, place / "mnt", upper=False) as mount:
        for name in ("alone0", "alone1"):
            subprocess.run(["ls", "-lR", name], cwd=mount.path, check=True, capture_output=True)
            for number in range(count):
                path = mount.path / name / f"f{number}"
                assert path.read_bytes() == b"x" * 4096
                assert path.stat().st_size == 4096
        alone = account(mount)
        assert sorted(os.listdir(mount.path)) == ["alone0", "alone1", "both"]
        assert sorted(os.listdir(mount.path / "both")) == ["f0", "f1", "f2"]
        return {
            **alone,
            "attached": attached_to(mount, "alone1/f0"),
            "attached_both": attached_to(mount, "both"),
        }


def sequences(place: Path, count: int) -> list[str]:
    """Random ones, on the kernel's overlayfs and on ours: what differs."""
    kinds, each = range(min(count, KINDS)), -(-count // KINDS)
    with staged(place, "inode", 2, kinds, each) as stage, clients() as people:
        for seed in range(count):
            problems = perform(stage, people, seed % KINDS, generate(seed, _STEPS))
            if problems:
                return [f"seed {seed}:", *problems]
    return cross_mounted(stage)


def main() -> None:
    use_forks(all_modules())
    count, rounds = map(int, sys.argv[1:])
    with in_place("layered") as place:
        for name in ("upper", "lowers", "differential"):
            (place / name).mkdir()
        found = {
            "upper": upper_alone(place / "upper", count),
            "lowers": lowers_alone(place / "lowers", count),
            "different": sequences(place / "differential", rounds),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
