"""The commands that mount nothing: doctor, completion, help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.mounting import inopt_program, mounts_below
from support.mounting import run_program as inopt
from support.programs import overlay_in, sh

pytestmark = pytest.mark.host

KERNEL = {
    "kernel", "protocol", "init_flags", "tier", "dialect", "ops_mask", "cap_sys_admin", "fd_limit",
}  # fmt: skip
BACKING = {"changes_underneath", "file_handles", "xattrs", "acls", "stack_depth"}


def test_doctor(place: Path) -> None:
    done = inopt("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert set(told) == KERNEL
    assert "ASYNC_READ" in told["init_flags"]["found"]
    assert told["cap_sys_admin"]["found"] is True
    assert told["protocol"]["found"].startswith("7.")
    table = inopt("doctor", str(place))
    assert (table.returncode, table.stderr) == (0, "")
    for name in KERNEL | BACKING:
        assert name in table.stdout
    assert list(place.iterdir()) == [], "it leaves nothing behind"
    assert mounts_below(place) == []


def test_doctor_of_filesystems(place: Path) -> None:
    (place / "tmpfs").mkdir()
    sh("mount", "-t", "tmpfs", "tmpfs", str(place / "tmpfs"))
    found = {}
    for path in (place, place / "tmpfs", overlay_in(place)):
        done = inopt("doctor", str(path), "--json")
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert set(told) == KERNEL | BACKING
        for finding in told.values():
            assert finding["consequence"]
            assert finding["status"] in ("ok", "note", "problem")
        found[path.name] = told
    plain = found[place.name]
    assert [plain[name]["found"] for name in ("file_handles", "xattrs")] == [True, True]
    assert plain["stack_depth"]["found"] == 0
    assert found["tmpfs"]["stack_depth"]["found"] == 0
    watched = {name: told["changes_underneath"]["found"] for name, told in found.items()}
    assert watched[place.name] == watched["tmpfs"] == "fanotify"
    assert watched["merged"] == "inotify (no fanotify: the filesystem has no file handles)"
    told = json.loads(inopt("doctor", "/proc", "--json").stdout)["changes_underneath"]
    assert told["status"] == "note"
    assert told["found"].startswith("not noticed: it is on proc")
    stacked = found["merged"]
    assert stacked["file_handles"]["found"] is False
    assert "nfs_export" in stacked["file_handles"]["fix"]
    assert stacked["stack_depth"]["found"] == 1
    assert "max_stack_depth=2" in stacked["stack_depth"]["fix"]
    assert list((place / "upper").iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(host: None, shell: str) -> None:
    done = inopt("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_INOPT_COMPLETE" in done.stdout
    if shell == "bash":
        sh("bash", "-n", "-c", done.stdout)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("inopt mo", "mount"),
        ("inopt mount mir", "mirror"),
        ("inopt mount mirror a b --ti", "--tier"),
        ("inopt completion zs", "zsh"),
        ("inopt overlay fs", "fsck"),
        ("inopt overlay diff a --lo", "--lower"),
    ],
)
def test_what_is_completed(host: None, words: str, expected: str) -> None:
    done = sh(
        "env", "_INOPT_COMPLETE=bash_complete", f"COMP_WORDS={words}",
        f"COMP_CWORD={len(words.split()) - 1}", inopt_program(), check=False,
    )  # fmt: skip
    assert f"plain,{expected}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    "command",
    [
        "",
        "mount",
        "umount",
        "reload",
        "stats",
        "explain",
        "check",
        "doctor",
        "schema",
        "completion",
        "overlay",
        "overlay fsck",
        "overlay diff",
        "overlay commit",
        "overlay export",
    ],
)
def test_help(host: None, command: str) -> None:
    done = inopt(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Example: inopt {command}".rstrip() in done.stdout
    assert "Usage: " in done.stdout


def test_version(host: None) -> None:
    done = inopt("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("inopt")
