"""What is done in the lab to the bare tree and to each mount of it, and the tree itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure.programs import ENVIRONMENT, BenchError, run, timed
from bench.measure.scratch import make_files

MANY = "many"
_LONG_AGO = 1_000_000_000  # git reads files again that are not older than its index
# Nobody's settings but git's own; and no status may repair the index for the next one.
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}
_GIT = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"]


@dataclass
class Tree:
    """A repository of *files* files in the directory *name* of *source*, and of its mounts.

    Not in the root itself: the root's attributes are asked for at every tier, and with a working
    directory there, once for each path.
    """

    source: Path
    name: str
    client: list[str]
    files: int
    modes: Iterator[str] = field(default_factory=lambda: itertools.cycle(("g+w", "g-w")))

    @property
    def names(self) -> Path:
        """A list of its files."""
        return self.source / f"{self.name}.names"

    def make(self) -> None:
        """Put it on disk, and commit it, without any mount. Raises `BenchError`."""
        top = self.source / self.name
        names = make_files(top / MANY, self.files, f"{MANY}/")
        for name in names:
            os.utime(top / name, (_LONG_AGO, _LONG_AGO))
        self.names.write_text("".join(f"{name}\n" for name in names))
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
            run([*_GIT, "-C", str(top), *arguments])
        os.sync()


Measure = Callable[[Tree, Path], float]


@dataclass(frozen=True)
class Workload:
    """A name, what it is, and how long it takes in a directory, in seconds."""

    name: str
    title: str
    measure: Measure


def _stat(tree: Tree, root: Path) -> float:
    # In this process: to start another takes longer than to ask for all files.
    names = tree.names.read_text().splitlines()
    stat = os.stat
    with contextlib.chdir(root):
        start = time.perf_counter()
        for name in names:
            stat(name)
        return time.perf_counter() - start


def _stat_deep(tree: Tree, root: Path) -> float:
    return _asked(tree, root, "stat")


def _stat_near(tree: Tree, root: Path) -> float:
    return _asked(tree, root, "near")


def _asked(tree: Tree, root: Path, mode: str) -> float:
    count, seconds = run([*tree.client, mode, str(root), str(tree.names)]).split()
    if int(count) != tree.files:
        raise BenchError(f"{count} files below {root}, not {tree.files}")
    return float(seconds)


def _find(_tree: Tree, root: Path) -> float:
    return timed(["find", str(root / MANY), "-ls"])


def _find_names(_tree: Tree, root: Path) -> float:
    return timed(["find", str(root / MANY)])


def _status(_tree: Tree, root: Path) -> float:
    start = time.monotonic()
    changed = run(["git", "-C", str(root), "status", "--porcelain"])
    seconds = time.monotonic() - start
    if changed:
        raise BenchError(f"git finds {root} changed: {changed[:200]}")
    return seconds


def _chmod(tree: Tree, root: Path) -> float:
    # Another mode each time, so that there is always something to change.
    return timed(["chmod", "-R", next(tree.modes), str(root / MANY)])


WORKLOADS = [
    Workload("stat", "os.stat in Python", _stat),
    Workload("stat-deep", "lstat in C, three directories deep", _stat_deep),
    Workload("stat-near", "fstatat in C, from its directory", _stat_near),
    Workload("find", "find -ls, second pass", _find),
    Workload("find-names", "find, second pass", _find_names),
    Workload("git-status", "git status", _status),
    Workload("chmod", "chmod -R", _chmod),
]
WARMING = [each for each in WORKLOADS if each.name in ("find", "find-names", "git-status")]


def use_git_alone() -> None:
    """Let no user's settings of git count."""
    ENVIRONMENT.update(GIT_ENVIRONMENT)
    subprocess.run(["git", "--version"], check=True, stdout=subprocess.DEVNULL)
