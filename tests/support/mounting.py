"""Real mounts for tests: always taken away again, whatever happened meanwhile.

Everything lives in places that `make_place` has made; `remove_place` never goes across a mount.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from inopt.cli.stats import control_path_of
from inopt.session import asking
from support.waiting import wait_gone

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_DETACH: Final = 2
_PREFIX: Final = "inopt-tests-"
_SPACE: Final = os.environ.get("INOPT_TEST_SPACE", "/var/tmp")
_NONE: Final[Mapping[str, str]] = {}


def inopt(
    *arguments: str, cwd: Path | str = _SPACE, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, never in the repository, by whatever is quickest here."""
    return run_command(*arguments, cwd=cwd, timeout=timeout, **environment)


def inopt_program() -> str:
    """The path of the command under test."""
    return str(Path(sys.executable).with_name("inopt"))


def run_program(
    *arguments: str, cwd: Path | str = _SPACE, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as users do.

    Its output is captured, so a daemon that kept the pipes would hang it.
    """
    return subprocess.run(
        [inopt_program(), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


# How the command is run: see `support.forking`.
run_command: Callable[..., subprocess.CompletedProcess[str]] = run_program


def why_no_host() -> str | None:
    """Why host tests cannot run here, or None."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if os.geteuid() != 0:
        return "not root"
    return None


def mounts_below(path: Path | str) -> list[str]:
    """All mountpoints at or below *path*, the innermost and latest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = [line.split(" ")[4] for line in lines]
    prefix = str(path).rstrip("/")
    return [
        point for point in reversed(points) if point == prefix or point.startswith(prefix + "/")
    ]


def mounted_paths() -> list[str]:
    """Every mountpoint in any place that this run of the tests has made."""
    own = f"{_SPACE}/{_PREFIX}{os.getpid()}-"
    return [point for point in mounts_below(_SPACE) if point.startswith(own)]


def make_place(name: str) -> Path:
    """A directory on a real filesystem that every user can reach."""
    place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{name}-", dir=_SPACE))
    place.chmod(0o755)
    return place


def remove_place(place: Path) -> None:
    """Remove what `make_place` has made. Refuses while anything is mounted in it."""
    assert str(place).startswith(f"{_SPACE}/{_PREFIX}"), f"not a place of the tests: {place}"
    for point in mounts_below(place):
        detach(point)
    left = mounts_below(place)
    assert not left, f"still mounted, nothing removed: {left}"
    subprocess.run(["chattr", "-R", "-f", "-ia", str(place)], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", "--one-file-system", str(place)], check=True)


@contextmanager
def in_place(name: str) -> Iterator[Path]:
    """A place, removed afterwards."""
    place = make_place(name)
    try:
        yield place
    finally:
        remove_place(place)


class Mount:
    """One inopt mount of *source* at *path*, with its log at hand.

    *layers*: the arguments that name what is mounted, instead of *source*.
    """

    def __init__(
        self,
        source: Path,
        path: Path,
        *arguments: str,
        policy: str = "mirror",
        environment: Mapping[str, str] = _NONE,
        layers: Sequence[str] | None = None,
    ) -> None:
        self.source = source
        self.path = path
        self.log = path.parent / f"{path.name}.log"
        what = [str(source), str(path)] if layers is None else [str(path), *layers]
        done = inopt(
            "mount", policy, *what, "--log-format", "json", "--log-file", str(self.log),
            *arguments, cwd=_SPACE, timeout=240, **environment,
        )  # fmt: skip
        assert done.returncode == 0, f"cannot mount: {done.stderr}"
        try:
            self.pid = int(self.stats()["pid"])
        except BaseException:
            detach(path)
            raise

    def stats(self) -> dict[str, Any]:
        """What ``inopt stats --json`` says."""
        return asking.ask(control_path_of(str(self.path)), "stats")

    def complaints(self) -> list[str]:
        """The log lines that tell of something unexpected."""
        return [
            line
            for line in self.log.read_text(encoding="utf-8").splitlines()
            if json.loads(line)["level"] in ("warning", "error")
        ]

    def close(self) -> None:
        """Unmount; as a last resort detach, and kill the daemon."""
        done = inopt("umount", str(self.path))
        try:
            assert done.returncode == 0, f"cannot unmount: {done.stderr}"
            assert wait_gone(self.pid), "the daemon runs on after umount"
        finally:
            if mounts_below(self.path):
                detach(self.path)
            if not wait_gone(self.pid):
                os.kill(self.pid, signal.SIGKILL)


@contextmanager
def mounted(
    source: Path,
    path: Path,
    *arguments: str,
    policy: str | Path = "mirror",
    environment: Mapping[str, str] = _NONE,
) -> Iterator[Mount]:
    """Mount, and unmount afterwards; *environment* is added to that of the command."""
    for directory in (source, path):
        with suppress(FileExistsError):  # not asked for its kind: it may be a dead mount
            directory.mkdir()
    mount = Mount(source, path, *arguments, policy=str(policy), environment=environment)
    try:
        yield mount
    finally:
        mount.close()


def detach(path: Path | str) -> None:
    """umount2(2) with MNT_DETACH."""
    _LIBC.umount2(os.fsencode(path), _DETACH)
