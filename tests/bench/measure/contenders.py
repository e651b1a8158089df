"""What is measured: the bare tree, inopt, and its peers; each mounts and unmounts a tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import pyfuse3
from bench.measure.programs import ENVIRONMENT, BenchError, Placement, on, run

BARE = "bare"
INOPT_RW = "inopt rw"
INOPT_NONE = "inopt none"
PASSTHROUGHFS = "passthroughfs.py"
BINDFS = "bindfs"

INOPT = str(Path(sys.executable).with_name("inopt"))
_PATIENCE = 20.0  # seconds for a mount to appear or a server to end


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at *path*, without asking its server."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        return any(line.split()[4] == str(path) for line in mounts)


@dataclass(frozen=True)
class Contender:
    """One way to reach a tree; ``mounted`` gives the directory to use while it is mounted."""

    name: str

    @contextmanager
    def mounted(self, source: Path, mountpoint: Path, placement: Placement) -> Iterator[Path]:
        """The bare tree: nothing to do."""
        del mountpoint, placement
        yield source


@dataclass(frozen=True)
class Inopt(Contender):
    """inopt with a tier."""

    tier: str

    @contextmanager
    def mounted(self, source: Path, mountpoint: Path, placement: Placement) -> Iterator[Path]:
        command = [INOPT, "mount", "mirror", str(source), str(mountpoint), "--tier", self.tier]
        try:
            run(on(placement.server, command))
            yield mountpoint
        finally:
            unmount(mountpoint, [INOPT, "umount", str(mountpoint)])


@dataclass(frozen=True)
class Server(Contender):
    """A peer that stays in the foreground; *command* makes its arguments."""

    command: Callable[[Path, Path], list[str]]

    @contextmanager
    def mounted(self, source: Path, mountpoint: Path, placement: Placement) -> Iterator[Path]:
        with open(mountpoint.parent / "server.log", "wb") as log:
            process = subprocess.Popen(
                on(placement.server, self.command(source, mountpoint)),
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt is for the driver, which unmounts
            )
        try:
            self._wait(process, mountpoint)
            yield mountpoint
        finally:
            unmount(mountpoint, ["umount", str(mountpoint)])
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait(self, process: subprocess.Popen[bytes], mountpoint: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not is_mounted(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                log = (mountpoint.parent / "server.log").read_text(errors="replace")
                raise BenchError(f"{self.name} did not mount: {log.strip()[-300:]}")
            time.sleep(0.01)
        os.stat(mountpoint)  # answered once the server serves


def unmount(mountpoint: Path, command: list[str]) -> None:
    """Unmount whatever is at *mountpoint*, lazily if it must be."""
    deadline = time.monotonic() + 5
    while is_mounted(mountpoint):
        with suppress(BenchError):
            run(command, seconds=_PATIENCE)
            continue
        if time.monotonic() > deadline:
            run(["umount", "-l", str(mountpoint)])
            return
        time.sleep(0.1)


def facts_of_inopt(mountpoint: Path) -> dict[str, Any]:
    """``inopt stats`` of a mount."""
    answer: dict[str, Any] = json.loads(run([INOPT, "stats", str(mountpoint), "--json"]))
    return answer


def _overlay(source: Path, mountpoint: Path) -> list[str]:
    """fuse-overlayfs with the tree as its upper layer, so that it can be written to."""
    lower, work = (mountpoint.parent / f"overlay-{name}" for name in ("lower", "work"))
    for directory in (lower, work):
        directory.mkdir(exist_ok=True)
    layers = f"lowerdir={lower},upperdir={source},workdir={work}"
    return ["fuse-overlayfs", "-f", "-o", layers, str(mountpoint)]


def contenders(wanted: list[str]) -> tuple[list[Contender], dict[str, str]]:
    """Those of *wanted* (all when empty) that this machine has, and why others are missing."""
    found: list[Contender] = [
        Contender(BARE),
        Inopt(INOPT_RW, "rw"),
        Inopt(INOPT_NONE, "none"),
    ]
    missing: dict[str, str] = {}
    if not wanted or PASSTHROUGHFS in wanted:
        try:
            example = pyfuse3.passthroughfs()
            found.append(Server(PASSTHROUGHFS, lambda s, m: [*example, str(s), str(m)]))
        except BenchError as error:
            missing[PASSTHROUGHFS] = str(error)
    packages: dict[str, Callable[[Path, Path], list[str]]] = {
        BINDFS: lambda s, m: ["bindfs", "-f", str(s), str(m)],
        "mergerfs": lambda s, m: ["mergerfs", "-f", str(s), str(m)],
        "fuse-overlayfs": _overlay,
    }
    for name, command in packages.items():
        if shutil.which(name):
            found.append(Server(name, command))
        else:
            missing[name] = f"not installed: apt-get install {name}"
    if wanted:
        missing = {name: reason for name, reason in missing.items() if name in wanted}
        found = [contender for contender in found if contender.name in wanted]
    return found, missing
