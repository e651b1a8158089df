"""The overlays that are compared: each mounts the same lower layer, and an upper one of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure.contenders import INOPT, Contender, Server, unmount
from bench.measure.programs import Placement, on, run

KERNEL = "overlayfs"
FUSE = "fuse-overlayfs"
OURS = "inopt"
OURS_VOLATILE = "inopt, volatile"
# What the other two do, too: nothing that only one of them would have to write.
_FEATURES_OFF = "redirect_dir=off,metacopy=off,index=off,xino=off"


def options_for(layers: Path) -> str:
    """The layers below a directory, as ``mount -t overlay`` takes them."""
    return f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"


@dataclass(frozen=True)
class Kernel(Contender):
    """The kernel's own overlayfs."""

    @contextmanager
    def mounted(self, source: Path, mountpoint: Path, placement: Placement) -> Iterator[Path]:
        del placement
        options = f"{options_for(source)},{_FEATURES_OFF}"
        run(["mount", "-t", "overlay", "overlay", str(mountpoint), "-o", options])
        try:
            yield mountpoint
        finally:
            unmount(mountpoint, ["umount", str(mountpoint)])


@dataclass(frozen=True)
class Ours(Contender):
    """inopt with the shipped policy, at tier rw."""

    more: str = ""

    @contextmanager
    def mounted(self, source: Path, mountpoint: Path, placement: Placement) -> Iterator[Path]:
        command = [INOPT, "mount", "overlay", str(mountpoint), "--tier", "rw"]
        try:
            run(on(placement.server, [*command, "-o", options_for(source) + self.more]))
            yield mountpoint
        finally:
            unmount(mountpoint, [INOPT, "umount", str(mountpoint)])


def _fuse_overlayfs(source: Path, mountpoint: Path) -> list[str]:
    return ["fuse-overlayfs", "-f", "-o", options_for(source), str(mountpoint)]


def overlays() -> tuple[list[Contender], dict[str, str]]:
    """Those that this machine has, and why others are missing."""
    found: list[Contender] = [Ours(OURS), Ours(OURS_VOLATILE, ",volatile")]
    missing: dict[str, str] = {}
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        found.insert(0, Kernel(KERNEL))
    else:
        missing[KERNEL] = "this kernel has no overlay filesystem: modprobe overlay"
    if shutil.which("fuse-overlayfs"):
        found.insert(1, Server(FUSE, _fuse_overlayfs))
    else:
        missing[FUSE] = "not installed: apt-get install fuse-overlayfs"
    return found, missing


def daemon_of(mountpoint: Path) -> int | None:
    """The process that serves a mount, known by its command line; None for the kernel's own."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended meanwhile
            if os.fsencode(mountpoint) in words:
                return int(name)
    return None
