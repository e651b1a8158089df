"""Changes that are cut short: whenever the daemon dies, what shows is as before, or as after.

Each change is made in a child process, on a tree over layers, and again for each system call of it
that changes something: there the child kills itself. What the kernel's overlayfs then shows of the
layers is compared with what it showed before and with what it shows when nothing interferes.
"""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support.layer_snapshots import apart, shown
from support.mounting import in_place
from support.overlays import Layers, left_in_work, mounted_by_kernel
from support.sizing import chosen

from inopt import syscalls
from inopt.backing.inodes import Inode
from inopt.layers.copying import Copier
from inopt.layers.naming import LayeredNaming
from inopt.layers.options import LayerOptions
from inopt.layers.stack import Stack
from inopt.layers.tree import LayeredTree

_CHANGING: Final[list[tuple[Any, str]]] = [
    *((os, name) for name in (
        "mknod", "mkdir", "symlink", "rename", "unlink", "rmdir", "setxattr", "chown", "chmod",
        "utime", "ftruncate", "fsync", "pwrite",
    )),
    *((syscalls, name) for name in ("renameat2", "link_descriptor", "copy_file_range")),
]  # fmt: skip

Change = Callable[["Actor"], None]


class Actor:
    """Does what requests of the kernel would have done."""

    def __init__(self, layers: Layers) -> None:
        options = LayerOptions(
            lower=tuple(map(str, layers.lowers)), upper=str(layers.upper), work=str(layers.work)
        )
        self.tree = LayeredTree(Stack(options), 256)
        self._copier = Copier(self.tree, lambda _inode: None)
        self.names = LayeredNaming(self.tree, self._copier)

    def at(self, path: str) -> Inode:
        inode = self.tree.root
        for name in path.split("/") if path else ():
            inode, _ = self.tree.resolve(inode, os.fsencode(name))
        return inode

    def copy_up(self, path: str) -> None:
        self._copier.copy_up(self.at(path))

    def remove(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        inode = self.at(path)
        self.names.remove(self.at(parent), os.fsencode(name), is_directory=inode.is_directory)

    def move(self, old: str, new: str, flags: int = 0) -> None:
        (above, _, name), (new_above, _, new_name) = old.rpartition("/"), new.rpartition("/")
        self.names.move(
            self.at(above), os.fsencode(name), self.at(new_above), os.fsencode(new_name), flags,
            lambda move: move(),
        )  # fmt: skip

    def make_directory(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        self.names.make(
            self.at(above), os.fsencode(name), lambda place: os.mkdir(name, 0o755, dir_fd=place)
        )

    def make_file(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        self.names.make(
            self.at(above), os.fsencode(name), lambda place: os.mknod(name, 0o100644, dir_fd=place)
        )

    def link(self, old: str, new: str) -> None:
        above, _, name = new.rpartition("/")
        self.names.link(self.at(old), self.at(above), os.fsencode(name))


CHANGES: dict[str, Change] = {
    "copy a file up": lambda actor: actor.copy_up("d/e/file"),
    "copy a file with holes up": lambda actor: actor.copy_up("d/sparse"),
    "copy a directory up": lambda actor: actor.copy_up("d/e"),
    "copy a link up": lambda actor: actor.copy_up("d/link"),
    "copy a fifo up": lambda actor: actor.copy_up("d/fifo"),
    "remove a lower file": lambda actor: actor.remove("d/e/file"),
    "remove a copied file": lambda actor: actor.remove("merged/copied"),
    "remove an upper file": lambda actor: actor.remove("merged/own"),
    "remove a merged directory": lambda actor: actor.remove("empty"),
    "remove a lower directory": lambda actor: actor.remove("d/hollow"),
    "rename a lower file": lambda actor: actor.move("d/e/file", "merged/there"),
    "rename over a lower file": lambda actor: actor.move("merged/own", "d/e/file"),
    "rename over a whiteout": lambda actor: actor.move("merged/own", "merged/gone"),
    "rename a directory over a whiteout": lambda actor: actor.move("pure", "merged/gone"),
    "rename a directory over an empty merged one": lambda actor: actor.move("pure", "empty"),
    "exchange": lambda actor: actor.move("merged/own", "d/e/file", syscalls.RENAME_EXCHANGE),
    "make a directory over a whiteout": lambda actor: actor.make_directory("merged/gone"),
    "make a file over a whiteout": lambda actor: actor.make_file("merged/gone"),
    "link a lower file": lambda actor: actor.link("d/e/file", "merged/second"),
    "link over a whiteout": lambda actor: actor.link("d/e/file", "merged/gone"),
}  # fmt: skip


def fill(layers: Layers) -> None:
    lower, upper = layers.lowers[0], layers.upper
    (lower / "d/e").mkdir(parents=True)
    (lower / "d/hollow").mkdir()
    (lower / "d/e/file").write_bytes(b"lower" * 50_000)
    os.setxattr(lower / "d/e/file", "user.mark", b"value")
    os.chmod(lower / "d/e/file", 0o640)
    with (lower / "d/sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    (lower / "d/link").symlink_to("e/file")
    os.mkfifo(lower / "d/fifo")
    (lower / "merged").mkdir()
    (lower / "merged/copied").write_text("lower")
    (lower / "merged/gone").mkdir()
    (lower / "merged/gone/below").write_text("hidden")
    (lower / "empty").mkdir()
    (lower / "empty/gone").write_text("hidden")
    (upper / "merged").mkdir()
    (upper / "merged/copied").write_text("upper")
    (upper / "merged/own").write_text("own")
    os.mknod(upper / "merged/gone", stat.S_IFCHR, 0)
    (upper / "empty").mkdir()
    os.mknod(upper / "empty/gone", stat.S_IFCHR, 0)
    (upper / "pure").mkdir()
    (upper / "pure/file").write_text("pure")


@contextmanager
def fresh() -> Iterator[Layers]:
    with in_place("crash") as place:
        layers = Layers.made(place, 1)
        fill(layers)
        yield layers


def cut_short(layers: Layers, change: Change, limit: int) -> int | None:
    """Make *change* in a child that dies before its changing call number *limit*.

    Returns how many there were, None if it has died.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            actor = Actor(layers)
            count = 0

            def counted(call: Callable[..., Any]) -> Callable[..., Any]:
                def run(*arguments: Any, **named: Any) -> Any:
                    nonlocal count
                    if count == limit:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1
                    return call(*arguments, **named)

                return run

            for module, name in _CHANGING:
                setattr(module, name, counted(getattr(module, name)))
            change(actor)
            os.write(writing, str(count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the change itself failed"
    return int(told) if told else None


def view(layers: Layers) -> Any:
    """What the kernel's overlayfs shows of the layers."""
    with mounted_by_kernel(layers, layers.upper.parent / "mnt") as path:
        seen = shown(path)
    for entry in seen.values():
        if stat.S_ISDIR(entry["mode"]):
            entry.pop("nlink")  # tells of how many layers it is made
    return seen


@pytest.mark.parametrize("what", CHANGES)
def test_as_before_or_as_after(host: None, what: str) -> None:
    change = CHANGES[what]
    with fresh() as layers:
        before = view(layers)
    with fresh() as layers:
        calls = cut_short(layers, change, -1)
        assert calls
        after = view(layers)
    for limit in (each for each in range(calls) if chosen(0, 2, what, str(each))):
        with fresh() as layers:
            assert cut_short(layers, change, limit) is None
            seen = view(layers)
            differences = (
                apart(before, seen, ("before", "seen")),
                apart(seen, after, ("seen", "after")),
            )
            assert not all(differences), (limit, differences)
            Actor(layers).tree.close()
            assert left_in_work(layers) == [], "the next mount clears the work directory"


def test_the_changes_are_those_that_are_meant(host: None) -> None:
    """Of each kind: what the change leaves in the upper layer."""
    with fresh() as layers:
        for change in ("copy a file up", "remove a merged directory", "rename a lower file"):
            cut_short(layers, CHANGES[change], -1)
        assert Path(layers.upper / "merged/there").read_bytes() == b"lower" * 50_000
        assert stat.S_ISCHR(os.lstat(layers.upper / "d/e/file").st_mode)
        assert stat.S_ISCHR(os.lstat(layers.upper / "empty").st_mode)
