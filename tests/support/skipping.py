"""Skips that say why, also where pytest's own report of them is cut short."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip(reason: str) -> NoReturn:
    """Skip the test for what the machine does not have."""
    print(f"skipped: {reason}")
    pytest.skip(reason)


def cannot(reason: str) -> NoReturn:
    """Skip the test for what CI always has: there it fails."""
    if os.environ.get("CI"):
        pytest.fail(f"not skipped in CI: {reason}")
    skip(reason)
