"""pytest's fixture ``inopt_mount``: write ``pytest_plugins = ["inopt.testing.fixtures"]``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from inopt.exceptions import UsageError
from inopt.kernel import mounts

_PATIENCE: Final = 120.0  # seconds: the machines that run tests can be busy ones


class RealMount:
    """A mount that the kernel serves; ``path`` is where, ``source`` the backing tree."""

    def __init__(self, path: Path, source: Path | None, log: Path) -> None:
        self.path = path
        self.source = source
        self._log = log

    def stats(self) -> dict[str, Any]:
        """What ``inopt stats`` says."""
        answer: dict[str, Any] = json.loads(_inopt("stats", str(self.path), "--json"))
        return answer

    def records(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]


MakeMount = Callable[..., RealMount]


def why_not() -> str | None:
    """Why nothing can be mounted here, or None."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    try:
        mounts.require_privilege()
    except UsageError as error:
        return str(error)
    return None


@pytest.fixture
def inopt_mount() -> Iterator[MakeMount]:
    """``inopt_mount("module:Class", source, policy="…")``: mount for real, unmount at the end.

    The class is imported by a process of its own, which searches where this one does. *policy* is
    a file's path, the name of a shipped policy, or YAML of several lines; without *source* the
    handlers need none. Skips where nothing can be mounted.
    """
    reason = why_not()
    if reason is not None:
        print(f"inopt_mount: {reason}")  # noqa: T201 - pytest shows it with -rs and -s
        pytest.skip(f"nothing can be mounted: {reason}")
    with ExitStack() as stack:
        yield lambda handlers=None, source=None, **more: stack.enter_context(
            _mounted(handlers, source, **more)
        )


@contextmanager
def _mounted(
    handlers: str | None,
    source: str | os.PathLike[str] | None,
    *,
    policy: str = "mirror",
    arguments: tuple[str, ...] = (),
) -> Iterator[RealMount]:
    with tempfile.TemporaryDirectory(prefix="inopt-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)  # noqa: S103 - other users are to reach the mount
        if "\n" in policy:
            text, policy = policy, os.path.join(place, "policy.yaml")
            Path(policy).write_text(text, "utf-8")
        path, log = Path(place, "mnt"), Path(place, "log")
        path.mkdir()
        backing = None if source is None else Path(source)
        chosen = () if handlers is None else ("--handlers", handlers)
        _inopt(
            "mount", policy, str(backing or "-"), str(path), "--log-format", "json",
            "--log-file", str(log), *chosen, *arguments,
        )  # fmt: skip
        try:
            yield RealMount(path, backing, log)
        finally:
            _unmount(path)


def _unmount(path: Path) -> None:
    try:
        _inopt("umount", str(path))
    finally:
        deadline = time.monotonic() + _PATIENCE
        while mounts.find_mount(str(path)) is not None:
            mounts.unmount(str(path), lazy=True)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is still mounted")


def _inopt(*arguments: str) -> str:
    paths = [path for path in (os.getcwd(), *sys.path) if path]
    done = subprocess.run(
        [sys.executable, "-m", "inopt", *arguments],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        raise UsageError(f"inopt {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
