"""Inode numbers over layers on several devices: listings and stat(2) tell the same, each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from support.mounting import in_place
from support.overlays import Layers, mounted_by_us
from support.programs import sh

Numbers: TypeAlias = dict[str, int]


@pytest.fixture(params=["topmost lower", "lowest", "upper"])
def layers(host: None, request: pytest.FixtureRequest) -> Iterator[Layers]:
    """One layer is on a filesystem of its own; names of several are the same there."""
    with in_place("numbers") as place:
        own = place / "own"
        own.mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", str(own))
        made, there = Layers.made(place / "layers", 2), Layers.made(own, 2)
        layers = {
            "topmost lower": Layers((there.lowers[0], made.lowers[1]), made.upper, made.work),
            "lowest": Layers((made.lowers[0], there.lowers[1]), made.upper, made.work),
            "upper": Layers(made.lowers, there.upper, there.work),
        }[request.param]
        for number, lower in enumerate(layers.lowers):
            for top in ("one", "two", "three", "four"):
                directory = lower / top / f"of-{number}"
                directory.mkdir(parents=True)
                for name in ("a", "b", "c"):
                    (directory / name).write_text(name)
                    (lower / top / f"{name}{number}").touch()
                os.link(directory / "a", directory / "again")
        yield layers


def told(root: Path) -> Numbers:
    """What stat(2) says of everything, by its path."""
    paths = [root, *root.rglob("*")]
    return {str(path.relative_to(root)): path.lstat().st_ino for path in paths}


def listed(root: Path) -> Numbers:
    """What listings say, without asking for anything but directories."""
    numbers = {".": root.stat().st_ino}
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                numbers[str(Path(entry.path).relative_to(root))] = entry.inode()
                if entry.is_dir():
                    waiting.append(Path(entry.path))
    return numbers


WAYS: Final = (listed, told)


def seen(layers: Layers, path: Path, first: int) -> Numbers:
    """What a new mount tells by the *first* of two ways, and then by the other."""
    with mounted_by_us(layers, path) as mount:
        numbers = WAYS[first](mount.path)
        assert WAYS[not first](mount.path) == numbers
    return numbers


@pytest.mark.parametrize("first", [0, 1], ids=["listed first", "told first"])
def test_listings_and_stat_tell_the_same_numbers_always(layers: Layers, first: int) -> None:
    numbers = seen(layers, layers.upper.parent / "mnt", first)
    assert len(numbers) == 1 + 4 * (1 + 2 * (1 + 3 + 4))
    names: dict[int, set[str]] = {}
    for name, number in numbers.items():
        names.setdefault(number, set()).add(name)
    twice = [{Path(name).name for name in each} for each in names.values() if len(each) > 1]
    assert twice == [{"a", "again"}] * 8, "only links have one number"
    again = seen(layers, layers.upper.parent / "mnt", 1 - first)
    assert again == numbers, "in the next mount, too"


def test_a_copy_keeps_the_number_while_it_is_known(layers: Layers) -> None:
    with mounted_by_us(layers, layers.upper.parent / "mnt") as mount:
        numbers = listed(mount.path)
        for name in ("one/a0", "two/of-1/b"):
            (mount.path / name).write_text("changed")
        assert (told(mount.path), listed(mount.path)) == (numbers, numbers)
