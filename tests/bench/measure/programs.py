"""Running other programs: each in a process of its own, on the processors asked for."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

ENVIRONMENT = os.environ | {"LC_ALL": "C"}


class BenchError(Exception):
    """A program or a mount did not do what it should; the message says which and how."""


@dataclass(frozen=True)
class Placement:
    """On which processors servers and clients run; empty: wherever the scheduler puts them.

    A virtual machine pays dearly for waking an idle processor, so ``same`` (one processor for
    both) and ``split`` (one each) differ several times, and ``free`` is between, by chance.
    """

    name: str
    server: tuple[int, ...] = ()
    client: tuple[int, ...] = ()

    @classmethod
    def named(cls, name: str) -> Placement:
        """``free``, ``same`` or ``split``."""
        processors = sorted(os.sched_getaffinity(0))
        first, last = (processors[0],), (processors[-1],)
        if name == "same":
            return cls(name, last, last)
        return cls(name, last, first) if name == "split" else cls(name)


def on(processors: tuple[int, ...], command: list[str]) -> list[str]:
    """*command*, kept to *processors*."""
    if not processors:
        return command
    return ["taskset", "-c", ",".join(map(str, processors)), *command]


def run(command: list[str], *, seconds: float = 600) -> str:
    """Run *command* to its end and return what it printed. Raises `BenchError`."""
    try:
        done = subprocess.run(
            command,
            env=ENVIRONMENT,
            capture_output=True,
            check=False,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{command[0]}: {error}") from error
    if done.returncode:
        message = (done.stderr or done.stdout).strip()[-400:]
        raise BenchError(f"{' '.join(command[:4])} … exit {done.returncode}: {message}")
    return done.stdout


def timed(command: list[str]) -> float:
    """The seconds that *command* takes; its output goes nowhere. Raises `BenchError`."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env=ENVIRONMENT,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{command[0]}: {error}") from error
    seconds = time.monotonic() - start
    if done.returncode:
        raise BenchError(f"{' '.join(command[:3])} … exit {done.returncode}: {done.stderr[-400:]}")
    return seconds
