"""``inopt overlay`` and the user's mistakes: one line with place, reason and way out; code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.kernel_layers import Layers, view
from support.mounting import inopt
from support.programs import STRANGER, sh

pytestmark = pytest.mark.host

AS_USER = f"""
import os, sys, rich.console, rich.table, rich.text, inopt.cli.overlay
from inopt.cli.main import main
os.setgroups([])
os.setresgid({STRANGER}, {STRANGER}, {STRANGER})
os.setresuid({STRANGER}, {STRANGER}, {STRANGER})
sys.argv[0] = "inopt"
main()
"""


@pytest.fixture
def layers(place: Path) -> Layers:
    made = Layers(place)
    (made.lowers[0] / "file").touch()
    with made.mounted() as merged:
        (merged / "file").chmod(0o600)
    return made


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("fsck nope", "'nope': cannot be the upper layer: No such file or directory: "),
        ("fsck lower0/file", "'lower0/file': cannot be the upper layer: Not a directory: "),
        ("fsck upper --lower nope", "'nope': cannot be the lower layer: "),
        ("fsck upper --work nope", "'nope': cannot be the work directory: "),
        ("fsck upper --work upper", "'upper': is the upper layer 'upper': "),
        ("fsck upper --lower .", "'.': overlaps the upper layer 'upper': "),
        ("diff upper --lower lower0:", "an empty name among the lower layers: "),
        ("diff upper --lower lower0::data", "data-only layers"),
        ("diff upper --lower upper", "'upper': is the upper layer 'upper': "),
        ("diff", "Missing argument 'UPPER'"),
        ("commit upper nope", "'nope': cannot be the target: "),
        ("commit upper upper", "'upper': is the upper layer 'upper': "),
        ("commit upper upper/inside", "'upper/inside': overlaps the upper layer 'upper': "),
        ("commit upper lower0 --lower lower0", "'lower0': is the lower layer 'lower0': "),
        ("commit upper . ", "'.': overlaps the upper layer 'upper': "),
        ("export upper nope/x.tar", "'nope': no such directory: "),
        ("export upper lower0", "'lower0': is a directory: "),
        ("export upper upper/x.tar", "'upper/x.tar': lies in the layer"),
        ("export upper upper/inside/x.tar", "lies in the layer"),
        ("export upper x.tar --compression rar", "Invalid value"),
        ("unknown", "No such command"),
    ],
)
def test_mistakes(layers: Layers, words: str, told: str) -> None:
    (layers.upper / "inside").mkdir()
    before = view(layers.place)
    done = inopt("overlay", *words.split(), cwd=layers.place)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("inopt: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert view(layers.place) == before


def test_what_is_mounted_is_left_alone(layers: Layers) -> None:
    with layers.mounted():
        for words in (
            ("fsck", "upper", "--fix"),
            ("fsck", "upper", "--work", "work", "--fix"),
            ("commit", "upper", "merged"),
            ("commit", "upper", "lower0"),
        ):
            done = inopt("overlay", *words, cwd=layers.place)
            assert done.returncode == 2, words
            assert f"at '{layers.merged}'" in done.stderr
        done = inopt("overlay", "diff", "upper", "--lower", "lower0", cwd=layers.place)
        assert done.returncode == 0
        assert "in use by the mount" in done.stderr


def test_a_mount_inside_the_target(layers: Layers) -> None:
    target = layers.copy_of_lowers()
    (target / "disk").mkdir()
    sh("mount", "-t", "tmpfs", "tmpfs", str(target / "disk"))
    try:
        done = inopt("overlay", "commit", "upper", "target", cwd=layers.place)
        assert done.returncode == 2
        assert f"'{target}/disk' is mounted inside it" in done.stderr
    finally:
        sh("umount", str(target / "disk"))
    assert inopt("overlay", "commit", "upper", "target", cwd=layers.place).returncode == 0


def test_not_root(layers: Layers) -> None:
    """Who cannot see the marks must not be told that there are none."""
    for words in (["fsck", "upper"], ["diff", "upper"], ["export", "upper", "-"]):
        done = as_user("overlay", *words, cwd=layers.place)
        assert done.returncode == 2
        assert "show themselves to root alone: run as root, or give --userxattr" in done.stderr


def test_a_user_with_a_layer_of_ones_own(place: Path) -> None:
    layers = Layers(place, 1, ",userxattr")
    (layers.lowers[0] / "d").mkdir()
    (layers.lowers[0] / "d" / "gone").touch()
    with layers.mounted() as merged:
        sh("rm", "-r", str(merged / "d"))
        (merged / "d").mkdir()
        (merged / "file").write_text("x")
    target = layers.copy_of_lowers()
    for path in (layers.place, layers.upper, target):
        sh("chown", "-R", "1001:1001", str(path))
    lower = str(layers.lowers[0])
    done = as_user("overlay", "diff", str(layers.upper), "--lower", lower, cwd=place)
    assert done.stdout.splitlines()[-1] == "1 removed, 1 added", done.stderr
    done = as_user("overlay", "commit", str(layers.upper), str(target), cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(target)) == ["d", "file"]
    assert os.listdir(target / "d") == []
    os.chown(layers.upper / "file", 0, 0)
    done = as_user("overlay", "commit", str(layers.upper), str(target), cwd=place)
    assert done.returncode == 1
    assert done.stderr == (
        "inopt: 'file': cannot give it to 0:0: Operation not permitted: run as root\n"
    )


def as_user(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as another user, who need not reach the files that Python imports."""
    return subprocess.run(
        [sys.executable, "-c", AS_USER, *words],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=240,
    )  # fmt: skip
