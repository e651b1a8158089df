"""``coherence: notify`` beside rules by path, and beside handlers."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

import pytest
from support.clients import TESTS
from support.mounting import mounted
from support.notifying import (
    POLICY,
    mode,
    policy_in,
    shows,
)
from support.programs import error_of, start_client
from support.waiting import wait_asleep

pytestmark = pytest.mark.host


SEALED: Final = (
    POLICY
    + """
rules:
- match: {path: /sealed/**}
  deny: [open, overwrite]
"""
)
STAYS: Final = """
import os, sys
held = os.open(sys.argv[1], os.O_RDONLY)
print("ready")
sys.stdin.read()
"""


def test_a_directory_moved_under_other_rules(place: Path) -> None:
    """Names that are still believed, deep in it and in use, come under those rules, too."""
    with mounted(place / "src", place / "mnt", policy=policy_in(place, SEALED)) as mount:
        (mount.source / "open" / "dir" / "deep").mkdir(parents=True)
        (mount.source / "sealed").mkdir()
        (mount.source / "open" / "dir" / "deep" / "file").write_text("content")
        path = mount.path / "open" / "dir" / "deep"
        assert (path / "file").read_text() == "content"
        keeper = start_client(STAYS, str(path))
        try:
            (mount.source / "open" / "dir").rename(mount.source / "sealed" / "dir")
            moved = mount.path / "sealed" / "dir" / "deep" / "file"
            shows(lambda: error_of(moved.read_text) == errno.EACCES)
            (mount.source / "sealed" / "dir").rename(mount.source / "open" / "again")
            again = mount.path / "open" / "again" / "deep" / "file"
            shows(lambda: again.read_text() == "content")
        finally:
            keeper.communicate(timeout=240)


def test_a_slow_handler_holds_up_nothing_else(place: Path) -> None:
    """The kernel drops no name while a lookup in that directory is being served."""
    text = POLICY + "handlers: support.troubled:SlowLookup\nrules: [{handle: [lookup]}]\n"
    (place / "src" / "slow").mkdir(parents=True)
    (place / "src" / "calm").mkdir()
    for name in ("slow/gone", "calm/gone", "calm/file"):
        (place / "src" / name).write_text(name)
    with mounted(
        place / "src",
        place / "mnt",
        policy=policy_in(place, text),
        environment={"PYTHONPATH": str(TESTS)},
    ) as mount:
        for name in ("slow/gone", "calm/gone", "calm/file"):
            assert (mount.path / name).read_text() == name
        code = "import os, sys; print('ready'); os.path.exists(sys.argv[1])"
        waits = [start_client(code, str(mount.path / "slow" / "take-your-time")) for _ in range(2)]
        wait_asleep(*(process.pid for process in waits))
        (mount.source / "slow" / "gone").unlink()
        (mount.source / "calm" / "gone").unlink()
        (mount.source / "calm" / "file").chmod(0o611)
        shows(lambda: mode(mount.path / "calm" / "file") == 0o611)
        shows(lambda: not (mount.path / "calm" / "gone").exists())
        assert all(process.poll() is None for process in waits)
        assert not (mount.path / "calm" / "enough").exists()
        for process in waits:
            process.communicate(timeout=240)
        shows(lambda: not (mount.path / "slow" / "gone").exists())
        assert mount.complaints() == []
