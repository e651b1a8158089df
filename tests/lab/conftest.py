"""The lab, which boots a kernel in an emulated machine: ``INOPT_LAB`` names its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.booting import Boots
from support.laboratory import LabMissingError, find_lab
from support.sizing import STRESS
from support.skipping import skip

# Hours of boots; and one of some minutes for numbers that say nothing where it is small.
collect_ignore = [] if STRESS else ["test_all_batteries.py", "test_bench_lab.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "boot(boot): what the test boots, to be started early")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is booted late is tested late: no test waits for more boots than come before its own."""
    items.sort(key=lambda item: any(mark.args[0].late for mark in item.iter_markers("boot")))


@pytest.fixture(scope="session")
def lab() -> Path:
    """The lab's run script; without a lab these tests cannot run."""
    try:
        return find_lab()
    except LabMissingError as error:
        skip(str(error))


@pytest.fixture(scope="session")
def boots(lab: Path, request: pytest.FixtureRequest) -> Iterator[Boots]:
    """What the tests of this run boot, some of it at the same time."""
    marks = (mark for item in request.session.items for mark in item.iter_markers("boot"))
    made = Boots(lab, [mark.args[0] for mark in marks])
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def printed(boots: Boots, request: pytest.FixtureRequest) -> str:
    """What the command printed that the test has booted a kernel for."""
    mark = request.node.get_closest_marker("boot")
    assert mark is not None
    return boots.output_of(mark.args[0])
