"""The bench in the lab, small: it measures what it says, by the kernel's own account."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench.lab.verdicts import WANTED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(700)]

BENCH = Path(__file__).parent.parent / "bench" / "inode_tier.py"
FILES = 300


def test_what_is_measured_bypasses_at_tier_inode_alone(lab: Path, tmp_path: Path) -> None:
    numbers, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    done = subprocess.run(
        [
            sys.executable, str(BENCH), "--files", str(FILES), "--rounds", "1",
            "--timeout", "600", "--json", str(numbers), "--svg", str(picture),
        ],
        capture_output=True, text=True, check=False, timeout=690,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    facts = json.loads(numbers.read_text())
    assert set(facts["speeds"]) == {*WANTED, "stat-deep", "stat-near"}
    assert len(facts["goals"]) == 3 * len(WANTED)
    for workload, counted in facts["counted"].items():
        inode, others = counted["inode"], [counted["rw"], counted["none"]]
        assert inode["served"]["getattr"] >= FILES, workload
        # The mount's root alone has no backing file.
        assert inode["requests"].get("GETATTR", 0) < FILES / 3, workload
        assert not {"SETATTR", "READDIR", "READDIRPLUS"} & set(inode["requests"]), workload
        for other in others:
            assert "getattr" not in other["served"], workload
            assert other["requests"]["GETATTR"] > 0, workload
    # The index made on the bare tree is right on a mount: no file is read to make sure.
    assert facts["counted"]["git-status"]["inode"]["requests"]["OPEN"] < FILES / 3
    assert facts["counted"]["chmod"]["inode"]["served"]["setattr"] >= FILES
    assert facts["counted"]["chmod"]["none"]["requests"]["SETATTR"] >= FILES // 10
    assert "goal" in done.stdout
    assert ET.fromstring(picture.read_text()).tag.endswith("svg")  # noqa: S314, it is our own
