"""All scenarios of the batteries, for those who run them in ways of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

from support.battery import Stage

Scenario = Callable[[Stage], None]

_HOST: Final = Path(__file__).parent.parent / "host"


def all_scenarios(pattern: str = "*") -> list[Scenario]:
    """Those of the files ``test_battery_<pattern>.py``."""
    return _scenarios(
        *(
            importlib.import_module(f"host.{path.stem}")
            for path in sorted(_HOST.glob(f"test_battery_{pattern}.py"))
        )
    )


def _scenarios(*modules: ModuleType) -> list[Scenario]:
    """All that the tests of the modules are parametrized with."""
    found: list[Scenario] = []
    for module in modules:
        for name, value in vars(module).items():
            if name.startswith("test_"):
                for mark in value.pytestmark:
                    if mark.name == "parametrize":
                        found += mark.args[1]
    return found
