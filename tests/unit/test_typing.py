"""What users write is checked by mypy and pyright, and mistakes in it are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_WRITTEN = Path(__file__).parents[1] / "typing"
_PATIENCE = 240
# What a program may import, and the classes of what it gets from there.
_PUBLIC = (
    "inopt.exceptions",
    "inopt.handlers.base",
    "inopt.handlers.daemon",
    "inopt.handlers.directory",
    "inopt.handlers.reach",
    "inopt.handlers.types",
    "inopt.policy.callers.Caller",
    "inopt.session.embedding",
    "inopt.session.session",
    "inopt.testing",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A program of its own, to which inopt is an installed package."""
    for name in ("handlers.py", "wrong.py"):
        shutil.copy(_WRITTEN / name, tmp_path)
    settings = {
        "strict": ["handlers.py"],
        "enableTypeIgnoreComments": False,  # those are mypy's
        "reportUnnecessaryTypeIgnoreComment": "error",
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


def _run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    bin_directory = os.path.dirname(sys.executable)
    return subprocess.run(
        [os.path.join(bin_directory, command[0]), *command[1:]],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
        # pyright asks the first python of the path where packages are.
        env={**os.environ, "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}"},
    )


def _mypy(place: Path) -> subprocess.CompletedProcess[str]:
    return _run(place, "mypy", "--strict", "--config-file=", "handlers.py", "wrong.py")


@pytest.mark.parametrize(
    "check",
    [pytest.param(_mypy, id="mypy"), pytest.param(lambda p: _run(p, "pyright"), id="pyright")],
)
class TestCheckers:
    def test_handlers_are_clean_and_expected_errors_are_all(self, place: Path, check: Any) -> None:
        done = check(place)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_every_mistake_is_found(self, place: Path, check: Any) -> None:
        wrong = place / "wrong.py"
        lines = wrong.read_text().splitlines()
        wrong.write_text("\n".join(line.split("  # type: ignore")[0] for line in lines))
        done = check(place)
        expected = {n for n, line in enumerate(lines, 1) if "# type: ignore[" in line}
        assert {n for n in range(1, len(lines) + 1) if f"wrong.py:{n}:" in done.stdout} == expected
        assert len(expected) > 20
        assert "handlers.py:" not in done.stdout


def test_a_comment_without_a_mistake_is_an_error(place: Path) -> None:
    with (place / "wrong.py").open("a") as file:
        file.write(
            "right: int = 1  # type: ignore[assignment]  # pyright: ignore[reportIndexIssue]\n"
        )
    for done in (_mypy(place), _run(place, "pyright")):
        assert done.returncode == 1
        assert "nused" in done.stdout or "nnecessary" in done.stdout


def test_all_that_users_may_import_is_annotated(tmp_path: Path) -> None:
    done = _run(tmp_path, "pyright", "--verifytypes", "inopt", "--ignoreexternal", "--outputjson")
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["pyTypedPath"].endswith("py.typed")
    assert report["exportedSymbolCounts"]["withUnknownType"] == 0
    names = {symbol["name"] for symbol in report["symbols"]}
    assert {"inopt.run", "inopt.handlers.base.Handlers.open", "inopt.testing.fake_mount"} <= names
    # A class of the inside whose own attributes are inferred is not what users see.
    inferred = [
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in report["symbols"]
        for diagnostic in symbol["diagnostics"]
        if symbol["name"].startswith(_PUBLIC) and "missing type annotation" in diagnostic["message"]
    ]
    assert inferred == []
