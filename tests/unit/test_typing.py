"""What users write is checked by mypy and pyright, and mistakes in it are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

_Told: TypeAlias = dict[str, list[str]]

_WRITTEN = Path(__file__).parents[1] / "typing"
_LINES = (_WRITTEN / "wrong.py").read_text().splitlines()
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


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Told:
    """What a checker says of each file of a program to which inopt is an installed package.

    ``plain.py`` is ``wrong.py`` without its comments, ``needless.py`` has one that nothing needs.
    """
    place = tmp_path_factory.mktemp(request.param)
    for name in ("handlers.py", "wrong.py"):
        shutil.copy(_WRITTEN / name, place)
    lines = [line.split("  # type: ignore")[0] for line in _LINES]
    (place / "plain.py").write_text("\n".join(lines))
    (place / "needless.py").write_text(
        "right: int = 1  # type: ignore[assignment]  # pyright: ignore[reportIndexIssue]\n"
    )
    settings = {
        "strict": ["handlers.py"],
        "enableTypeIgnoreComments": False,  # those are mypy's
        "reportUnnecessaryTypeIgnoreComment": "error",
        "pythonVersion": "3.11",
    }
    (place / "pyrightconfig.json").write_text(json.dumps(settings))
    names = ("handlers.py", "wrong.py", "plain.py", "needless.py")
    mypy = ("mypy", "--strict", "--config-file=", *names)
    done = _run(place, *(mypy if request.param == "mypy" else ("pyright",)))
    assert done.returncode == 1, done.stdout + done.stderr
    return {
        name: [line for line in done.stdout.splitlines() if f"{name}:" in line and "error" in line]
        for name in names
    }


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


def test_handlers_are_clean_and_expected_errors_are_all(told: _Told) -> None:
    assert told["handlers.py"] == told["wrong.py"] == []


def test_every_mistake_is_found(told: _Told) -> None:
    expected = {n for n, line in enumerate(_LINES, 1) if "# type: ignore[" in line}
    found = {int(line.split("plain.py:", 1)[1].split(":")[0]) for line in told["plain.py"]}
    assert found == expected
    assert len(expected) > 20


def test_a_comment_without_a_mistake_is_an_error(told: _Told) -> None:
    (error,) = told["needless.py"]
    assert "nused" in error or "nnecessary" in error


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
