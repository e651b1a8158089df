"""Equal layers twice, under the kernel's overlayfs and under ours, and all comparisons of them.

Both have many subtrees, each of which one sequence of operations uses up; so one pair of mounts
is good for many sequences.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.layer_snapshots import Tree, apart, shown, stored
from support.layer_trees import NAMES, fill
from support.overlay_excuses import level_mode
from support.overlays import (
    Layers,
    OverlayMount,
    left_in_work,
    mounted_by_kernel,
    mounted_by_us,
)

KERNEL: Final = "kernel"
OURS: Final = "ours"


@dataclass
class Stage:
    """One pair of mounts; *tops* are the subtrees that no sequence has had yet."""

    place: Path
    kernel: Layers
    ours: Layers
    mount: OverlayMount | Path
    tier: str
    tops: dict[int, list[str]]
    used: dict[str, tuple[Tree, Tree]]

    def take(self, kind: int) -> str:
        """A subtree for one sequence; those of a kind are alike."""
        return self.tops[kind].pop()

    def seen(self, top: str) -> tuple[Path, Path]:
        """Where both show it."""
        return self.place / KERNEL / "mnt" / top, self.place / OURS / "mnt" / top

    def differences(self, top: str) -> list[str]:
        """What both show, and what both have stored, of one subtree."""
        one, other = (shown(path) for path in self.seen(top))
        self.used[top] = dict(one), dict(other)
        self._excuse(one, other)
        found = [f"shown: {line}" for line in apart(one, other, (KERNEL, OURS))]
        mine, theirs = (_stored_below(layers, top) for layers in (self.kernel, self.ours))
        self._excuse(mine, theirs)
        return found + [f"stored: {line}" for line in apart(mine, theirs, (KERNEL, OURS))]

    def _excuse(self, kernel: Tree, ours: Tree) -> None:
        if self.tier != "none":
            for path in kernel.keys() & ours.keys():
                mode = level_mode(kernel[path]["mode"], ours[path]["mode"])
                ours[path] = {**ours[path], "mode": mode}


def _stored_below(layers: Layers, top: str) -> Tree:
    if not (layers.upper / top).exists():
        return {}
    return stored(layers.upper / top, tuple(lower / top for lower in layers.lowers))


def make_layers(place: Path, lowers: int, tops: dict[int, list[str]]) -> tuple[Layers, Layers]:
    """Two sets that are alike; subtrees of a kind are alike, too."""
    made = []
    for name in (KERNEL, OURS):
        layers = Layers.made(place / name, lowers)
        for kind, names in tops.items():
            for top in names:
                fill(layers, top, kind)
        made.append(layers)
    return made[0], made[1]


def use_before(layers: Layers, path: Path, tops: dict[int, list[str]]) -> None:
    """Let the kernel change some, so that the upper layer has marks of an earlier mount.

    Looking is enough for some: a directory that the upper layer has, too, is told its origin.
    """
    with mounted_by_kernel(layers, path):
        for _ in os.walk(path):
            pass
        for kind, names in tops.items():
            for top in names if kind % 2 else ():
                chance = random.Random(kind)
                for _ in range(6):
                    _change(path / top, chance)


def _change(top: Path, chance: random.Random) -> None:
    path, other = (os.path.join(os.fsencode(top), chance.choice(NAMES)) for _ in range(2))
    try:
        match chance.randrange(6):
            case 0:
                os.chmod(path, 0o770)
            case 1:
                os.rename(path, other)
            case 2:
                os.unlink(path)
            case 3:
                os.mkdir(path)
            case 4:
                with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK), "ab") as file:
                    file.write(b"before")
            case _:
                os.setxattr(path, "user.before", b"1", follow_symlinks=False)
    except OSError:
        pass


@contextmanager
def staged(place: Path, tier: str, lowers: int, kinds: Sequence[int], each: int) -> Iterator[Stage]:
    """Both mounts, with *each* subtrees of each kind.

    *place* keeps the layers afterwards, for `cross_mounted`. *tier* ``kernel``: the kernel's on
    both sides, to see that what is compared can be compared.
    """
    tops = {kind: [f"t{kind}-{number}" for number in range(each)] for kind in kinds}
    kernel, ours = make_layers(place, lowers, tops)
    paths = [place / name / "mnt" for name in (KERNEL, OURS)]
    for layers, path in zip((kernel, ours), paths, strict=True):
        use_before(layers, path, tops)
    with mounted_by_kernel(kernel, paths[0]), _second(ours, paths[1], tier) as mount:
        yield Stage(place, kernel, ours, mount, tier, tops, {})


def _is_expected(complaint: str, tier: str) -> bool:
    """Whether it is that the kernel does not attach a file with the number that copies keep."""
    return tier == "inode" and "or copied up" in complaint


def _second(layers: Layers, path: Path, tier: str) -> AbstractContextManager[OverlayMount | Path]:
    if tier == "kernel":
        return mounted_by_kernel(layers, path)
    return mounted_by_us(layers, path, "--tier", tier)


def cross_mounted(stage: Stage) -> list[str]:
    """Mount ours by the kernel and the kernel's by us: both must show what they showed before."""
    found: list[str] = []
    path = stage.place / "crossed"
    with mounted_by_kernel(stage.ours, path):
        for top, (_, ours) in stage.used.items():
            lines = apart(ours, shown(path / top), ("ours showed", "the kernel shows"))
            found += [f"upper of ours, {top}: {line}" for line in lines]
    with _second(stage.kernel, path, stage.tier) as mount:
        for top, (kernel, _) in stage.used.items():
            lines = apart(kernel, shown(path / top), ("the kernel showed", "ours shows"))
            found += [f"the kernel's upper, {top}: {line}" for line in lines]
        if isinstance(mount, OverlayMount):
            found += [line for line in mount.complaints() if not _is_expected(line, stage.tier)]
    for layers in (stage.kernel, stage.ours):
        found += [f"left in {layers.work}: {name}" for name in left_in_work(layers)]
    return found
