"""``inopt check``: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.linting import with_version
from support.mounting import inopt

from inopt.cli.main import inopt as command
from inopt.exceptions import UsageError
from inopt.policy.linting.findings import Level
from inopt.policy.load import load_policy
from inopt.session.policing import Prepared, prepare
from inopt.session.settings import Settings

GOOD = "rules: [{match: {path: /x}, deny: unlink}, {deny: rmdir}]"
WARNED = "rules: [{match: {path: /x}, deny: lookup}]"
WRONG = "rules: [{deny: flush}]"


def write(place: Path, name: str, text: str) -> str:
    path = place / name
    path.write_text(with_version(text))
    return str(path)


def check(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["check", *arguments])


def told(*arguments: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(check(*arguments, "--json").stdout)
    return answer


def test_a_good_policy(tmp_path: Path) -> None:
    path = write(tmp_path, "good.yaml", GOOD)
    done = check(path)
    assert done.exit_code == 0
    *findings, last = done.stdout.splitlines()
    assert last == f"{path}: ok, 2 rules, 2 notes"
    assert [line.split()[:3] for line in findings] == [
        [f"{path}:2:24:", "INO301", "note:"],
        [f"{path}:2:24:", "INO302", "note:"],
    ]
    assert check("mirror").stdout == "mirror: ok, 0 rules\n"


def test_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "wrong.yaml", WRONG)
    done = check(path)
    assert done.exit_code == 2
    assert f"{path}:2:16: INO109 error: 'flush' cannot be denied: " in done.stdout
    assert done.stdout.endswith(f"{path}: 1 error\n")


def test_warnings(tmp_path: Path) -> None:
    path = write(tmp_path, "warned.yaml", WARNED)
    assert check(path).exit_code == 0
    assert check(path, "--strict").exit_code == 2
    assert check(path).stdout.endswith(f"{path}: ok, 1 rule, 1 warning, 2 notes\n")
    assert [each["ok"] for each in told(path, "--strict")] == [False]
    assert check(write(tmp_path, "good.yaml", GOOD), "--strict").exit_code == 0


def test_all_policies_are_checked(tmp_path: Path) -> None:
    paths = [
        str(tmp_path / "missing.yaml"),
        write(tmp_path, "syntax.yaml", "rules: {"),
        write(tmp_path, "words.yaml", "rules: [{deny: unlnk}, {name: 5}]"),
        write(tmp_path, "names.yaml", "rules: [{match: {owner: {user: nobody-here}}, deny: open}]"),
        write(tmp_path, "wrong.yaml", WRONG),
        write(tmp_path, "good.yaml", GOOD),
    ]
    done = check(*paths)
    assert done.exit_code == 2
    found = told(*paths)
    assert [each["policy"] for each in found] == paths
    assert [each["ok"] for each in found] == [False] * 5 + [True]
    codes = [[finding["code"] for finding in each["findings"]] for each in found]
    assert codes[:5] == [["INO001"], ["INO001"], ["INO001"] * 2, ["INO002"], ["INO109"]]
    assert found[2]["findings"][0] == {
        "code": "INO001",
        "level": "error",
        "file": paths[2],
        "line": 2,
        "column": 16,
        "rule": "",
        "message": found[2]["findings"][0]["message"],
        "fix": "",
    }
    assert "did you mean 'unlink'" in found[2]["findings"][0]["message"]
    for path, line in zip(paths, ["1:1", "3:1", "2:16", "2:32", "2:16"], strict=False):
        assert f"{path}:{line}: INO" in done.stdout


def test_patterns(tmp_path: Path) -> None:
    path = write(tmp_path, "pattern.yaml", "rules: [{match: {path: [a, 'b//c']}, deny: open}]")
    (found,) = told(path)[0]["findings"]
    assert (found["code"], found["line"], found["column"]) == ("INO002", 2, 28)


def test_handler_classes(tmp_path: Path) -> None:
    text = "handlers: no.such:Class\nrules: [{handle: read}]"
    path = write(tmp_path, "handlers.yaml", text)
    done = check(path)
    assert done.exit_code == 2
    assert f"{path}:2:11: INO003 error: handlers 'no.such:Class': " in done.stdout
    assert done.stdout.endswith(f"{path}: 1 error, 1 note\n")
    assert check(path, "--handlers", "inopt.handlers.audit:AuditHandlers").exit_code == 0
    refused = check(path, "--handlers", "no.such:Other")
    assert isinstance(refused.exception, UsageError)


def test_against(tmp_path: Path) -> None:
    path = write(tmp_path, "good.yaml", GOOD)
    done = check(path, "--against", str(tmp_path))
    assert f"{path}:2:24: INO211 warning: nothing in '{tmp_path}'" in done.stdout
    assert check(path, "--against", str(tmp_path), "--strict").exit_code == 2
    (tmp_path / "x").touch()
    assert check(path, "--against", str(tmp_path), "--strict").exit_code == 0
    assert isinstance(check(path, "--against", str(tmp_path / "y")).exception, UsageError)


def test_the_program(tmp_path: Path) -> None:
    path = write(tmp_path, "wrong.yaml", WRONG)
    done = inopt("check", path, "--against", str(tmp_path / "missing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("inopt: '")
    assert done.stderr.count("\n") == 1
    done = inopt("check", path, "mirror")
    assert (done.returncode, done.stderr) == (2, "")
    assert "\x1b" not in done.stdout
    assert inopt("check").returncode == 2
    assert "Example: inopt check" in inopt("check", "--help").stdout


# --- before a mount ----------------------------------------------------------------------------


def prepared(path: str) -> Prepared:
    loaded = load_policy(path)
    return prepare(loaded, Settings(source="/", mountpoint="/", policy=loaded))


def test_errors_refuse_the_mount(tmp_path: Path) -> None:
    path = write(tmp_path, "wrong.yaml", "rules: [{deny: [flush, open], handle: open}]")
    with pytest.raises(UsageError) as caught:
        prepared(path)
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == ["INO109", "INO111"]


def test_every_error_is_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "wrong.yaml", "rules: [{deny: [flush, poll]}]")
    place = tmp_path / "mount"
    place.mkdir()
    done = inopt("mount", path, str(tmp_path), str(place))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"inopt: {path}:2:") for line in lines)


def test_warnings_and_notes_are_kept(tmp_path: Path) -> None:
    found = prepared(write(tmp_path, "warned.yaml", WARNED)).findings
    levels = [each.level for each in found]
    assert levels.count(Level.WARNING) == 1
    assert levels.count(Level.NOTE) == 2
