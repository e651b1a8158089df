"""Other kernels than the running one: boots them in an emulated machine, with the host's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
from lab.guest import Plan, Report

_TESTS: Final = Path(__file__).parent.parent
_REPOSITORY: Final = _TESTS.parent
PATIENCE: Final = 900  # seconds; a boot and its tests take one or two minutes on an idle machine


def boot(lab: Path, abi: str, plan: Plan, *options: str) -> Report:
    """Boot the kernel that speaks *abi* (a name of the lab's), and carry out *plan* on it.

    *lab* is its run script.
    """
    done = subprocess.run(
        [
            str(lab), "--abi", abi, "--cpus", "1", "--timeout", str(PATIENCE), *options, "--",
            sys.executable, "-m", "lab.guest", msgspec.json.encode(plan).decode(),
        ],
        cwd=_REPOSITORY,
        env={
            **os.environ, "PYTHONPATH": str(_TESTS), "INOPT_TEST_SPACE": "/lab",
            "INOPT_TEST_SLOWNESS": "10",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE + 60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Report)
