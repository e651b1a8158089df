"""Where the lab is that boots other kernels, and by what its machines are emulated."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from support.clients import TESTS

REPOSITORY: Final = TESTS.parent
_LAB: Final = os.environ.get("INOPT_LAB", "../shared/lab")
_EMULATOR: Final = "qemu-system-x86_64"
# Has one of that name, with a clock that counts instructions.
_COUNTING: Final = TESTS / "lab" / "counting"


class LabMissingError(Exception):
    """Why there is no lab, and what to do."""


def find_lab() -> Path:
    """The lab's run script. Raises `LabMissingError`."""
    run = (REPOSITORY / _LAB / "run").resolve()
    if not run.exists():
        raise LabMissingError(
            f"no lab kernel at {run}: set INOPT_LAB to the lab's folder (docs/kernel.md)"
        )
    if shutil.which(_EMULATOR) is None:
        raise LabMissingError(f"{_EMULATOR} is missing: install qemu-system-x86")
    return run


def with_counting_clock(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which the lab's machines measure time by what they have done."""
    path = f"{_COUNTING}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return {**environment, "PATH": path}
