"""How much a run tests: a share by default, everything with ``INOPT_STRESS=1``.

The usual run must end in time on a slow machine, too. What it leaves out of many cases is chosen
by their names: the same ones in each run.
"""

from __future__ import annotations

import os
import zlib
from typing import Final

STRESS: Final = bool(os.environ.get("INOPT_STRESS"))


def chosen(turn: int, turns: int, *names: str) -> bool:
    """Whether a case runs at this turn: at one of the *turns*, or at each with INOPT_STRESS."""
    return STRESS or zlib.crc32(" ".join(names).encode()) % turns == turn


def examples(count: int) -> int:
    """How many examples hypothesis makes, of *count* with INOPT_STRESS."""
    return count if STRESS else count // 5
