"""The shipped policies of layers: they mount as they say, and a sandbox leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mounting import Mount, inopt
from support.snapshot import snapshot
from support.waiting import wait_gone

pytestmark = pytest.mark.host


class _Layered(Mount):
    """A mount of layers by the name of a policy."""

    def __init__(self, policy: str, path: Path, *arguments: str) -> None:
        path.mkdir()
        self.path = path
        self.log = path.parent / "log"
        done = inopt("mount", policy, str(path), *arguments, "--log-format", "json",
                     "--log-file", str(self.log))  # fmt: skip
        assert done.returncode == 0, done.stderr
        stats = self.stats()
        self.source, self.pid = Path(str(stats["source"])), int(stats["pid"])


def make_lower(place: Path) -> Path:
    lower = place / "lower"
    (lower / "include").mkdir(parents=True)
    (lower / "include/one.h").write_text("#define ONE 1\n")
    (lower / "large").write_bytes(b"l" * 300_000)
    return lower


def test_a_sandbox_leaves_nothing(place: Path) -> None:
    lower = make_lower(place)
    lower.chmod(0o751)
    before = snapshot(lower)
    mount = _Layered("overlay-sandbox", place / "mnt", "--lower", str(lower))
    try:
        root, source = mount.path, mount.source
        assert root.stat().st_mode & 0o777 == 0o751
        assert not (root / "include/two.h").exists()  # and that it is not, is remembered
        (root / "include/two.h").write_text("#define TWO 2\n")
        assert (root / "include/two.h").read_text() == "#define TWO 2\n"
        os.rename(root / "large", root / "moved")
        (root / "include/one.h").unlink()
        assert sorted(os.listdir(root / "include")) == ["two.h"]
        assert (root / "moved").read_bytes() == b"l" * 300_000
        assert not any(mount.stats()["READ"].values()) or mount.stats()["tier"] == "none"
        assert source.is_dir()
        assert mount.complaints() == []
    finally:
        mount.close()
    assert wait_gone(mount.pid)
    assert not source.parent.exists()
    assert snapshot(lower) == before


def test_changes_are_kept_by_the_other(place: Path) -> None:
    lower = make_lower(place)
    for name in ("upper", "work"):
        (place / name).mkdir()
    words = ("--lower", str(lower), "--upper", str(place / "upper"), "--work", str(place / "work"))
    mount = _Layered("overlay", place / "mnt", *words)
    try:
        with (mount.path / "large").open("ab") as file:
            file.write(b"more")
        assert mount.complaints() == []
    finally:
        mount.close()
    assert (place / "upper/large").read_bytes() == b"l" * 300_000 + b"more"
    assert (lower / "large").stat().st_size == 300_000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("overlay",), "none are named"),
        (("overlay-sandbox",), "none are named"),
        (("overlay-sandbox", "--upper", "u", "--work", "w"), "leave one of them out"),
    ],
)
def test_what_is_missing_is_told(place: Path, words: tuple[str, ...], told: str) -> None:
    (place / "mnt").mkdir()
    lower = ("--lower", str(place)) if len(words) > 1 else ()
    done = inopt("mount", words[0], str(place / "mnt"), *lower, *words[1:])
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
