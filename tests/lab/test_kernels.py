"""Everyday operations on other kernels than the running one: see `everyday.py`.

The lab boots a kernel in an emulated machine; ``INOPT_LAB`` names the folder with its ``run``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


def run_in_lab(lab: Path, abi: str, tier: str, *options: str) -> dict[str, Any]:
    command = [str(lab), "--abi", abi, "--cpus", "1", "--timeout", "300", *options, "--"]
    done = subprocess.run(
        [*command, sys.executable, str(HERE / "everyday.py"), tier],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def test_the_oldest_protocol(lab: Path) -> None:
    """7.31, as Linux 5.4 to 5.10 speak it: short INIT, no bypass."""
    answer = run_in_lab(lab, "mainline", "auto", "--append", "fuse.lab_minor=31")
    assert answer["protocol"] == "7.31"
    assert answer["tier"] == "none"
    assert answer["READ"]["daemon"] > 0


@pytest.mark.parametrize("abi", ["mainline", "ino2"])
def test_the_rw_tier(lab: Path, abi: str) -> None:
    answer = run_in_lab(lab, abi, "rw")
    assert answer["dialect"] == "mainline"
    assert answer["READ"]["daemon"] == 0


def test_a_kernel_without_mainlines_bypass(lab: Path) -> None:
    answer = run_in_lab(lab, "v7", "auto")
    assert answer["tier"] == "none"
