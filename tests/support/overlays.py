"""Layers, and mounts of them: by the kernel's overlayfs and by ours. Always taken away again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from support.mounting import Mount, detach, mounts_below

# `mounted_by_kernel` or `mounted_by_us`, for tests of both.
Mounting: TypeAlias = Callable[["Layers", Path], AbstractContextManager[Any]]
# What ours writes is what the kernel writes with these off.
FEATURES_OFF: Final = "redirect_dir=off,metacopy=off,index=off,xino=off"


def escaped(path: Path) -> str:
    """A directory as it stands in ``lowerdir=``, where colons part and commas end."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@dataclass(frozen=True)
class Layers:
    """Directories that make an overlay; *lowers* from the topmost down."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path

    @classmethod
    def made(cls, place: Path, lowers: int) -> Layers:
        """Empty ones in *place*, which is made."""
        made = cls(
            tuple(place / f"lower{number}" for number in range(lowers)),
            place / "upper",
            place / "work",
        )
        for directory in (*made.lowers, made.upper, made.work):
            directory.mkdir(parents=True)
            directory.chmod(0o755)
        return made

    @property
    def all(self) -> tuple[Path, ...]:
        """The layers from the lowest up: the order in which they can be filled."""
        return (*reversed(self.lowers), self.upper)

    def options(self, *, upper: bool = True) -> str:
        """As ``mount -t overlay`` takes them."""
        words = ["lowerdir=" + ":".join(escaped(lower) for lower in self.lowers)]
        if upper:
            words += [f"upperdir={escaped(self.upper)}", f"workdir={escaped(self.work)}"]
        return ",".join(words)

    def arguments(self, *, upper: bool = True) -> list[str]:
        """As ``inopt mount overlay MNT`` takes them."""
        words = ["--lower", ":".join(str(lower).replace(":", "\\:") for lower in self.lowers)]
        if upper:
            words += ["--upper", str(self.upper), "--work", str(self.work)]
        return words


@contextmanager
def mounted_by_kernel(
    layers: Layers, path: Path, options: str = FEATURES_OFF, *, upper: bool = True
) -> Iterator[Path]:
    """The kernel's own overlayfs at *path*, which is made if need be."""
    path.mkdir(exist_ok=True)
    words = f"{layers.options(upper=upper)},{options}".strip(",")
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", str(path), "-o", words],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, f"the kernel does not mount {words}: {done.stderr}"
    try:
        yield path
    finally:
        done = subprocess.run(
            ["umount", str(path)], capture_output=True, text=True, check=False, timeout=240
        )
        if mounts_below(path):
            detach(path)
        assert done.returncode == 0, f"cannot unmount: {done.stderr}"


class OverlayMount(Mount):
    """Our mount of layers, with its log at hand; ``source`` is the upper one."""

    def __init__(
        self,
        layers: Layers,
        path: Path,
        *arguments: str,
        policy: str = "overlay",
        upper: bool = True,
    ) -> None:
        path.mkdir(exist_ok=True)
        self.layers = layers
        words = layers.arguments(upper=upper)
        super().__init__(layers.upper, path, *arguments, policy=policy, layers=words)


@contextmanager
def mounted_by_us(
    layers: Layers, path: Path, *arguments: str, policy: str = "overlay", upper: bool = True
) -> Iterator[OverlayMount]:
    """Ours at *path*, which is made if need be."""
    mount = OverlayMount(layers, path, *arguments, policy=policy, upper=upper)
    try:
        yield mount
    finally:
        mount.close()


def left_in_work(layers: Layers) -> list[str]:
    """What is in the work directory beside the empty one that mounts keep there."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), layers.work)
        for folder, folders, files in os.walk(layers.work)
        for name in (*folders, *files)
        if (Path(folder), name) != (layers.work, "work")
    )
