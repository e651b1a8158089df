"""Ways to serve a mirror: by handlers that override everything, and through stock pyfuse3."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.battery import Battery
from support.clients import TESTS, clients
from support.mounting import Mount, detach, in_place, mounted, mounts_below, run_program
from support.waiting import wait_gone

_POLICY: Final = """\
version: 1
handlers: support.everything:{handlers}
rules:
- handle: all
"""


class Pyfuse3Mount(Mount):
    """A mirror that stock pyfuse3 serves: it has no control socket."""

    def __init__(self, source: Path, path: Path, *arguments: str, policy: str = "mirror") -> None:
        self.source = source
        self.path = path
        self.log = path.parent / f"{path.name}.log"
        # (As users do: the server is found by its command line.)
        done = run_program(
            "mount", policy, str(source), str(path), "--transport", "pyfuse3",
            "--log-format", "json", "--log-file", str(self.log), *arguments,
        )  # fmt: skip
        assert done.returncode == 0, f"cannot mount: {done.stderr}"
        self.pid = _daemon_of(path)

    def stats(self) -> dict[str, Any]:
        """Nobody can be asked."""
        raise NotImplementedError

    def complaints(self) -> list[str]:
        """Log lines of inopt's own: pyfuse3's are no JSON."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if line.startswith("{")]
        return [line for line in found if json.loads(line)["level"] in ("warning", "error")]

    def close(self) -> None:
        """Unmount, and wait for the server."""
        done = subprocess.run(["umount", str(self.path)], check=False, capture_output=True)
        if mounts_below(self.path):
            detach(self.path)
        assert done.returncode == 0, done.stderr
        assert wait_gone(self.pid), "the server runs on after umount"


def _daemon_of(path: Path) -> int:
    wanted = os.fsencode(path)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as command:
                    words = command.read().split(b"\0")
            except OSError:
                continue
            if wanted in words and b"mount" in words:
                return int(name)
    raise AssertionError(f"nobody serves {path}")


@contextmanager
def _handled(handlers: str, place: Path) -> Iterator[Mount]:
    policy = place / "everything.yaml"
    policy.write_text(_POLICY.format(handlers=handlers))
    environment = {"PYTHONPATH": str(TESTS)}
    source, path = place / "back", place / "mnt"
    with mounted(source, path, policy=policy, environment=environment) as mount:
        yield mount


@contextmanager
def on_pyfuse3(place: Path, *arguments: str, policy: str = "mirror") -> Iterator[Mount]:
    """A mirror beneath *place* that stock pyfuse3 serves."""
    source, path = place / "back", place / "mnt"
    source.mkdir()
    path.mkdir()
    mount = Pyfuse3Mount(source, path, *arguments, policy=policy)
    try:
        yield mount
    finally:
        mount.close()


WAYS: Final[dict[str, Callable[[Path], Any]]] = {
    "async": lambda place: _handled("AsyncEverything", place),
    "plain": lambda place: _handled("PlainEverything", place),
    "pyfuse3": on_pyfuse3,
}


@contextmanager
def battery_by(way: str) -> Iterator[Battery]:
    """A battery whose mount is served in this *way*."""
    with in_place(f"way-{way}") as place, clients() as people, WAYS[way](place) as mount:
        yield Battery(place, mount, way, people, excused_as="none")
        people.close()
