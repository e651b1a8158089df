"""Cheap branches of a directory tree: each is an upper layer over its parent, mounted by inopt.

A store has `base`, a link to the tree, and a directory for each branch: `upper` and `work`, and
`parent`, a link to what it is made from.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

from inopt import InoptError, UsageError, syscalls
from inopt.layers.format import Format, beneath, make_whiteout
from inopt.layers.tools.below import NOTHING, Below, below_all
from inopt.layers.tools.comparing import Comparison
from inopt.layers.tools.dressing import dress
from inopt.layers.tools.entries import Entry, Layer, names_in
from inopt.layers.tools.mounted import users_of
from inopt.layers.tools.places import Directory

INOPT = [sys.executable, "-m", "inopt"]
MARKS = Format()
BASE = "base"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """The branches of one tree. Commands take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        if not (self.path / BASE).is_symlink():
            raise UsageError(f"'{path}': no store of branches: make one with 'init BASE'")
        self.held = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self.held, fcntl.LOCK_EX)
        for left in self.path.glob(".*"):  # by a command that was cut short
            _remove(left)

    def _names(self) -> list[str]:
        return sorted(link.parent.name for link in self.path.glob("*/parent"))

    def _chain(self, name: str) -> list[str]:
        """A branch, or the base, with all that it is made from, the topmost first."""
        if name == BASE:
            return [BASE]
        return [name, *self._chain(os.path.basename(os.readlink(self.path / name / "parent")))]

    def _showing(self, name: str) -> list[str]:
        """All branches that show what *name* has, itself included."""
        return [each for each in self._names() if name in self._chain(each)]

    def _upper(self, name: str) -> Path:
        """Where the changes of a branch are; of the base: the tree itself."""
        return (self.path / BASE).resolve() if name == BASE else self.path / name / "upper"

    def _layers(self, name: str) -> list[str]:
        """The words that name the lower layers of a branch."""
        paths = [str(self._upper(each)) for each in self._chain(name)[1:]]
        return ["--lower", ":".join(re.sub(r"([\\:])", r"\\\1", path) for path in paths)]

    def _mounted(self, name: str) -> str | None:
        """Where a branch is mounted, by inopt or by the kernel."""
        with closing(Directory(str(self._upper(name)), "layer")) as upper:
            return next(iter(users_of(upper)), None)

    def _require(self, name: str, *, merging: bool = False) -> None:
        """Refuse what is no branch, and all while a merge is unfinished, but to finish it."""
        if name not in self._names():
            known = ", ".join(self._names()) or "none yet"
            raise UsageError(f"branch {name!r}: there is none of this name: there are: {known}")
        for marker in self.path.glob("*/merging"):
            half = marker.parent.name
            if not merging or half != name:
                raise UsageError(f"branch '{half}': its merge was cut short: run 'merge {half}'")

    def _unmounted(self, names: list[str], why: str) -> ExitStack:
        """Until it is closed, none of *names* can be mounted by inopt. Refuse if one is."""
        with ExitStack() as held:
            for each in names:
                point = self._mounted(each)
                work = os.open(self.path / each / "work", os.O_RDONLY)
                held.callback(os.close, work)
                try:
                    fcntl.flock(work, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    point = point or "a place that is not seen from here"
                if point:
                    raise UsageError(f"branch '{each}': mounted at '{point}': {why}: unmount it")
            return held.pop_all()

    def create(self, name: str, parent: str) -> None:
        """Make a branch; nothing is copied."""
        if parent != BASE:
            self._require(parent)
        if not NAME.fullmatch(name) or name in (BASE, *self._names()):
            reason = "there is one already" if name in self._names() else "no name for a branch"
            raise UsageError(f"branch {name!r}: {reason}: take another of letters, digits, ._-")
        new = self.path / f".new-{name}"
        (new / "work").mkdir(parents=True)
        _make_upper(new / "upper", self._upper(parent))
        (new / "parent").symlink_to(f"../{parent}")
        new.rename(self.path / name)

    def list(self) -> None:
        """Print each branch with its parent, how many names it has, and where it is mounted."""
        for name in self._names():
            count = sum(len(below) + len(files) for _, below, files in os.walk(self._upper(name)))
            state = "merge cut short" if (self.path / name / "merging").exists() else "-"
            print(name, self._chain(name)[1], count, self._mounted(name) or state, sep="\t")

    def switch(self, name: str, mountpoint: str, policy: str) -> None:
        """Mount a branch, in place of the one that is mounted there."""
        self._require(name)
        point = os.path.realpath(mountpoint)
        there = [each for each in self._names() if self._mounted(each) == point]
        if there == [name]:
            return
        related = {*self._chain(name), *self._showing(name)} - {BASE, *there}
        self._unmounted(sorted(related), f"'{name}' and it would change each other").close()
        if there:
            _run(*INOPT, "umount", point)
        layers = [*self._layers(name), "--upper", str(self._upper(name))]
        _run(*INOPT, "mount", policy, point, *layers, "--work", str(self.path / name / "work"))

    def diff(self, name: str) -> None:
        """Print what a branch changes of its parent."""
        self._require(name)
        layers = [str(self._upper(name)), *self._layers(name)]
        print(_run(*INOPT, "overlay", "diff", *layers), end="")

    def merge(self, name: str) -> None:
        """Apply a branch to its parent; the branch is empty then, and shows the same."""
        self._require(name, merging=True)
        parent = self._chain(name)[1]
        why = f"it shows '{parent}', which would be changed"
        with self._unmounted(self._showing(parent), why), ExitStack() as opened:
            layers = [Directory(str(self._upper(each)), "layer") for each in self._chain(name)]
            for layer in layers:
                opened.callback(layer.close)
            for _ in Comparison(Layer(layers[0], MARKS), None).changes():
                pass  # which raises if there is something in it that cannot be merged
            marker = self.path / name / "merging"
            marker.touch()
            if parent == BASE:
                _run(*INOPT, "overlay", "commit", layers[0].path, layers[1].path)
                os.sync()  # before what has been copied goes, in one step
                _make_upper(self.path / ".old", self._upper(name))
                new = os.fsencode(f"{name}/upper")
                syscalls.renameat2(self.held, new, self.held, b".old", syscalls.RENAME_EXCHANGE)
            else:
                Folding(layers[0], layers[1], self.path / ".old").run(tuple(layers[2:]))
                os.sync()
            _remove(self.path / ".old")
            marker.unlink()

    def discard(self, name: str) -> None:
        """Remove a branch and all its changes."""
        self._require(name)
        for above in set(self._showing(name)) - {name}:
            raise UsageError(f"branch '{name}': '{above}' is made from it: discard that first")
        with self._unmounted([name], "it cannot be discarded"):
            (self.path / name).rename(self.path / f".gone-{name}")
        _remove(self.path / f".gone-{name}")


class Folding:
    """Moves all that an upper layer has to the one below it; no file is copied.

    After each step both together show the same as before, so what was cut short is finished by
    another run. *trash*: a directory to be made on their filesystem.
    """

    def __init__(self, upper: Directory, lower: Directory, trash: Path) -> None:
        self._upper, self._lower, self._trash = Layer(upper, MARKS), Layer(lower, MARKS), trash
        trash.mkdir()

    def run(self, below: tuple[Directory, ...]) -> None:
        """Do it; *below*: the layers that both lie over."""
        self._directory(self._upper.top(), self._lower.top(), below_all(below, MARKS))

    def _directory(self, source: Entry, target: Entry, below: Below) -> None:
        below = NOTHING if target.is_opaque else below
        wanted = {MARKS.prefix + mark: value for mark, value in target.marks.items()}
        found = self._upper.attributes(source)
        wanted |= {MARKS.stored(name): value for name, value in found.items()}
        wanted[MARKS.impure] = b"y"  # it may get copies
        child, parent = source.open_directory(), target.open_directory()
        try:
            for name in names_in(child, source.path):
                path = os.path.join(source.path, name)
                new = self._upper.find(child, name, path)
                if new is not None:
                    self._name(new, self._lower.find(parent, name, path), parent, below)
            dress(parent, b"", source, wanted)
        finally:
            os.close(child)
            os.close(parent)

    def _name(self, new: Entry, old: Entry | None, parent: int, below: Below) -> None:
        merges = new.is_directory and not new.is_opaque
        if merges and old is not None and old.is_directory:
            with below.enter(new.name) as deeper:
                self._directory(new, old, deeper)
            os.rmdir(new.name, dir_fd=new.directory)
            return
        if new.is_whiteout:
            self._clear(old)
            if below.find(new.name) is not None:
                make_whiteout(parent, new.name)
            os.unlink(new.name, dir_fd=new.directory)
            return
        path = beneath(new.directory, new.name)
        if merges and old is not None:  # which has hidden what would be merged without it
            os.setxattr(path, MARKS.opaque, b"y")
        if "origin" in new.marks and old is not None:  # which is the origin
            os.removexattr(path, MARKS.origin, follow_symlinks=False)
        if old is not None and (new.is_directory or old.is_directory):
            self._clear(old)
        os.rename(new.name, new.name, src_dir_fd=new.directory, dst_dir_fd=parent)

    def _clear(self, old: Entry | None) -> None:
        if old is not None and old.is_directory:
            place = self._trash / str(len(os.listdir(self._trash)))
            os.rename(old.name, place, src_dir_fd=old.directory)
        elif old is not None:
            os.unlink(old.name, dir_fd=old.directory)


def init(path: Path, base: Path) -> None:
    """Make a store for branches of a tree."""
    real, tree = path.resolve(), base.resolve()
    if not tree.is_dir():
        raise UsageError(f"'{base}': not a directory: name the tree that branches are made of")
    if real.is_relative_to(tree) or tree.is_relative_to(real):
        raise UsageError(f"'{path}': store and tree lie in one another: put the store elsewhere")
    real.mkdir(parents=True, exist_ok=True)
    if any(real.iterdir()):
        raise UsageError(f"'{path}': not empty: name a new directory for the store")
    (real / BASE).symlink_to(tree)


def _make_upper(path: Path, model: Path) -> None:
    path.mkdir()
    os.chown(path, model.stat().st_uid, model.stat().st_gid)
    shutil.copystat(model, path)


def _remove(path: Path) -> None:
    _run("rm", "-rf", "--one-file-system", "--", str(path))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        reason = done.stderr.strip().removeprefix("inopt: ")
        raise UsageError(reason) if done.returncode == UsageError.exit_code else InoptError(reason)
    return done.stdout


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see --help")


def main() -> int:
    """Run one command; the exit code."""
    parser = _Parser(description=__doc__)
    parser.add_argument("-C", dest="store", type=Path, default=Path(), help="the store: else here")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help=init.__doc__).add_argument("base", type=Path)
    commands.add_parser("list", help=Store.list.__doc__)
    for command in ("create", "switch", "diff", "merge", "discard"):
        commands.add_parser(command, help=getattr(Store, command).__doc__).add_argument("name")
    commands.choices["create"].add_argument("--from", dest="parent", default=BASE)
    commands.choices["switch"].add_argument("mountpoint")
    commands.choices["switch"].add_argument("--policy", default="overlay")
    try:
        given = vars(parser.parse_args())
        path, command = given.pop("store"), given.pop("command")
        if command == "init":
            init(path, **given)
        else:
            getattr(Store(path), command)(**given)
    except (InoptError, OSError) as error:
        print(f"branches: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, InoptError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
