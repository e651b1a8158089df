"""How much a run tests: a share by default, everything with ``INOPT_STRESS=1``.

The usual run must end in time on a slow machine, too. What it leaves out of many cases is chosen
by their names: the same ones in each run. And it begins nothing any more after
``INOPT_TEST_MINUTES`` (40), which says so of each test.
"""

from __future__ import annotations

import os
import time
import zlib
from typing import Final

STRESS: Final = bool(os.environ.get("INOPT_STRESS"))
_MINUTES: Final = float(os.environ.get("INOPT_TEST_MINUTES", "40"))
_BEGAN: Final = time.monotonic()


def too_late(seconds: float = 0) -> str | None:
    """Why what takes so many *seconds* is not begun any more, or None."""
    if STRESS or time.monotonic() + seconds < _BEGAN + _MINUTES * 60:
        return None
    return (
        f"the {_MINUTES:g} minutes of a run are over: give INOPT_TEST_MINUTES=… or INOPT_STRESS=1"
    )


def chosen(turn: int, turns: int, *names: str) -> bool:
    """Whether a case runs at this turn: at one of the *turns*, or at each with INOPT_STRESS."""
    return STRESS or zlib.crc32(" ".join(names).encode()) % turns == turn


def examples(count: int) -> int:
    """How many examples hypothesis makes, of *count* with INOPT_STRESS."""
    return count if STRESS else count // 5
