"""``inopt overlay commit``: cut short anywhere, led astray, and what it keeps of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.kernel_layers import Layers, unlike, view
from support.mounting import inopt
from support.programs import sh
from support.snapshot import one_to_one

from inopt.exceptions import UsageError
from inopt.layers.format import Format
from inopt.layers.tools.committing import WORKPLACE, Applied, Commit
from inopt.layers.tools.entries import Layer
from inopt.layers.tools.places import Directory

pytestmark = pytest.mark.host

CALLS = (
    "rename", "link", "mkdir", "mknod", "symlink", "unlink", "rmdir", "chown", "fchown", "chmod",
    "setxattr", "removexattr", "utime", "ftruncate",
)  # fmt: skip


class CutError(BaseException):
    """As SIGKILL: nothing that follows is done."""


@contextmanager
def cut_at(number: int) -> Iterator[list[int]]:
    """Let the *number*th call that changes something not happen, nor any later one."""
    count = [0]
    originals = {name: getattr(os, name) for name in CALLS}

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] >= number:
                raise CutError
            return original(*words, **named)

        return call

    for name, original in originals.items():
        setattr(os, name, counting(original))
    try:
        yield count
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def commit(upper: Path, target: Path) -> Applied:
    one, other = Directory(str(upper), "upper layer"), Directory(str(target), "target")
    try:
        return Commit(Layer(one, Format()), other).run()
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize("seed", [100, 101])
def test_cut_short_anywhere_and_run_again(place: Path, seed: int) -> None:
    layers = Layers(place)
    dice = layers.make_random(seed, 60)
    with layers.mounted() as merged:
        expected = view(merged)
    with cut_at(1 << 30) as count:
        commit(layers.upper, layers.copy_of_lowers("whole"))
    steps = count[0]
    assert steps > 50
    target = layers.copy_of_lowers()
    cuts = 0
    for number in sorted(dice.sample(range(1, steps), 25)):
        try:
            with cut_at(number):
                commit(layers.upper, target)
        except CutError:
            cuts += 1
        half = view(target)
        for path, entry in half.items():
            # Nothing half-made has a name outside of the work place.
            if not path.startswith(WORKPLACE) and "bytes" in entry and path in expected:
                before = (place / "lower0" / os.fsdecode(path)).resolve()
                known = [expected[path].get("bytes")]
                if before.is_file():
                    known.append(before.read_bytes())
                assert entry["bytes"] in known, path
    assert cuts > 10  # a later run has less to do, and may be through by then
    commit(layers.upper, target)
    found = view(target)
    assert unlike(expected, found) == []
    assert one_to_one(expected, found) == []


def test_links_out_of_the_target_are_not_followed(place: Path) -> None:
    layers = Layers(place)
    outside = place / "outside"
    outside.mkdir()
    (outside / "gone").write_text("stays")
    (outside / "file").write_text("stays")
    for name in ("folder", "deep"):
        (layers.lowers[0] / name).mkdir()
    (layers.lowers[0] / "folder" / "gone").touch()
    (layers.lowers[0] / "deep" / "file").touch()
    (layers.lowers[0] / "plain").touch()
    with layers.mounted() as merged:
        (merged / "folder" / "gone").unlink()
        (merged / "folder" / "file").write_text("new")
        (merged / "deep" / "file").chmod(0o600)
        (merged / "plain").write_text("new")
        expected = view(merged)
    target = place / "target"
    target.mkdir()
    for name in ("folder", "deep"):
        (target / name).symlink_to(outside)
    (target / "plain").symlink_to(outside / "file")
    before = view(outside)
    commit(layers.upper, target)
    assert unlike(before, view(outside)) == []
    assert unlike(expected, view(target)) == []


def test_holes_stay_holes(place: Path) -> None:
    layers = Layers(place)
    with layers.mounted() as merged, open(merged / "sparse", "xb") as file:
        file.truncate(3 << 30)
        file.seek(1 << 30)
        file.write(b"island")
    target = place / "target"
    target.mkdir()
    done = commit(layers.upper, target)
    status = (target / "sparse").stat()
    assert (status.st_size, status.st_blocks * 512 < 1 << 20) == (3 << 30, True)
    assert done.copied < 1 << 20
    with open(target / "sparse", "rb") as file:
        file.seek((1 << 30) - 1)
        assert file.read(8) == b"\0island\0"
    lower = place / "again"
    sh("cp", "-a", "--sparse=always", str(target), str(lower))
    done_diff = inopt("overlay", "diff", str(layers.upper), "--lower", str(lower))
    assert done_diff.stdout == "no changes\n"


def test_a_path_as_deep_as_there_are(place: Path) -> None:
    layers = Layers(place)
    for root in (layers.upper, layers.lowers[0]):
        deep = os.open(root, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=deep)
            deeper = os.open("d", os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = deeper
        os.close(deep)
    words = ["--lower", str(layers.lowers[0])]
    for command in ("fsck", "diff"):
        done = inopt("overlay", command, str(layers.upper), *words)
        assert (done.returncode, done.stderr) == (0, "")
    target = place / "target"
    target.mkdir()
    for command, path in (("commit", target), ("export", place / "x.tar")):
        done = inopt("overlay", command, str(layers.upper), str(path))
        assert (done.returncode, done.stderr) == (0, "")
    assert sh("find", str(target), "-name", "d", "-printf", "x").stdout == "x" * 1500


def test_the_targets_default_acl_makes_no_difference(place: Path) -> None:
    layers = Layers(place)
    (layers.lowers[0] / "d").mkdir()
    with layers.mounted() as merged:
        (merged / "new").mkdir()
        (merged / "new" / "file").write_text("x")
        (merged / "d" / "file").write_text("x")
        expected = view(merged)
    target = layers.copy_of_lowers()
    for path in (target, target / "d"):
        sh("setfacl", "-d", "-m", "u:1001:rwx", str(path))
    commit(layers.upper, target)
    assert unlike(expected, view(target)) == []


def test_capabilities_and_set_id_bits(place: Path) -> None:
    layers = Layers(place)
    with layers.mounted() as merged:
        (merged / "tool").write_bytes(b"\x7fELF")
        os.chown(merged / "tool", 1001, 1001)
        (merged / "tool").chmod(0o6755)
        sh("setcap", "cap_net_raw+ep", str(merged / "tool"), check=False)
        expected = view(merged)
    target = place / "target"
    target.mkdir()
    commit(layers.upper, target)
    assert unlike(expected, view(target)) == []


def test_who_has_the_name_of_the_work_place(place: Path) -> None:
    layers = Layers(place)
    with layers.mounted() as merged:
        (merged / "file").write_text("x")
    target = place / "target"
    target.mkdir()
    strange = target / os.fsdecode(WORKPLACE)
    strange.mkdir()
    (strange / "mine").write_text("mine")
    with pytest.raises(UsageError, match="not made by commit"):
        commit(layers.upper, target)
    assert (strange / "mine").read_text() == "mine"
    assert not (target / "file").exists()
    (strange / "mine").rename(strange / "new-7")
    commit(layers.upper, target)
    assert os.listdir(target) == ["file"]
    with layers.mounted() as merged:
        (merged / os.fsdecode(WORKPLACE)).mkdir()
    with pytest.raises(UsageError, match="the upper layer has this name"):
        commit(layers.upper, target)


def test_one_at_a_time(place: Path) -> None:
    layers = Layers(place)
    target = place / "target"
    target.mkdir()
    holder = os.open(target, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="under way"):
            commit(layers.upper, target)
    finally:
        os.close(holder)
    commit(layers.upper, target)
