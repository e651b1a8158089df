"""Waiting for what comes a moment later.

Tests wait for what happens, and never ask how long it took: a machine that is shared may hold up
any of them for seconds. What does not happen at all fails here, and what hangs by the time that a
test has (`timeout` in pyproject.toml).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

PATIENCE: Final = 60.0  # seconds


def within(check: Callable[[], bool]) -> bool:
    """Whether *check* comes true; it is tried once more when the time is over."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            if check():
                return True
        time.sleep(0.002)
    with suppress(OSError):
        return check()
    return False


def state_of(pid: int) -> str:
    """The state of a process as proc(5) calls it: ``R``, ``S``, ``T``, ``Z``, …; empty: gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def running(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    return state_of(pid) not in ("", "Z")


def wait_asleep(*pids: int) -> None:
    """Wait until processes wait for something themselves, such as the answer of a filesystem."""
    assert within(lambda: all(state_of(pid) in ("S", "D") for pid in pids))


def wait_gone(pid: int) -> bool:
    """Whether a process ends."""
    return within(lambda: not running(pid))
