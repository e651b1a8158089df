"""docs/overlay.md tells every finding, and what --fix does to it."""

from __future__ import annotations

import re
from pathlib import Path

from inopt.layers.tools.findings import KINDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "overlay.md"
ROW = re.compile(r"^\| (OVL\d+) \| (\w+) \| .+ \| (yes|no)[^|]* \|$", re.MULTILINE)


def test_the_table_has_them_all() -> None:
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert rows == [
        (code, kind.level.value, "yes" if kind.mends else "no") for code, kind in KINDS.items()
    ]


def test_names_are_distinct() -> None:
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)
