"""Fixtures for batteries: one mount for each tier, for all of a run's scenarios."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.battery import Battery, battery

# Other kernels have others: see `tests/lab`.
TIERS = tuple(os.environ.get("INOPT_TEST_TIERS", "none rw").split())


@pytest.fixture(scope="session", params=TIERS)
def mirror(host: None, request: pytest.FixtureRequest) -> Iterator[Battery]:
    """A mount of each tier in turn, beside a bare directory."""
    with battery(request.param) as made:
        yield made


@pytest.fixture(scope="session", params=TIERS)
def acl_mirror(host: None, request: pytest.FixtureRequest) -> Iterator[Battery]:
    """The same with ``-o acl``."""
    with battery(request.param, "acl") as made:
        yield made
