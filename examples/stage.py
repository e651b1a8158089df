"""What the demos share: a place on disk, a mount in it, and somebody to work there.

Nothing is left behind, and nothing is removed across a mount.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

INOPT = [sys.executable, "-m", "inopt"]
NOBODY = 65534
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stage:
    """A directory with ``source``, its mount at ``mnt``, and the daemon's ``log``."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.source = place / "source"
        self.mnt = place / "mnt"
        self.log = place / "log"
        self.source.mkdir()
        self.mnt.mkdir()

    def stats(self) -> dict[str, Any]:
        """What ``inopt stats`` says."""
        answer: dict[str, Any] = json.loads(inopt("stats", str(self.mnt), "--json"))
        return answer

    def served(self, *opcodes: str) -> str:
        """Who served opcodes, in one line; what the kernel served is in none of the counts."""
        stats = self.stats()
        parts = []
        for name in opcodes:
            counts = {who: stats[name][who] for who in ("handler", "daemon", "denied")}
            told = ", ".join(f"{who} {count}" for who, count in counts.items() if count)
            parts.append(f"{name}: {told or 'none'}")
        return "; ".join(parts)

    def records(self, event: str, *, seconds: float = 0) -> list[dict[str, Any]]:
        """The daemon's log records with this event, waiting up to *seconds* for the first."""
        end = time.monotonic() + seconds
        while True:
            lines = self.log.read_text(encoding="utf-8").splitlines()
            found = [record for record in map(json.loads, lines) if record["event"] == event]
            if found or time.monotonic() >= end:
                return found
            time.sleep(0.05)


@contextmanager
def stage() -> Iterator[Stage]:
    """A place for one demo, removed afterwards. Ends the program unless it is root's."""
    with own_place() as place:
        place.chmod(0o755)
        yield Stage(place)
    say("unmounted; nothing is left behind")


@contextmanager
def own_place() -> Iterator[Path]:
    """A directory in which ``mnt`` may be mounted; removed without ever going across a mount.

    Also if the program is told to end. Ends it unless it is root's.
    """
    if os.geteuid() != 0:
        raise SystemExit("demo: needs root: mounting needs CAP_SYS_ADMIN")
    for number in _ENDING:
        signal.signal(number, _end)
    place = Path(tempfile.mkdtemp(prefix="inopt-example-", dir="/var/tmp"))
    try:
        yield place
    finally:
        if os.path.ismount(place / "mnt"):
            subprocess.run([*INOPT, "umount", "--lazy", str(place / "mnt")], check=True)
        subprocess.run(["rm", "-rf", "--one-file-system", str(place)], check=True)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)  # what is there is being removed
    raise SystemExit(128 + number)


@contextmanager
def mounted(on: Stage, policy: Path, *, layers: bool = False, **environment: str) -> Iterator[Path]:
    """Mount ``on.source`` under *policy*; the daemon gets *environment* on top of ours.

    *layers*: the policy names them, and they are mounted instead.
    """
    log = ("--log-format", "json", "--log-file", str(on.log))
    source = [] if layers else [str(on.source)]
    inopt("mount", str(policy), *source, str(on.mnt), *log, **environment)
    try:
        yield on.mnt
    finally:
        inopt("umount", str(on.mnt))


def inopt(*arguments: str, **environment: str) -> str:
    """Run the command line; its one line of error ends the demo."""
    done = subprocess.run(
        [*INOPT, *arguments],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return done.stdout


def say(*words: object) -> None:
    """Print one line."""
    print(*words, flush=True)


def show(root: Path, command: str, **how: Any) -> str:
    """Run a shell command in *root*, print it with what it answers, and return the answer."""
    done = subprocess.run(  # noqa: S602 - the demos' own commands
        command,
        shell=True,
        cwd=root,
        capture_output=True,
        check=False,
        text=True,
        **how,
    )
    answer: str = (done.stdout + done.stderr).strip()
    say(f"$ {command}")
    for line in answer.splitlines():
        say(f"  {line}")
    return answer


def require(what: bool, told: str) -> None:
    """End the demo if something is not as it says."""
    if not what:
        raise SystemExit(f"demo: not as expected: {told}")


def until(is_so: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait for what happens after close(2) has returned; False if it does not."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
