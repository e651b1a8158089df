"""Fixtures for all tests: places for real mounts, and the check that none is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.forking import all_modules, use_forks
from support.mounting import in_place, mounted_paths, why_no_host
from support.sizing import too_late
from support.skipping import cannot, skip

# How long an example takes says more of the machine than of the code.
settings.register_profile("inopt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inopt")

# A shell starts what is in its background with SIGINT ignored, which all programs would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before this process has threads. Commands as users start them have tests of their own, by
# `support.mounting.run_program`.
use_forks(all_modules())


# What needs the least comes first.
_ROOMS = ("unit", "host", "lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the tests into the order of their rooms."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: _ROOMS.index(item.path.relative_to(tests).parts[0]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no test when the time is over."""
    reason = too_late()
    if reason is not None:
        skip(reason)


@pytest.fixture(scope="session")
def host() -> None:
    """Skip where nothing can be mounted, but never in CI."""
    reason = why_no_host()
    if reason is not None:
        cannot(f"no host tests: {reason}")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_mounted() -> Iterator[None]:
    """After all tests, none of their mounts is left."""
    before = set(mounted_paths())
    yield
    left = set(mounted_paths()) - before
    assert not left, f"left mounted: {left}"


@pytest.fixture
def place(host: None) -> Iterator[Path]:
    """A directory that every user can reach."""
    with in_place("case") as made:
        yield made
