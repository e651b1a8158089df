"""The command line starts fast: nothing is imported that a command does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import inopt.cli
from inopt.cli.main import inopt as command

_SLOW = "{'jsonschema', 'pyfuse3', 'rich', 'structlog', 'trio'}"


def _imported(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(sorted({_SLOW} & {{*sys.modules}}))"],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("words", [["--version"], ["schema"], ["completion", "bash"], ["mount?"]])
def test_what_needs_little_imports_little(words: list[str]) -> None:
    program = f"from inopt.cli.main import inopt\ntry: inopt.main({words})\n"
    assert _imported(f"{program}except SystemExit: pass") == "[]"


@pytest.mark.parametrize("name", ["umount", "reload", "stats"])
def test_what_asks_a_daemon_does_not_import_one(name: str) -> None:
    assert _imported(f"import inopt.cli.{name}") in ("[]", "['rich']")


def test_a_right_policy_is_read_without_jsonschema() -> None:
    program = "from inopt.policy.load import load_policy\nload_policy('mirror')"
    assert "jsonschema" not in _imported(program)


def test_every_command_is_there() -> None:
    context = click.Context(command)
    names = command.list_commands(context)
    texts = {path.stem: path.read_text() for path in Path(inopt.cli.__path__[0]).glob("*.py")}
    assert names == sorted(
        n
        for n, text in texts.items()
        if ("@click.command" in text or "@click.group" in text) and n != "main"
    )
    for name in names:
        found = command.get_command(context, name)
        assert found is not None
        assert found.name == name
    assert command.get_command(context, "stage") is None
