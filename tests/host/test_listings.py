"""Who only lists makes the daemon look nothing up but directories; who asks finds all of it known.

The bare tree is the oracle of what is listed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.mounting import Mount, in_place, mounted
from support.overlays import Layers, mounted_by_us

DIRECTORIES: Final = 12
FILES: Final = 30
NAMES_ALONE: Final = (["find", "."], ["find", ".", "-type", "f", "-name", "*7"], ["ls", "-R"])
ATTRIBUTES: Final = (["find", ".", "-printf", "%s %p\n"], ["ls", "-lR"], ["du", "-ab"])


def fill(root: Path) -> None:
    for number in range(DIRECTORIES):
        directory = root / f"d{number}"
        directory.mkdir(parents=True)
        for name in range(FILES):
            (directory / f"f{name}").write_text("x" * name)


@pytest.fixture(params=["none", "rw", "layers"])
def mount(host: None, request: pytest.FixtureRequest) -> Iterator[Mount]:
    with in_place("listings") as place:
        if request.param == "layers":
            layers = Layers.made(place, 1)
            fill(layers.lowers[0])
            with mounted_by_us(layers, place / "mnt") as mount:
                yield mount
            return
        fill(place / "src")
        with mounted(place / "src", place / "mnt", "--tier", request.param) as mount:
            yield mount


def bare(mount: Mount) -> Path:
    source = mount.source
    return source if (source / "d0").exists() else source.parent / "lower0"


def output(command: list[str], directory: Path) -> list[str]:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    return sorted(line for line in done.stdout.splitlines() if not line.startswith("total "))


def known(mount: Mount) -> int:
    return int(mount.stats()["known_inodes"])


@pytest.mark.parametrize("command", NAMES_ALONE, ids=" ".join)
def test_who_lists_names_makes_no_inodes_of_files(mount: Mount, command: list[str]) -> None:
    assert output(command, mount.path) == output(command, bare(mount))
    assert known(mount) <= 1 + DIRECTORIES + 2 * FILES, "the files of two listings, to see"


@pytest.mark.parametrize("command", ATTRIBUTES, ids=lambda words: words[0])
def test_who_asks_for_attributes_asks_little(mount: Mount, command: list[str]) -> None:
    mine, expected = output(command, mount.path), output(command, bare(mount))
    assert [line.split()[-1:] for line in mine] == [line.split()[-1:] for line in expected]
    assert known(mount) == 1 + DIRECTORIES * (1 + FILES)
    asked = sum(mount.stats()["LOOKUP"].values())
    assert asked <= 2 + FILES, "what was left out of two listings, and one that was names alone"
