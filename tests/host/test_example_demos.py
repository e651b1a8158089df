"""Each example has one command that shows it working."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inopt.kernel.mounts import find_mount

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

_WAITING = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stage import mounted, stage
with stage() as on, mounted(on, Path("mirror")):
    print(on.place, flush=True)
    time.sleep(300)
"""


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end(host: None, number: signal.Signals) -> None:
    """What a demo has made and mounted goes away with it."""
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING, str(_EXAMPLES)], stdout=subprocess.PIPE, text=True
    ) as demo:
        try:
            assert demo.stdout is not None
            place = demo.stdout.readline().strip()
            assert find_mount(f"{place}/mnt") is not None
            demo.send_signal(number)
            assert demo.wait(240) == 128 + number
        finally:
            demo.kill()
    assert find_mount(f"{place}/mnt") is None
    assert not Path(place).exists()
