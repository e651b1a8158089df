"""Other kernels than the running one: boots them in an emulated machine, with the host's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.clients import TESTS
from support.laboratory import REPOSITORY, with_counting_clock
from support.sizing import STRESS, too_late
from support.skipping import skip

# Seconds; a boot and its tests take one or two minutes on an idle machine.
PATIENCE: Final = 14_400 if STRESS else 1400
_USUALLY: Final = 300  # seconds, of a boot on a slow machine
_ATTEMPTS: Final = 3
# How the lab says that a kernel has not begun within the minute that it is given.
_NOT_BOOTED: Final = "boot failed"
_NOT_BOOTED_STATUS: Final = 125
_PACKAGES: Final = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
# For what makes many or large files: at least 200,000 inodes.
ROOM: Final = ("--mem", "3072", "--disk", "4000")
# Where tests find what they need, and how much longer than elsewhere they wait.
_ENVIRONMENT: Final = {
    "PYTHONPATH": str(TESTS), "INOPT_TEST_SPACE": "/lab", "INOPT_TEST_SLOWNESS": "10",
}  # fmt: skip


@dataclass(frozen=True)
class Boot:
    """A kernel that speaks *abi* (a name of the lab's), and what Python is to run on it.

    *kind*: of the filesystem at ``/lab``. *late*: what comes first tells more.
    """

    abi: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    kind: str = "ext4"
    late: bool = False

    @property
    def missing(self) -> str | None:
        """Why it cannot be, here: a filesystem that nothing makes."""
        if shutil.which(f"mkfs.{self.kind}") is not None:
            return None
        return f"mkfs.{self.kind} is missing: install {_PACKAGES[self.kind]}"

    def begin(self, lab: Path, directory: str) -> subprocess.Popen[str]:
        """Start it in *directory*; *lab* is the lab's run script."""
        return subprocess.Popen(
            [
                str(lab), "--abi", self.abi, "--cpus", "1", "--fs", self.kind,
                "--timeout", str(PATIENCE), "--bind", str(REPOSITORY), *self.options,
                "--", sys.executable, *self.command,
            ],
            # What it may write to. The repository itself is read by way of caches elsewhere.
            cwd=directory,
            env=with_counting_clock({**os.environ, **_ENVIRONMENT, **dict(self.environment)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip


def with_pytest(abi: str, *patterns: str, tier: str, kind: str = "ext4") -> Boot:
    """Run tests of `tests/host`, in files of such names, at one tier of a kernel."""
    files = [path for pattern in patterns for path in sorted((TESTS / "host").glob(pattern))]
    assert files, patterns
    environment = {"INOPT_TEST_TIERS": tier, "INOPT_STRESS": ""}
    if abi == "v7" and tier != "none":
        environment["INOPT_TEST_ABI"] = "rfc-v7"  # never taken by itself
    return Boot(
        abi,
        (
            "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfEs", "--no-header", "--tb=short",
            "--timeout", str(PATIENCE), *map(str, files),
        ),
        ROOM,
        tuple(environment.items()),
        kind=kind,
        late=True,
    )  # fmt: skip


class Boots:
    """Boots in the order in which tests want them: two at once if there are processors for them."""

    def __init__(self, lab: Path, wanted: Iterable[Boot]) -> None:
        self._lab = lab
        self._running: set[subprocess.Popen[str]] = set()
        self._again = threading.Lock()
        self._pool = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
        self._futures = {boot: self._pool.submit(self._run, boot) for boot in dict.fromkeys(wanted)}

    def output_of(self, boot: Boot) -> str:
        """What it printed; skips the test if it could not be begun. Raises `AssertionError`."""
        done = self._futures[boot].result()
        if isinstance(done, str):
            skip(done)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
        return done.stdout

    def close(self) -> None:
        """End those that nobody waits for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in set(self._running):
            process.terminate()
        self._pool.shutdown()

    def _run(self, boot: Boot) -> subprocess.CompletedProcess[str] | str:
        """What came of it, or why it was not begun."""
        reason = boot.missing or too_late(_USUALLY)
        if reason is not None:
            return reason
        done = self._attempt(boot)
        for _ in range(_ATTEMPTS - 1):
            if done.returncode != _NOT_BOOTED_STATUS or _NOT_BOOTED not in done.stderr:
                break
            with self._again:  # two that began at once may have been in each other's way
                done = self._attempt(boot)
        return done

    def _attempt(self, boot: Boot) -> subprocess.CompletedProcess[str]:
        with (
            tempfile.TemporaryDirectory(prefix="inopt-tests-lab-", dir="/var/tmp") as directory,
            boot.begin(self._lab, directory) as process,
        ):
            self._running.add(process)
            try:
                output, errors = process.communicate(timeout=PATIENCE + 60)
            finally:
                process.terminate()
                self._running.discard(process)
            return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
