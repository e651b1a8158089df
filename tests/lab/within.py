"""What programs inside the lab share: where, the command as a fork, and what the kernel counts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.forking import use_forks
from support.mounting import inopt

from inopt.cli.stats import control_path_of
from inopt.session import asking

SCRATCH: Final = Path(os.environ.get("LAB_SCRATCH", "/lab"))
BACK: Final = SCRATCH / "back"
MOUNT: Final = SCRATCH / "mnt"
_NEEDED: Final = ("cli.mount", "cli.umount", "cli.stats", "session.running")
_PATIENCE: Final = 120.0  # seconds: the processor is emulated


def begin(*modules: str) -> None:
    """Before anything else: import what most commands need, and *modules* of inopt, for all forks.

    Each start of Python takes up to minutes on an emulated processor.
    """
    use_forks(f"inopt.{name}" for name in (*_NEEDED, *modules))


def command(*words: str | Path) -> str:
    """What the command answers. Raises `AssertionError`."""
    done = inopt(*map(str, words), cwd=SCRATCH, timeout=_PATIENCE)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def mount_by(policy: str, source: Path = BACK, *words: str) -> int:
    """Mount *source* at `MOUNT` by a policy's text; the daemon's pid."""
    path = SCRATCH / "policy.yaml"
    path.write_text(f"version: 1\n{policy}\n")
    command("mount", path, source, MOUNT, *words)
    return int(stats(MOUNT)["pid"])


def umount() -> None:
    """Unmount `MOUNT`."""
    command("umount", MOUNT)


def stats(mountpoint: Path) -> dict[str, Any]:
    """What ``inopt stats --json`` says, without a process for it."""
    return asking.ask(control_path_of(str(mountpoint)), "stats", _PATIENCE)


class Counters:
    """What the kernel counts of a mount: the ``requests`` it sent, and what it ``served`` alone."""

    def __init__(self, mountpoint: Path) -> None:
        minor = os.minor(mountpoint.stat().st_dev)
        self._connection = Path("/sys/fs/fuse/connections") / str(minor)
        self._before = self.now()

    def now(self) -> dict[str, dict[str, int]]:
        """All of it, by kind and name."""
        return {
            "requests": _numbers_in(self._connection / "request_counts"),
            "served": _numbers_in(self._connection / "passthrough_stats"),
        }

    def since(self) -> dict[str, dict[str, int]]:
        """What was added since this was made."""
        return {
            kind: {name: count - self._before[kind].get(name, 0) for name, count in counts.items()}
            for kind, counts in self.now().items()
        }


def _numbers_in(path: Path) -> dict[str, int]:
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.replace(":", " ").partition(" ")
        if value.strip().isdigit():
            found[name] = int(value)
    return found


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in {_PATIENCE:g} seconds"
        time.sleep(0.1)
