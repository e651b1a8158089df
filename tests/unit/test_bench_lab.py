"""What the bench in the lab makes of its numbers: speeds, verdicts, the picture."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench.lab.picture import Words, draw
from bench.lab.verdicts import BARE, BARE_FEW, WANTED, judge, relative

BENCH = Path(__file__).parent.parent / "bench" / "inode_tier.py"
SVG = "{http://www.w3.org/2000/svg}"


def test_each_tier_is_compared_with_a_bare_tree_of_its_size() -> None:
    seconds = {
        "stat": {
            BARE: [2.0, 1.0],
            BARE_FEW: [0.1, 0.3],
            "inode": [2.5, 2.0, 9.0],
            "rw": [1.0],
            "none": [2.0],
        }
    }
    assert relative(seconds) == {"stat": {"inode": 0.5, "rw": 0.1, "none": 0.05}}


def test_a_tier_that_was_not_measured_is_left_out() -> None:
    seconds = {"stat": {BARE: [1.0], BARE_FEW: [1.0], "none": [4.0]}}
    assert relative(seconds) == {"stat": {"none": 0.25}}
    assert judge(relative(seconds)) == []


def test_verdicts() -> None:
    good = {name: {"inode": wanted, "none": wanted / 10} for name, wanted in WANTED.items()}
    verdicts = judge(good)
    assert len(verdicts) == 2 * len(WANTED)
    assert all(verdict.good for verdict in verdicts)
    slow = judge({"stat": {"inode": 0.59, "none": 0.06}})
    assert [(verdict.good, verdict.wanted) for verdict in slow] == [
        (False, "≥ 0.6"),
        (False, "≥ 10"),
    ]


def test_the_picture_has_a_bar_of_the_right_length_for_each_tier() -> None:
    speeds = {
        "stat": {"inode": 0.8, "rw": 0.4, "none": 0.2},
        "find": {"inode": 2.0, "rw": 0.001, "none": 0.5},
    }
    words = Words("bare tree = 1", "goal", {tier: f"tier {tier}" for tier in speeds["stat"]})
    titles = {"stat": "a < b", "find": "find"}
    picture = draw(speeds, titles, {"stat": 0.6}, "4 files & more", words)
    root = ET.fromstring(picture)  # noqa: S314, it is our own
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.get("height") == "16"]
    assert len(bars) == 6
    length = [float(bar.get("width", "")) for bar in bars]
    assert length[0] == pytest.approx(2 * length[1], abs=0.2)
    assert length[1] == pytest.approx(2 * length[2], abs=0.2)
    assert length[3] == max(length)
    assert length[4] >= 1, "what is too short to draw is still there"
    assert len({bar.get("fill") for bar in bars}) == 3
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a < b", "4 files & more", "0.80", "2.00"} <= set(texts)
    width = float(root.get("width", ""))
    for bar in bars:
        assert float(bar.get("x", "")) + float(bar.get("width", "")) < width


def bench(
    *arguments: str, program: Path = BENCH, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_it_says_clearly_that_there_is_no_lab(tmp_path: Path) -> None:
    done = bench(INOPT_LAB=str(tmp_path))
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert "set INOPT_LAB" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "option"),
    [("inode_tier.py", "--svg"), ("overlay.py", "--svg"), ("overlay.py", "--json"),
     ("run.py", "--json")],
)  # fmt: skip
def test_where_nothing_can_be_written_is_noticed_first(
    tmp_path: Path, name: str, option: str
) -> None:
    done = bench(option, str(tmp_path / "missing" / "file"), program=BENCH.with_name(name))
    assert done.returncode == 2
    assert "no such directory" in done.stderr
    assert done.stdout == ""
