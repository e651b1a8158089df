"""The example `audit`: one record for each open and change, and no READ or WRITE reaches Python."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.mounting import mounted

pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "audit"


def records(trail: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trail.read_text().splitlines()]


def test_who_did_what(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = place / "trail.jsonl"
    monkeypatch.setenv("AUDIT_LOG", str(trail))
    (place / "back").mkdir()
    (place / "back" / "old").write_bytes(b"x" * 300_000)
    with mounted(place / "back", place / "mnt", policy=EXAMPLE / "audit.yaml") as mount:
        root = mount.path
        (root / "old").read_bytes()
        subprocess.run(["tee", "new"], cwd=root, input=b"y" * 200_000, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        os.mkdir(root / "dir")
        os.symlink("old", root / "soft")
        os.link(root / "old", root / "dir" / "hard")
        os.rename(root / "new", root / "dir" / "moved")
        os.chmod(root / "dir" / "moved", 0o600)
        os.truncate(root / "dir" / "moved", 10)
        os.setxattr(root / "dir" / "moved", "user.a", b"b")
        with pytest.raises(OSError, match="not empty"):
            os.rmdir(root / "dir")
        os.close(os.open(root, os.O_TMPFILE | os.O_RDWR))
        stats = mount.stats()
        assert not any(stats["READ"].values())
        assert not any(stats["WRITE"].values())
        assert mount.complaints() == []
    found = records(trail)
    told = [(record["opcode"].removesuffix("2"), record["path"]) for record in found]
    assert told == [
        ("OPEN", "/old"),
        ("CREATE", "/new"),
        ("MKDIR", "/dir"),
        ("SYMLINK", "/soft"),
        ("LINK", "/old"),
        ("RENAME", "/new"),
        ("SETATTR", "/dir/moved"),
        ("SETATTR", "/dir/moved"),
        ("SETXATTR", "/dir/moved"),
        ("RMDIR", "/dir"),
        ("TMPFILE", "/"),
    ]
    by = {record["opcode"].removesuffix("2"): record for record in found}
    assert by["OPEN"]["access"] == "read"
    assert by["CREATE"]["comm"] == "tee"
    assert by["CREATE"]["pid"] not in (0, os.getpid())
    assert by["MKDIR"] | {"time": 0} == {
        "time": 0,
        "opcode": "MKDIR",
        "path": "/dir",
        "uid": 0,
        "gid": 0,
        "pid": os.getpid(),
        "comm": Path("/proc/self/comm").read_text().strip(),
        "cgroup": cgroup(),
        "result": 0,
    }
    assert by["SYMLINK"]["target"] == "old"
    assert by["LINK"]["new_path"] == "/dir/hard"
    assert by["RENAME"]["new_path"] == "/dir/moved"
    assert [record["changes"] for record in found if "changes" in record] == [["mode"], ["size"]]
    assert by["SETXATTR"]["attribute"] == "user.a"
    assert by["RMDIR"]["result"] == "ENOTEMPTY"


def cgroup() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")


def test_beside_the_log(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIT_LOG", raising=False)
    with mounted(place / "back", place / "mnt", policy=EXAMPLE / "audit.yaml") as mount:
        os.mkdir(mount.path / "dir")
        trail = Path(f"/run/inopt/{mount.pid}.audit")
        assert [record["opcode"] for record in records(trail)] == ["MKDIR"]
        assert trail.stat().st_mode & 0o777 == 0o600
    trail.unlink()
