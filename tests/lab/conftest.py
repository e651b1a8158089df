"""The lab, which boots a kernel in an emulated machine: ``INOPT_LAB`` names its folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
LAB = Path(os.environ.get("INOPT_LAB", REPOSITORY.parent / "shared" / "lab"))


@pytest.fixture(scope="session")
def lab() -> Path:
    """The lab's run script; without a lab these tests cannot run."""
    run = (REPOSITORY / LAB / "run").resolve()
    reason = None
    if not run.exists():
        reason = f"no lab kernel at {run}: set INOPT_LAB (docs/kernel.md)"
    elif shutil.which("qemu-system-x86_64") is None:
        reason = "qemu-system-x86_64 is missing: install qemu-system-x86"
    if reason is not None:
        print(f"lab tests skipped: {reason}")
        pytest.skip(reason)
    return run
