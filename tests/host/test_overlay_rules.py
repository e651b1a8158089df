"""Policies over layers: what may be copied up, which layer wins, and layers that are not kept."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import detach, in_place, inopt, mounts_below
from support.overlays import Layers, mounted_by_us


@pytest.fixture
def layers(host: None) -> Iterator[Layers]:
    with in_place("rules") as place:
        made = Layers.made(place, 2)
        top, base = made.lowers
        for layer, text in ((top, "top"), (base, "base")):
            (layer / "both").mkdir()
            (layer / "both/file").write_text(text)
            (layer / "file").write_text(text)
        (base / "kept").mkdir()
        (base / "kept/file").write_text("base")
        yield made


def policy(layers: Layers, text: str) -> str:
    path = layers.upper.parent / "policy.yaml"
    path.write_text(text)
    return str(path)


KEPT = """
version: 1
rules:
- match: {path: /kept/file}
  deny: {copy_up: EROFS}
"""


def test_what_may_not_be_copied_up_stays(layers: Layers) -> None:
    mnt = layers.upper.parent / "mnt"
    with mounted_by_us(layers, mnt, policy=policy(layers, KEPT)):
        changes: list[Callable[[Path], None]] = [
            lambda path: os.close(os.open(path, os.O_WRONLY)),
            lambda path: os.chmod(path, 0o600),
            lambda path: os.truncate(path, 0),
            lambda path: os.setxattr(path, "user.x", b"y"),
            lambda path: os.link(path, mnt / "link"),
        ]
        for change in changes:
            with pytest.raises(OSError) as caught:  # noqa: PT011
                change(mnt / "kept/file")
            assert caught.value.errno in (errno.EROFS, errno.EXDEV)
        assert (mnt / "kept/file").read_text() == "base"
        (mnt / "file").write_text("changed")
        (mnt / "kept/new").write_text("not what a lower layer has")
        (mnt / "kept/new").chmod(0o600)
    assert not (layers.upper / "kept/file").exists()
    assert (layers.upper / "file").read_text() == "changed"


def test_a_directory_that_may_not_be_copied_up_gets_no_names(layers: Layers) -> None:
    mnt = layers.upper.parent / "mnt"
    text = KEPT.replace("/kept/file", "/kept/")
    with mounted_by_us(layers, mnt, policy=policy(layers, text)):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            (mnt / "kept/new").touch()
        assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError) as caught:  # noqa: PT011
            (mnt / "kept/file").unlink()
        assert caught.value.errno == errno.EROFS
    assert not (layers.upper / "kept").exists()


def test_another_layer_wins(layers: Layers) -> None:
    mnt = layers.upper.parent / "mnt"
    text = "version: 1\nrules:\n- match: {path: [/file, /both/file]}\n  layer: 2\n"
    with mounted_by_us(layers, mnt, policy=policy(layers, text)):
        assert (mnt / "file").read_text() == "base"
        assert (mnt / "both/file").read_text() == "base"
        with (mnt / "file").open("a") as file:
            file.write(", changed")
        assert (mnt / "file").read_text() == "base, changed"
        assert sorted(os.listdir(mnt / "both")) == ["file"]
    assert (layers.upper / "file").read_text() == "base, changed"
    with mounted_by_us(layers, mnt) as mount:
        assert (mnt / "file").read_text() == "base, changed"
        assert (mnt / "both/file").read_text() == "top"
        done = inopt("reload", str(mnt), policy(layers, text))
        assert done.returncode == 0, done.stderr
        assert (mnt / "both/file").read_text() == "base"
        assert mount.complaints() == []


def test_layers_in_the_policy(layers: Layers) -> None:
    text = "version: 1\noverlay: {lower: [lower0, lower1], upper: upper, work: work}\n"
    mnt = layers.upper.parent / "mnt"
    mnt.mkdir()
    path = policy(layers, text)
    done = inopt("mount", os.path.basename(path), str(mnt), cwd=layers.upper.parent)
    assert done.returncode == 0, done.stderr
    try:
        assert (mnt / "file").read_text() == "top"
        (mnt / "new").write_text("x")
        explained = inopt("explain", "--mount", str(mnt), "new")
        assert "upper layer" in " ".join(explained.stdout.split())
        assert os.listdir(mnt / "both") == ["file"]
        explained = inopt("explain", "--mount", str(mnt), "both")
        assert "merged with 1 below" in " ".join(explained.stdout.split())
        # Its path was relative to where it was mounted from.
        assert inopt("reload", str(mnt)).returncode == 0
    finally:
        done = inopt("umount", str(mnt))
    assert done.returncode == 0, done.stderr
    assert (layers.upper / "new").read_text() == "x"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_nothing_is_kept(layers: Layers, elsewhere: bool) -> None:
    place = layers.upper.parent / "temporary" if elsewhere else Path("/var/tmp")
    place.mkdir(exist_ok=True)
    mnt = layers.upper.parent / "mnt"
    mnt.mkdir()
    lower = ":".join(map(str, layers.lowers))
    log = layers.upper.parent / "log"
    done = inopt(
        "mount", "overlay", str(mnt), "--lower", lower, "--temporary", "--log-file", str(log),
        TMPDIR=str(place) if elsewhere else "",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    try:
        made = Path(inopt("stats", str(mnt), "--json").stdout.split('"source":')[1].split('"')[1])
        assert made.is_dir()
        assert made.parent.parent == place
        (mnt / "file").write_text("changed")
        (mnt / "both/file").unlink()
        assert (made / "file").read_text() == "changed"
    finally:
        inopt("umount", str(mnt))
        for point in mounts_below(mnt):
            detach(point)
    assert not made.parent.exists()
    assert not elsewhere or os.listdir(place) == []
    assert (layers.lowers[0] / "file").read_text() == "top"


@pytest.mark.parametrize("place", ["missing", "file"])
def test_nowhere_to_keep_what_is_not_kept(layers: Layers, place: str) -> None:
    mnt = layers.upper.parent / "mnt"
    mnt.mkdir()
    (layers.upper.parent / "file").touch()
    named = layers.upper.parent / place
    done = inopt("mount", "overlay", str(mnt), "--lower", str(layers.lowers[0]), "--temporary",
                 TMPDIR=str(named))  # fmt: skip
    reason = "No such file or directory" if place == "missing" else "Not a directory"
    assert done.returncode == 2
    assert done.stderr == (
        f"inopt: --temporary: nothing can be made in '{named}': {reason}: "
        "set TMPDIR to a directory that can be written to\n"
    )
    assert not mounts_below(mnt)


def test_without_an_upper_layer_nothing_is_changed(layers: Layers) -> None:
    mnt = layers.upper.parent / "mnt"
    with mounted_by_us(layers, mnt, upper=False):
        assert (mnt / "file").read_text() == "top"
        assert sorted(os.listdir(mnt)) == ["both", "file", "kept"]
        with pytest.raises(OSError) as caught:  # noqa: PT011
            (mnt / "new").touch()
        assert caught.value.errno == errno.EROFS
