"""The example `branches`: what is shown, merged and refused; a merge that is cut short anywhere."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.forking import run
from support.layer_snapshots import Tree, apart, shown
from support.layer_trees import fill
from support.mounting import inopt, mounts_below
from support.overlays import Layers, mounted_by_kernel
from support.sizing import STRESS

from inopt.layers.tools.places import Directory

pytestmark = pytest.mark.host
PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "branches" / "branches.py"


class Store:
    """A tree, a store for its branches, and a place to mount them."""

    def __init__(self, place: Path) -> None:
        self.tree, self.path, self.mnt = place / "tree", place / "st:ore", place / "mnt"
        (self.tree / "dir/sub").mkdir(parents=True)
        self.mnt.mkdir()
        for name in ("one", "two", "dir/three", "dir/sub/four"):
            (self.tree / name).write_text(f"{name} of the tree\n")
        self("init", str(self.tree))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(
            "support.forking:script", str(PROGRAM), "-C", str(self.path), *words,
            cwd="/", timeout=120,
        )  # fmt: skip

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refuses(self, *words: str) -> str:
        """Why; it is one line."""
        done = self.run(*words)
        assert done.returncode == 2, done
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line

    def leave(self) -> None:
        done = inopt("umount", str(self.mnt))
        assert done.returncode == 0, done.stderr

    def listed(self) -> list[list[str]]:
        return [line.split("\t") for line in self("list").splitlines()]


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    made = Store(place)
    yield made
    if mounts_below(made.mnt):
        made.leave()


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_from_one_to_the_other_and_back(store: Store) -> None:
    before, mnt = names(store.tree), store.mnt
    store("create", "work")
    store("create", "fix", "--from", "work")
    store("create", "other")
    store("switch", "work", str(mnt))
    (mnt / "one").write_text("work\n")
    (mnt / "two").unlink()
    (mnt / "new").mkdir()
    store("switch", "fix", str(mnt))
    assert (mnt / "one").read_text() == "work\n"
    shutil.rmtree(mnt / "dir")
    (mnt / "dir").mkdir()
    (mnt / "dir/fixed").write_text("fix\n")
    (mnt / "two").write_text("fix\n")
    (mnt / "new").rmdir()
    assert store.listed()[0] == ["fix", "work", "4", str(mnt)]
    told = store("diff", "fix")
    for words in (["removed", "dir/three"], ["added", "dir/fixed"], ["added", "two"]):
        assert any(line.split()[:2] == words for line in told.splitlines()), told
    assert "mounted at" in store.refuses("merge", "fix")
    store("switch", "other", str(mnt))
    assert names(mnt) == before
    (mnt / "one").write_text("other\n")
    store.leave()

    store("merge", "fix")
    assert store.listed()[0] == ["fix", "work", "0", "-"]
    store("discard", "fix")
    store("switch", "work", str(mnt))
    merged = names(mnt)
    assert merged == {"one", "two", "dir", "dir/fixed"}
    store.leave()
    assert names(store.tree) == before  # nothing has been done to it so far
    store("merge", "work")
    assert names(store.tree) == merged
    assert (store.tree / "two").read_text() == "fix\n"
    store("discard", "work")
    assert store.listed() == [["other", "base", "1", "-"]]
    store("switch", "other", str(mnt))
    assert names(mnt) == merged
    assert (mnt / "one").read_text() == "other\n"


def test_what_would_change_each_other(store: Store) -> None:
    other = store.mnt.with_name("other")
    other.mkdir()
    store("create", "work")
    store("create", "fix", "--from", "work")
    store("create", "idea")
    store("switch", "fix", str(store.mnt))
    try:
        assert "mounted at" in store.refuses("switch", "work", str(other))
        assert "mounted at" in store.refuses("merge", "idea")  # it would show in 'fix'
        assert "mounted at" in store.refuses("merge", "work")
        assert "made from it" in store.refuses("discard", "work")
        assert "cannot be discarded" in store.refuses("discard", "fix")
        store("switch", "idea", str(other))
        (other / "one").write_text("idea\n")
        assert (store.mnt / "one").read_text() == "one of the tree\n"
        (store.mnt / "one").open().close()
        busy = (store.mnt / "two").open()
        refused = store.run("switch", "work", str(store.mnt))
        assert refused.returncode
        assert "busy" in refused.stderr.lower() or "in use" in refused.stderr
        busy.close()
    finally:
        inopt("umount", str(other))


def test_mistakes_are_told_in_a_line(store: Store) -> None:
    store("create", "work")
    assert "there is one already" in store.refuses("create", "work")
    for name in ("../up", ".hidden", "base", "", "a/b", "x" * 101, "new\nline"):
        assert "no name for a branch" in store.refuses("create", name)
    assert "none of this name: there are: work" in store.refuses("create", "x", "--from", "y")
    for command in ("merge", "diff", "discard"):
        assert "none of this name" in store.refuses(command, "base")
    assert "none of this name" in store.refuses("switch", "base", str(store.mnt))
    assert "nowhere" in store.refuses("switch", "work", "/nowhere/at/all")
    assert "required" in store.refuses("switch", "work")
    assert "invalid choice" in store.refuses("nonsense")
    assert "not empty" in store.refuses("init", str(store.tree))
    assert store.listed() == [["work", "base", "0", "-"]]


def test_places_that_cannot_be_stores(place: Path) -> None:
    store = Store(place)
    (place / "empty").mkdir()
    for path, word, told in (
        (place / "empty", "list", "no store"),
        (place / "tree/store", "init", "lie in one another"),
        (place, "init", "lie in one another"),
    ):
        store.path = path
        words = [word, str(store.tree)] if word == "init" else [word]
        assert told in store.refuses(*words)
    store.path = place / "new"
    assert "not a directory" in store.refuses("init", str(place / "missing"))


def test_a_merge_that_is_killed_is_finished_by_the_next(store: Store) -> None:
    for number in range(1500):
        (store.tree / f"{number}").write_text("old")
    store("create", "work")
    store("create", "idea")
    upper = store.path / "work/upper"  # as a mount would have left it
    for number in range(0, 1500, 2):
        (upper / f"{number}").write_text(f"new {number}")
        os.mknod(upper / f"{number + 1}", 0o20000, 0)
    command = [sys.executable, str(PROGRAM), "-C", str(store.path), "merge", "work"]
    with subprocess.Popen(command, start_new_session=True) as merging:
        end = time.monotonic() + 240
        while (store.tree / "1").exists() and merging.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.001)
        os.killpg(merging.pid, signal.SIGKILL)
    assert merging.returncode == -signal.SIGKILL, "it was over too soon"
    assert store.listed()[1][3] == "merge cut short"
    for words in (
        ("create", "x", "--from", "work"),
        ("switch", "idea", str(store.mnt)),
        ("merge", "idea"),
        ("diff", "work"),
        ("discard", "work"),
    ):
        assert "run 'merge work'" in store.refuses(*words)
    store("merge", "work")
    for number in range(0, 1500, 2):
        assert (store.tree / f"{number}").read_text() == f"new {number}"
        assert not (store.tree / f"{number + 1}").exists()
    assert store.listed()[1] == ["work", "base", "0", "-"]
    assert sorted(os.listdir(store.path)) == ["base", "idea", "work"]
    assert sorted(os.listdir(store.path / "work")) == ["parent", "upper", "work"]


# --- a layer into the one below -----------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("branches", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CutShort(BaseException):
    """Nobody expects it."""


class Steps:
    """All that changes something, and the end of it after some more of them."""

    def __init__(self, patch: pytest.MonkeyPatch, module: Any) -> None:
        self.left = -1
        for where, name in (
            (os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "setxattr"), (os, "removexattr"),
            (module, "make_whiteout"), (module, "dress"),
        ):  # fmt: skip
            patch.setattr(where, name, self._counted(getattr(where, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == -1:
                raise CutShort
            return function(*arguments, **options)

        return counted


def view(layers: Layers, place: Path, *, all_times: bool) -> Tree:
    """What the kernel shows of lower layers."""
    with mounted_by_kernel(layers, place / "view", upper=False) as root:
        taken = shown(root)
    for entry in taken.values():
        entry.pop("nlink")  # of directories, that of how many layers they are
        if not all_times and entry["mode"] & 0o170000 == 0o040000:
            entry.pop("mtime")
    return taken


def fold(program: Any, child: Path, parent: Path, below: list[Path], trash: Path) -> None:
    shutil.rmtree(trash, ignore_errors=True)
    opened = [Directory(str(path), "layer") for path in (child, parent, *below)]
    try:
        program.Folding(opened[0], opened[1], trash).run(tuple(opened[2:]))
    finally:
        for directory in opened:
            directory.close()


@pytest.mark.parametrize("often", [0, 1, 5])
def test_folding_shows_the_same(
    place: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch, often: int
) -> None:
    """*often*: it is cut short after so many steps, again and again."""
    layers = Layers.made(place / "layers", 3)
    for number in range(4 if often == 1 else 25 if STRESS else 10):
        fill(layers, f"top{number}", 100 * often + number)
    child, (parent, *below) = layers.upper, layers.lowers
    both = Layers((child, parent, *below), place, place)
    one = Layers((parent, *below), place, place)
    before = view(both, place, all_times=not often)
    steps = Steps(monkeypatch, program)
    runs = 1
    while True:
        steps.left = runs // 8 + often if often else -1
        try:
            fold(program, child, parent, below, place / "trash")
            break
        except CutShort:
            steps.left = -1
            runs += 1
            assert apart(before, view(both, place, all_times=False), ("before", "now")) == []
    steps.left = -1
    assert (runs > 10) == bool(often)
    assert os.listdir(child) == []
    assert apart(before, view(one, place, all_times=not often), ("before", "folded")) == []
