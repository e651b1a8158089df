"""The machine of a bench in the lab: boots its kernel, and runs a program of ours there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.measure.programs import BenchError
from support.laboratory import REPOSITORY, find_lab, with_counting_clock

CLOCKS = ("instructions", "host")
_ENDING = 60.0  # seconds


def run_in_lab(
    program: list[str],
    top: Path,
    *,
    clock: str,
    timeout: int,
    filesystem: str = "ext4",
    disk: int = 2000,
) -> str:
    """Run Python with *program* in *top*; returns its last line, having shown the others.

    *clock*: one of ``CLOCKS``; *timeout* in seconds; *disk* in MiB, at ``/lab``. Raises
    `LabMissingError`, or `BenchError` if it fails.
    """
    # One processor: with two, how the emulator wakes the other one would be measured, too.
    command = [
        str(find_lab()), "--abi", "ino2", "--fs", filesystem, "--cpus", "1", "--mem", "3072",
        "--disk", str(disk), "--timeout", str(timeout), "--bind", str(REPOSITORY),
        "--", sys.executable, *program,
    ]  # fmt: skip
    last = ""
    with subprocess.Popen(
        command,
        cwd=top,
        env=with_counting_clock(os.environ) if clock == "instructions" else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if last:
                    print(last, end="", flush=True)
                last = line
            code = process.wait(_ENDING)
        except BaseException:
            process.terminate()
            raise
    if code:
        raise BenchError(f"the lab ended with exit code {code}, and: {last.strip()}")
    return last
