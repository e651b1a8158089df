"""Each example has one command that shows it working."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

_EXAMPLES = Path(__file__).parents[2] / "examples"
_SHOWS = {
    "audit": (
        '"opcode": "RENAME',
        "READ: none; WRITE: none",
    ),
    "branches": ("READ: none;", "violets are blue"),
    "hydrate": ("READ: none; WRITE: none",),
    "overlay": ("READ: none; WRITE: none", "kernel's overlayfs shows the same tree"),
    "quota": ("Disk quota exceeded",),
    "redact": ("1003,****",),
    "transparent-zstd": ("no more bottles",),
    "versions": ("READ: none; WRITE: none",),
}


def test_all_demos_are_here() -> None:
    found = {path.parent.name for path in _EXAMPLES.glob("*/demo.py")}
    assert found - {"mirror"} == set(_SHOWS)  # what mirror's takes is another matter


@pytest.mark.parametrize("example", _SHOWS)
def test_demo(host: None, example: str) -> None:
    done = subprocess.run(
        [sys.executable, str(_EXAMPLES / example / "demo.py")],
        capture_output=True,
        check=False,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    for line in _SHOWS[example]:
        assert line in done.stdout
