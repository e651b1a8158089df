"""The command: what it prints, writes and refuses. Nothing is mounted here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.mounting import inopt

POLICY = """\
version: 1
handlers: "inopt.handlers.audit:AuditHandlers"
otherwise: bypass
rules:
  - name: secrets
    match: {path: /etc/secrets, caller: {not_user: daemon}}
    deny: {all: EACCES, write: EROFS}
  - name: unseen
    match: {path: /hidden}
    visible: false
  - name: watched <tools>
    match: {type: file, mode: executable}
    handle: [read, open]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(POLICY)
    for name in ("src", "src/etc", "src/etc/secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "src/etc/secrets/a").write_text("secret")
    (tmp_path / "src/tool").write_text("#!")
    (tmp_path / "src/tool").chmod(0o755)
    (tmp_path / "src/link").symlink_to("etc")
    return tmp_path


def told(place: Path, *arguments: str) -> Any:
    done = inopt("explain", *arguments, "--json", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def lines(place: Path, *arguments: str) -> dict[str, Any]:
    answer = told(place, "p.yaml", *arguments)
    return {line["operation"]: line for line in answer["paths"][0]["lines"]}


def test_json_of_a_path(place: Path) -> None:
    answer = told(place, "p.yaml", "/etc/secrets/a", "--source", "src", "--tier", "rw")
    assert set(answer) == {"policy", "tier", "tier_from", "notes", "paths"}
    assert (answer["policy"], answer["tier"], answer["tier_from"]) == ("p.yaml", "rw", "asked")
    report = answer["paths"][0]
    assert set(report) == {"path", "type", "facts", "notes", "lines", "live"}
    assert (report["path"], report["type"], report["live"]) == ("/etc/secrets/a", "file", None)
    assert report["facts"]["size"] == 6
    write = next(line for line in report["lines"] if line["operation"] == "write")
    assert write["route"] == "depends"
    first = write["alternatives"][0]
    assert (first["when"], first["route"], first["rule"]) == (
        "unless user daemon", "deny EACCES", "secrets",
    )  # fmt: skip
    assert first["place"] == {"path": "p.yaml", "line": 7, "column": 12}


def test_callers_and_types(place: Path) -> None:
    assert lines(place, "etc/secrets/a", "--caller", "0")["write"]["route"] == "deny EACCES"
    daemon = lines(place, "etc/secrets/a", "--caller", "daemon", "--tier", "rw")
    assert daemon["write"]["route"] == "daemon"
    assert "mkdir" in lines(place, "new/")
    assert "symlink" in lines(place, "new", "--type", "symlink")
    assert lines(place, "tool", "--source", "src")["read"]["route"] == "handler"
    assert "readlink" in lines(place, "link", "--source", "src")


def test_tiers(place: Path) -> None:
    for tier, route in (("none", "daemon"), ("rw", "kernel")):
        answer = told(place, "mirror", "a", "--tier", tier)
        routes = {line["operation"]: line["route"] for line in answer["paths"][0]["lines"]}
        assert (answer["tier"], routes["read"]) == (tier, route)
    drafted = told(place, "mirror", "a", "--tier", "inode")
    assert "this kernel lacks it" in drafted["notes"][0]
    done = inopt("explain", "mirror", "a", "--json", cwd=place, INOPT_NO_BYPASS="1")
    assert json.loads(done.stdout)["tier"] == "none"


def test_text_fits_and_is_plain(place: Path) -> None:
    for arguments in ((), ("etc/secrets/a", "tool", "--source", "src"), ("x", "y/")):
        done = inopt("explain", "p.yaml", *arguments, cwd=place)
        assert (done.returncode, done.stderr) == (0, "")
        assert "p.yaml:3" in done.stdout
        assert "cannot be mounted as it is: see 'inopt check' (INO1" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 100
        assert done.stdout.isascii()
        assert "\x1b" not in done.stdout


def test_the_matrix(place: Path) -> None:
    answer = told(place, "p.yaml")
    assert [row["rule"] for row in answer["rows"]] == [
        "secrets", "unseen", "watched <tools>", "otherwise",
    ]  # fmt: skip
    assert answer["rows"][0]["cells"]["write"] == {"text": "deny EROFS", "partly": False}
    assert answer["rows"][0]["operations"]["write"] == "deny EROFS"
    text = inopt("explain", "p.yaml", cwd=place).stdout
    assert "/etc/secrets, unless user daemon" in text
    assert "hidden: /hidden" in text


@pytest.mark.parametrize("paths", [(), ("etc/secrets/a",)])
def test_pictures(place: Path, paths: tuple[str, ...]) -> None:
    done = inopt("explain", "p.yaml", *paths, "--html", "o.html", "--svg", "o.svg", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    html, svg = (place / "o.html").read_text(), (place / "o.svg").read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert svg.startswith("<svg")
    for picture in (html, svg):
        for name in ("secrets",) if paths else ("secrets", "unseen", "otherwise"):
            assert name in picture
    if not paths:
        assert "watched &lt;tools&gt;" in html
    assert "#" in html, "in colour"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name a POLICY"),
        (["missing.yaml"], "neither a file nor a shipped policy"),
        (["p.yaml", "a", "--caller", "nobody-like-this"], "no user 'nobody-like-this'"),
        (["p.yaml", "a", "--caller", "4711"], "say the group, too"),
        (["p.yaml", "a", "--caller", "0:no-such-group"], "no group 'no-such-group'"),
        (["p.yaml", "../a"], "'..' could lead out of the tree"),
        (["p.yaml", "a", "--source", "nowhere"], "name a directory"),
        (["p.yaml", "a", "--source", "p.yaml"], "name a directory"),
        (["p.yaml", "tool/x", "--source", "src"], "Not a directory"),
        (["p.yaml", "link/secrets", "--source", "src"], "Not a directory"),
        (["p.yaml", "tool/", "--source", "src"], "leave the slash at its end out"),
        (["p.yaml", "tool", "--source", "src", "--type", "fifo"], "is a file"),
        (["p.yaml", "--caller", "0"], "means nothing without a PATH"),
        (["p.yaml", "--html", "/nowhere/x.html"], "name a file that can be written"),
        (["p.yaml", "a", "--svg", "."], "name a file that can be written"),
        (["--mount", "."], "name a PATH in the mount"),
        (["--mount", ".", "a", "--tier", "rw"], "means nothing with --mount"),
        (["--mount", ".", "a"], "not an inopt mount"),
        (["p.yaml", "a", "--tier", "all"], "--tier"),
    ],
)
def test_mistakes(place: Path, arguments: list[str], complaint: str) -> None:
    done = inopt("explain", *arguments, cwd=place)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_names_that_are_no_text(place: Path) -> None:
    name = os.fsdecode(b"\xff\n")
    assert told(place, "p.yaml", name)["paths"][0]["path"] == repr("/\\xff\n")
    assert inopt("explain", "p.yaml", name, cwd=place).returncode == 0


def test_handlers_that_cannot_be_imported(place: Path) -> None:
    text = "version: 1\nhandlers: 'nowhere:Class'\nrules: [{handle: read}]\n"
    (place / "q.yaml").write_text(text)
    answer = told(place, "q.yaml", "a")
    assert "taken to serve everything" in answer["notes"][0]
    assert answer["paths"][0]["lines"][3]["route"] == "handler"
