"""``inopt overlay fsck``: each kind of damage is named, and what is mended shows as before."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.kernel_layers import Layers, unlike, view
from support.mounting import Mount, in_place
from support.programs import sh

from inopt.cli.main import inopt as command
from inopt.layers.tools.findings import KINDS, Level

pytestmark = pytest.mark.host
TRUSTED = "trusted.overlay."


def fsck(*words: str | Path) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(command, ["overlay", "fsck", *map(str, words), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.exit_code == 0)
    return done.exit_code, answer["findings"]


def codes(findings: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(found["code"], found["path"]) for found in findings}


@pytest.fixture
def layers(place: Path) -> Layers:
    made = Layers(place)
    lower = made.lowers[0]
    for name in ("kept", "opaque", "merged"):
        (lower / name).mkdir()
        (lower / name / "file").write_text(name)
    (lower / "plain").write_text("plain")
    with made.mounted() as merged:
        (merged / "merged" / "new").write_text("new")
        sh("rm", "-r", str(merged / "opaque"))
        (merged / "opaque").mkdir()
        (merged / "opaque" / "in").write_text("in")
        (merged / "fresh").mkdir()
        (merged / "plain").chmod(0o600)
    return made


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR)


def marked(path: Path, mark: str, value: bytes = b"y") -> None:
    os.setxattr(path, mark, value, follow_symlinks=False)


def empty(path: Path) -> Path:
    path.touch()
    return path


def origin_of(path: Path) -> bytes:
    return os.getxattr(path, TRUSTED + "origin")


# What is done to the upper layer, and what is to be said of it then.
DAMAGE: dict[str, tuple[Callable[[Path], object], set[tuple[str, str]]]] = {
    "whiteout in an opaque directory": (
        lambda upper: whiteout(upper / "opaque" / "gone"),
        {("OVL101", "opaque/gone")},
    ),
    "xattr whiteout in an opaque directory": (
        lambda upper: marked(empty(upper / "opaque" / "gone"), TRUSTED + "whiteout"),
        {("OVL101", "opaque/gone")},
    ),
    "whiteout of nothing": (lambda upper: whiteout(upper / "none"), {("OVL102", "none")}),
    "whiteout in a directory of the upper": (
        lambda upper: whiteout(upper / "fresh" / "none"),
        {("OVL103", "fresh/none")},
    ),
    "xattr whiteout": (
        lambda upper: marked(empty(upper / "merged" / "file"), TRUSTED + "whiteout"),
        {("OVL104", "merged/file")},
    ),
    "opaque with a word": (
        lambda upper: marked(upper / "merged", TRUSTED + "opaque", b"yes"),
        {("OVL105", "merged")},
    ),
    "opaque with nothing": (
        lambda upper: marked(upper / "merged", TRUSTED + "opaque", b""),
        {("OVL105", "merged")},
    ),
    "opaque x": (
        lambda upper: marked(upper / "merged", TRUSTED + "opaque", b"x"),
        {("OVL106", "merged")},
    ),
    "aufs": (lambda upper: empty(upper / ".wh.plain"), {("OVL111", ".wh.plain")}),
    "aufs opaque": (
        lambda upper: empty(upper / "merged" / ".wh..wh..opq"),
        {("OVL112", "merged/.wh..wh..opq")},
    ),
    "fuse-overlayfs opaque": (
        lambda upper: empty(upper / "opaque" / ".wh..wh..opq"),
        {("OVL113", "opaque/.wh..wh..opq")},
    ),
    "aufs housekeeping": (
        lambda upper: empty(upper / ".wh..wh.aufs"),
        {("OVL114", ".wh..wh.aufs")},
    ),
    "user marks": (
        lambda upper: marked(upper / "merged", "user.overlay.opaque"),
        {("OVL121", "merged")},
    ),
    "opaque file": (
        lambda upper: marked(upper / "plain", TRUSTED + "opaque"),
        {("OVL122", "plain")},
    ),
    "metacopy of a directory": (
        lambda upper: marked(upper / "merged", TRUSTED + "metacopy", b""),
        {("OVL122", "merged")},
    ),
    "whiteout mark on what has contents": (
        lambda upper: marked(upper / "plain", TRUSTED + "whiteout"),
        {("OVL122", "plain")},
    ),
    "uuid below the root": (
        lambda upper: marked(upper / "merged", TRUSTED + "uuid", bytes(16)),
        {("OVL122", "merged")},
    ),
    "impure with a word": (
        lambda upper: marked(upper / "merged", TRUSTED + "impure", b"perhaps"),
        {("OVL123", "merged")},
    ),
    "unknown": (lambda upper: marked(upper / "merged", TRUSTED + "colour"), {("OVL124", "merged")}),
    "short origin": (
        lambda upper: marked(upper / "plain", TRUSTED + "origin", b"\0\xfb\x1d"),
        {("OVL125", "plain")},
    ),
    "cut origin": (
        lambda upper: marked(upper / "plain", TRUSTED + "origin", origin_of(upper / "plain")[:-1]),
        {("OVL125", "plain")},
    ),
    "origin without magic": (
        lambda upper: marked(
            upper / "plain", TRUSTED + "origin", b"\0\xfa" + origin_of(upper / "plain")[2:]
        ),
        {("OVL125", "plain")},
    ),
    "origin of another type": (
        lambda upper: marked(upper / "plain", TRUSTED + "origin", origin_of(upper / "merged")),
        {("OVL126", "plain")},
    ),
    "impure missing": (
        lambda upper: os.removexattr(upper, TRUSTED + "impure"),
        {("OVL127", ".")},
    ),
    "redirect": (
        lambda upper: marked(upper / "fresh", TRUSTED + "redirect", b"/kept"),
        {("OVL131", "fresh")},
    ),
    "metacopy": (
        lambda upper: marked(upper / "plain", TRUSTED + "metacopy", b""),
        {("OVL132", "plain")},
    ),
    "protected": (
        lambda upper: marked(upper / "plain", TRUSTED + "protattr", b"i"),
        {("OVL137", "plain")},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_what_is_safe_mended(layers: Layers, damage: str) -> None:
    act, expected = DAMAGE[damage]
    words: list[str | Path] = [layers.upper, "--lower", layers.lower_text, "--work", layers.work]
    assert fsck(*words) == (0, [])
    before = view(layers.upper)
    act(layers.upper)
    code, findings = fsck(*words)
    assert codes(findings) == expected
    kinds = [KINDS[found["code"]] for found in findings]
    assert code == any(kind.level is not Level.NOTE for kind in kinds)
    assert all(found["reason"] and found["way_out"] for found in findings)
    damaged = view(layers.upper)
    code, fixed = fsck(*words, "--fix")
    assert codes(fixed) == expected
    assert [found["fixed"] for found in fixed] == [kind.mends for kind in kinds]
    if not all(kind.mends for kind in kinds):
        assert unlike(damaged, view(layers.upper)) == []
        return
    assert code == 0
    assert fsck(*words) == (0, [])
    after = view(layers.upper)
    assert after.keys() - before.keys() <= {b"merged/file"}
    for path, entry in after.items():
        if stat.S_ISDIR(entry["mode"]):
            assert entry["mtime"] == damaged[path]["mtime"], path


def test_what_is_mended_shows_as_before(layers: Layers) -> None:
    for name in ("opaque file", "short origin", "fuse-overlayfs opaque"):
        DAMAGE[name][0](layers.upper)
    with layers.mounted() as merged:
        before = view(merged)
    code, findings = fsck(layers.upper, "--lower", layers.lower_text, "--fix")
    assert code == 0
    assert len(findings) == 3
    del before[b"opaque/.wh..wh..opq"]
    with layers.mounted() as merged:
        assert unlike(before, view(merged)) == []


@pytest.mark.parametrize(
    ("damage", "path"),
    [
        ("whiteout in an opaque directory", "opaque/gone"),
        ("xattr whiteout in an opaque directory", "opaque/gone"),
        ("whiteout in a directory of the upper", "fresh/none"),
        ("xattr whiteout", "merged/file"),
    ],
)
def test_ghosts_are_what_is_said(layers: Layers, damage: str, path: str) -> None:
    """They are listed and do not exist; not after --fix."""
    DAMAGE[damage][0](layers.upper)
    ghost = layers.merged / path
    with layers.mounted():
        assert ghost.name in os.listdir(ghost.parent)
        assert not os.path.lexists(ghost)
    if damage != "whiteout in a directory of the upper":
        assert fsck(layers.upper, "--fix")[0] == 0
        with layers.mounted():
            assert ghost.name not in os.listdir(ghost.parent)
            assert not os.path.lexists(ghost)


@pytest.mark.parametrize(
    ("options", "code", "path"),
    [
        (",redirect_dir=on", "OVL131", "moved"),
        (",metacopy=on,redirect_dir=on", "OVL132", "plain"),
        (",index=on", "OVL136", "index"),
        (",index=on", "OVL135", "one"),
    ],
)
def test_features_are_named(place: Path, options: str, code: str, path: str) -> None:
    layers = Layers(place, 1, options)
    lower = layers.lowers[0]
    (lower / "folder").mkdir()
    (lower / "plain").write_text("plain")
    (lower / "one").write_text("linked")
    (lower / "two").hardlink_to(lower / "one")
    with layers.mounted() as merged:
        (merged / "plain").chmod(0o600)
        (merged / "one").write_text("changed")
        if "redirect" in options:
            (merged / "folder").rename(merged / "moved")
    exit_code, findings = fsck(layers.upper, "--lower", layers.lower_text, "--work", layers.work)
    assert exit_code == 1
    assert (code, path) in codes(findings)
    after, fixed = fsck(layers.upper, "--work", layers.work, "--fix")
    assert after == 1
    assert not any(found["fixed"] for found in fixed)
    if code in ("OVL131", "OVL132"):
        for words in (["diff", layers.upper], ["export", layers.upper, place / "x.tar"]):
            done = CliRunner().invoke(command, ["overlay", *map(str, words)])
            assert done.exit_code == 1
            assert "which is not read here" in str(done.exception)


def test_a_data_only_layer_and_verity(layers: Layers) -> None:
    marked(layers.upper / "plain", TRUSTED + "metacopy", b"")
    marked(layers.upper / "plain", TRUSTED + "redirect", b"/data/0815")
    assert codes(fsck(layers.upper)[1]) == {("OVL133", "plain")}
    marked(layers.upper / "plain", TRUSTED + "metacopy", b"\0\x24\0\1" + bytes(32))
    assert codes(fsck(layers.upper)[1]) == {("OVL134", "plain")}


def test_the_work_directory(layers: Layers) -> None:
    inner = layers.work / "work"
    inner.chmod(0o700)
    (inner / "#1f").mkdir()
    (inner / "#1f" / "half").write_text("half")
    words: list[str | Path] = [layers.upper, "--work", layers.work]
    code, findings = fsck(*words)
    assert (code, codes(findings)) == (1, {("OVL141", "work/#1f")})
    assert findings[0]["where"] == "work"
    assert fsck(*words, "--fix")[0] == 0
    assert fsck(*words) == (0, [])
    (inner / "incompat" / "volatile").mkdir(parents=True)
    code, findings = fsck(*words, "--fix")
    assert (code, codes(findings)) == (1, {("OVL142", "work/incompat/volatile")})
    assert (inner / "incompat" / "volatile").is_dir()


def test_work_elsewhere_and_a_mount_inside(layers: Layers, host: None) -> None:
    with in_place("other") as other:
        sh("mount", "-t", "tmpfs", "tmpfs", str(other))
        try:
            work = other / "work"
            work.mkdir()
            code, findings = fsck(layers.upper, "--work", work)
            assert (code, codes(findings)) == (1, {("OVL143", ".")})
            sh("mount", "--bind", str(other), str(layers.upper / "fresh"))
            try:
                code, findings = fsck(layers.upper)
                assert (code, codes(findings)) == (1, {("OVL145", "fresh")})
            finally:
                sh("umount", str(layers.upper / "fresh"))
        finally:
            sh("umount", str(other))


def test_a_filesystem_that_has_no_marks(host: None) -> None:
    with in_place("ramfs") as upper:
        sh("mount", "-t", "ramfs", "ramfs", str(upper))
        try:
            (upper / "file").touch()
            try:
                os.getxattr(upper, "trusted.overlay.opaque")
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    pytest.skip(f"ramfs has extended attributes here ({error.strerror})")
            code, findings = fsck(upper)
            assert (code, codes(findings)) == (1, {("OVL144", ".")})
            assert "trusted.overlay" in findings[0]["reason"]
        finally:
            sh("umount", str(upper))


UNREADABLE = """
version: 1
rules:
- match: {path: /bad/}
  deny: {readdir: EIO}
- match: {path: /worse}
  deny: {lookup: EIO}
"""


def test_what_cannot_be_read(layers: Layers, host: None) -> None:
    for name in ("bad", "good"):
        (layers.upper / name).mkdir()
    (layers.upper / "worse").touch()
    marked(layers.upper / "good", TRUSTED + "opaque", b"z")
    with in_place("unreadable") as place:
        (place / "policy.yaml").write_text(UNREADABLE)
        (place / "mnt").mkdir()
        mount = Mount(layers.upper, place / "mnt", policy=str(place / "policy.yaml"))
        try:
            code, findings = fsck(mount.path)
            assert code == 1
            unread = [each for each in findings if each["code"] == "OVL146"]
            assert codes(unread) == {("OVL146", "bad"), ("OVL146", "worse")}
            assert all("Input/output error" in each["reason"] for each in unread)
            assert {path for _, path in codes(findings) - codes(unread)} == {"good"}, "it goes on"
        finally:
            mount.close()


def test_a_layer_of_user_marks_is_told_apart(place: Path) -> None:
    layers = Layers(place, 1, ",userxattr")
    (layers.lowers[0] / "d").mkdir()
    with layers.mounted() as merged:
        (merged / "d").rmdir()
        (merged / "d").mkdir()
    assert fsck(layers.upper) == (0, [])
    assert codes(fsck(layers.upper, "--trusted")[1]) >= {("OVL121", "d")}
    marked(layers.upper / "d", TRUSTED + "opaque")
    assert codes(fsck(layers.upper, "--userxattr")[1]) == {("OVL121", "d")}


def test_lines_for_people(layers: Layers) -> None:
    whiteout(layers.upper / "opaque" / "go\nne")
    done = CliRunner().invoke(command, ["overlay", "fsck", str(layers.upper)])
    assert done.exit_code == 1
    first, last = done.stdout.splitlines()
    assert first.startswith(f"{layers.upper}/opaque/go\\nne: OVL101 warning: ")
    assert last == f"{layers.upper}: 1 warning"
    done = CliRunner().invoke(command, ["overlay", "fsck", str(layers.upper), "--fix"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == f"{layers.upper}: ok, 1 mended"
