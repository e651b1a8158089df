"""A mount from its first to its last moment, and the commands around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
from support.mounting import Mount, detach, inopt_program, mounted, mounts_below
from support.mounting import run_program as inopt
from support.programs import (
    RUNTIME,
    STRANGER,
    as_stranger,
    client,
    error_of,
    events,
    is_orphan,
    left_by_dead,
    python_program,
    runtime_files,
    sh,
    socket_of,
)
from support.waiting import running, within

pytestmark = pytest.mark.host

CONNECTS = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(5)
try:
    connection.connect(sys.argv[1])
    connection.sendall(sys.argv[2].encode())
    print(connection.recv(1 << 16))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def tree(place: Path) -> Path:
    (place / "src").mkdir()
    (place / "src" / "file").write_text("file")
    (place / "mnt").mkdir()
    return place


def test_background(tree: Path) -> None:
    done = inopt("mount", "mirror", str(tree / "src"), str(tree / "mnt"))
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (tree / "mnt" / "file").read_text() == "file"
        found = sh("findmnt", "-n", "-o", "FSTYPE,SOURCE,OPTIONS", str(tree / "mnt")).stdout
        assert found.split()[:2] == ["fuse.inopt", str(tree / "src")]
        assert {"allow_other", "default_permissions"} <= set(found.split()[2].split(","))
        pid = json.loads(inopt("stats", str(tree / "mnt"), "--json").stdout)["pid"]
        assert os.getsid(pid) == pid, "a session of its own"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        targets = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
        assert targets == ["/dev/null"] * 3
        log = RUNTIME / f"{pid}.log"
        assert log.read_text(encoding="utf-8").count("\n") == 1
        control = RUNTIME / f"{os.minor(os.stat(tree / 'mnt').st_dev)}.sock"
        assert control.exists()
        done = inopt("umount", str(tree / "mnt"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not is_orphan(control.name)
        assert within(lambda: not running(pid))
        assert not log.exists()
    finally:
        if mounts_below(tree):
            detach(tree / "mnt")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground(tree: Path, number: int) -> None:
    process = subprocess.Popen(
        [
            inopt_program(), "mount", "mirror", str(tree / "src"), str(tree / "mnt"),
            "--foreground", "--log-format", "json",
        ],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree,
    )  # fmt: skip
    try:
        assert within((tree / "mnt" / "file").exists)
        assert process.poll() is None
        process.send_signal(number)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0
        assert output == ""
        said = [json.loads(line)["event"] for line in errors.splitlines()]
        assert said == ["mounted", "asked to stop", "unmounted"]
        assert mounts_below(tree) == []
    finally:
        process.kill()
        process.communicate()
        detach(tree / "mnt")


def test_control_socket(tree: Path) -> None:
    with mounted(tree / "src", tree / "mnt") as mount:
        path = socket_of(mount)
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == 0
        ask = '{"command": "stats"}\n'
        assert "GETATTR" in client(CONNECTS, str(path), ask).stdout
        assert client(CONNECTS, str(path), ask, user=STRANGER).stdout == "PermissionError\n"
        refused = sh(
            *as_stranger("dac_override"), python_program(), "-ISc", CONNECTS, str(path), ask
        )  # fmt: skip
        assert refused.stdout in ("b''\n", "ConnectionResetError\n", "BrokenPipeError\n"), (
            "the peer's uid counts"
        )
        done = sh(*as_stranger(), inopt_program(), "stats", str(mount.path), check=False)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "run as" in done.stderr
        for nonsense in ("\n", "{}\n", '{"command": "no"}\n', "[1\n", "x" * 70000 + "\n"):
            answer = client(CONNECTS, str(path), nonsense).stdout
            assert "error" in answer or "Error" in answer, f"{nonsense[:10]!r}: {answer}"
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            assert mount.stats()["pid"] == mount.pid, "one that says nothing stops nobody"
        assert len(mount.complaints()) == 1
        assert json.loads(mount.complaints()[0])["uid"] == STRANGER


def test_stats(tree: Path) -> None:
    with mounted(tree / "src", tree / "mnt") as mount:
        with (mount.path / "file").open("rb"):
            told = mount.stats()
        assert told["open_files"] == 1
        assert told["known_inodes"] == 2
        assert told["source"] == str(tree / "src")
        assert told["mountpoint"] == str(tree / "mnt")
        assert told["tier"] in ("none", "rw")
        assert told["backing_ids"] == (1 if told["tier"] == "rw" else 0)
        assert told["dialect"]
        assert 0 < told["fds"] < 40
        assert 0 < told["uptime_seconds"] < 60
        for name in ("LOOKUP", "GETATTR", "READ", "WRITE", "OPEN", "STATX", "COPY_FILE_RANGE"):
            assert set(told[name]) == {"daemon", "handler", "denied", "errors"}
        assert told["OPEN"]["daemon"] == 1
        error_of(lambda: os.stat(mount.path / "none"))
        assert mount.stats()["LOOKUP"]["errors"] == told["LOOKUP"]["errors"] + 1
        table = inopt("stats", str(mount.path))
        assert (table.returncode, table.stderr) == (0, "")
        for text in ("OPEN", "LOOKUP", "daemon", "handler", "denied", "errors", "known inodes"):
            assert text in table.stdout
        assert "COPY_FILE_RANGE" not in table.stdout, "what never came is not shown"
        assert mount.complaints() == []


@pytest.mark.parametrize("arguments", [(), ("--abi", "mainline")])
def test_no_bypass_by_environment(
    tree: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("INOPT_NO_BYPASS", "1")
    with mounted(tree / "src", tree / "mnt", *arguments) as mount:
        (mount.path / "file").read_text()
        told = mount.stats()
        assert (told["tier"], told["dialect"], told["backing_ids"]) == ("none", "none", 0)
        assert told["READ"]["daemon"] > 0


def test_a_dialect_by_name(tree: Path) -> None:
    with mounted(tree / "src", tree / "mnt", "--abi", "mainline") as mount:
        (mount.path / "file").read_text()
        told = mount.stats()
        assert (told["tier"], told["dialect"]) == ("rw", "mainline")
        assert told["READ"]["daemon"] == 0


def test_logs_and_idleness(tree: Path) -> None:
    files = runtime_files()
    mount = Mount(tree / "src", tree / "mnt")
    try:
        for number in range(200):
            (mount.path / f"new{number}").write_text("x")
            error_of(lambda: os.stat(mount.path / "none"))
        assert events(mount) == ["mounted"]
        told = json.loads(mount.log.read_text(encoding="utf-8"))
        for key in ("source", "mountpoint", "policy", "tier", "dialect", "level", "timestamp"):
            assert told[key]

        def is_idle() -> bool:
            before = ticks(mount.pid)
            time.sleep(2)
            return ticks(mount.pid) == before

        assert within(is_idle), "an idle daemon uses no processor"
    finally:
        mount.close()
    assert events(mount) == ["mounted", "unmounted"]
    assert f"{mount.pid}.log" not in runtime_files()
    assert left_by_dead(files) == []


def ticks(pid: int) -> int:
    """The processor time of a process so far, in clock ticks."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
