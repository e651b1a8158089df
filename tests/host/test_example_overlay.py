"""The example `overlay`: layers that a policy names, rules on them, who takes what from below."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mounting import Mount, in_place, inopt

pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "overlay"


class LayersMount(Mount):
    """A mount of the layers that a policy names."""

    def __init__(self, place: Path, policy: Path) -> None:
        self.source = place / "changes"
        self.path = place / "mnt"
        self.log = place / "log"
        done = inopt("mount", str(policy), str(self.path), "--log-format", "json",
                     "--log-file", str(self.log))  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.pid = int(self.stats()["pid"])

    def told(self) -> list[tuple[str, str, str]]:
        """The records since the last look: event, path, and the layer's name."""
        lines = self.log.read_text().splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        new = [each for each in found if each["event"] in ("copied up", "hidden")][self._seen :]
        self._seen += len(new)
        return [(each["event"], each["path"], Path(each["layer"]).name) for each in new]

    _seen = 0


def make_layers(place: Path) -> None:
    for name in ("base/etc", "base/many/deep", "patches/etc", "changes", "work", "mnt"):
        (place / name).mkdir(parents=True)
    for name in ("LICENSE", "etc/hosts", "etc/motd", "etc/one", "etc/two", "many/deep/file"):
        (place / "base" / name).write_text(f"{name} of base\n")
    (place / "base/data").write_bytes(b"d" * 300_000)
    (place / "patches/etc/motd").write_text("patched\n")
    for path in EXAMPLE.glob("*.yaml"):
        shutil.copy(path, place)
    shutil.copy(EXAMPLE / "told.py", place)


@pytest.fixture(scope="module")
def mount(host: None) -> Iterator[LayersMount]:
    with in_place("overlay") as place:
        make_layers(place)
        made = LayersMount(place, place / "told.yaml")
        try:
            yield made
            assert made.complaints() == []
        finally:
            made.close()
        assert (place / "base/etc/hosts").read_text() == "etc/hosts of base\n"
        assert (place / "patches/etc/motd").read_text() == "patched\n"


def test_the_topmost_layer_shows(mount: LayersMount) -> None:
    assert sorted(os.listdir(mount.path / "etc")) == ["hosts", "motd", "one", "two"]
    assert (mount.path / "etc/motd").read_text() == "patched\n"
    assert mount.told() == []


def test_reads_and_writes_bypass(mount: LayersMount) -> None:
    before = mount.stats()
    assert (mount.path / "data").read_bytes() == b"d" * 300_000
    with (mount.path / "data").open("r+b") as file:
        file.write(b"new")
    assert (mount.path / "data").read_bytes()[:4] == b"newd"
    after = mount.stats()
    assert before["READ"] == after["READ"]
    assert before["WRITE"] == after["WRITE"]
    assert mount.told() == [("copied up", "/data", "base")]


def test_each_file_is_told_of_once(mount: LayersMount) -> None:
    path = mount.path / "etc/hosts"
    subprocess.run(["tee", "-a", str(path)], input=b"more\n", check=True, stdout=-3)
    os.chmod(path, 0o600)
    os.setxattr(path, "user.some", b"")
    assert mount.told() == [("copied up", "/etc/hosts", "base")]
    os.chmod(mount.path / "many/deep/file", 0o600)
    assert mount.told() == [("copied up", "/many/deep/file", "base")]


def test_what_goes_out_of_sight(mount: LayersMount) -> None:
    os.unlink(mount.path / "etc/motd")
    os.rename(mount.path / "etc/one", mount.path / "etc/two")
    assert mount.told() == [
        ("hidden", "/etc/motd", "patches"),
        ("hidden", "/etc/two", "base"),
        ("hidden", "/etc/one", "base"),
    ]
    assert (mount.path / "etc/two").read_text() == "etc/one of base\n"
    (mount.path / "new").write_text("x")
    os.unlink(mount.path / "new")
    with pytest.raises(FileNotFoundError):
        os.unlink(mount.path / "new")
    assert mount.told() == []


def test_new_files_are_nobodys_but_ours(mount: LayersMount) -> None:
    descriptor = os.open(mount.path / "fresh", os.O_RDWR | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o640)
    os.ftruncate(descriptor, 10)
    os.close(descriptor)
    nameless = os.open(mount.path, os.O_TMPFILE | os.O_RDWR)
    os.fchmod(nameless, 0o640)
    os.close(nameless)
    assert mount.told() == []


def test_the_licence_stays(mount: LayersMount) -> None:
    path = mount.path / "LICENSE"
    for attempt in (
        lambda: path.write_text("mine"),
        lambda: path.open("a"),
        lambda: os.chmod(path, 0o777),
        lambda: os.unlink(path),
        lambda: os.rename(path, mount.path / "other"),
        lambda: os.setxattr(path, "user.some", b""),
        lambda: os.link(path, mount.path / "other"),
    ):
        with pytest.raises(OSError, match=r"Read-only|cross-device"):
            attempt()
    assert path.read_text() == "LICENSE of base\n"
    assert not (mount.source / "LICENSE").exists()
    assert mount.told() == []


def test_an_audit_trail_tells_paths_of_the_mount(place: Path) -> None:
    make_layers(place)
    policy = place / "audit.yaml"
    policy.write_text(
        "version: 1\ninclude: overlay.yaml\nhandlers: inopt.handlers.audit:AuditHandlers\n"
        "rules: [{handle: [open, unlink, chmod]}]\n"
    )
    mount = LayersMount(place, policy)
    try:
        (mount.path / "many/deep/file").read_text()
        (mount.path / "etc/motd").write_text("new\n")
        os.chmod(mount.path / "etc/one", 0o600)
        os.unlink(mount.path / "etc/hosts")
    finally:
        mount.close()
    lines = [json.loads(line) for line in mount.log.read_text().splitlines()]
    assert [(each["opcode"], each["path"]) for each in lines if each["event"] == "audit"] == [
        ("OPEN", "/many/deep/file"),
        ("OPEN", "/etc/motd"),
        ("SETATTR", "/etc/one"),
        ("UNLINK", "/etc/hosts"),
    ]
