"""The tree over layers by itself, without a mount: inodes, numbers, what a copy-up does to them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounting import in_place
from support.overlays import Layers

from inopt.backing.inodes import FOREIGN, Inode
from inopt.layers.copying import Copier
from inopt.layers.options import LayerOptions
from inopt.layers.stack import Stack
from inopt.layers.standing import standing_of
from inopt.layers.tree import LayeredTree
from inopt.ops import Op, OpsMask


@pytest.fixture
def layers(host: None) -> Iterator[Layers]:
    with in_place("tree") as place:
        made = Layers.made(place, 2)
        for layer in made.lowers:
            (layer / "d/below").mkdir(parents=True)
            (layer / "d/file").write_text(layer.name)
        (made.lowers[0] / "one").write_text("linked")
        os.link(made.lowers[0] / "one", made.lowers[0] / "two")
        (made.upper / "own").write_text("upper")
        (made.upper / "pure").mkdir()
        yield made


@contextmanager
def tree_of(layers: Layers, *, upper: bool = True) -> Iterator[tuple[LayeredTree, Copier]]:
    options = LayerOptions(
        lower=tuple(map(str, layers.lowers)),
        upper=str(layers.upper) if upper else None,
        work=str(layers.work) if upper else None,
    )
    tree = LayeredTree(Stack(options), 256)
    try:
        yield tree, Copier(tree, lambda _inode: None)
    finally:
        tree.close()


def at(tree: LayeredTree, path: str) -> Inode:
    inode = tree.root
    for name in path.split("/"):
        inode, _ = tree.resolve(inode, os.fsencode(name))
    return inode


def test_what_a_copy_up_leaves_as_it_was(layers: Layers) -> None:
    with tree_of(layers) as (tree, copier):
        file, directory = at(tree, "d/file"), at(tree, "d")
        before = (file.nodeid, file.number, directory.nodeid, directory.number)
        assert file.number == os.stat(layers.lowers[0] / "d/file").st_ino
        copier.copy_up(file)
        assert (layers.upper / "d/file").read_text() == "lower0"
        assert at(tree, "d/file") is file
        assert at(tree, "d") is directory
        assert (file.nodeid, file.number, directory.nodeid, directory.number) == before
        assert tree.attributes(file).inode == os.stat(layers.upper / "d/file").st_ino
        assert [part.layer.path for part in standing_of(directory).below] == [
            str(path) for path in layers.lowers
        ]
        assert tree.location(file) == [b"d", b"file"]


def test_the_number_stays_when_it_is_forgotten(layers: Layers) -> None:
    with tree_of(layers) as (tree, copier):
        file = at(tree, "d/file")
        number = file.number
        copier.copy_up(file)
        for inode in tree.table.snapshot():
            tree.forget(inode.nodeid, inode.lookups)
        assert len(tree.table) == 1
        assert at(tree, "d/file").number == number, "the copy tells of whom it is one"


def test_a_file_that_the_kernel_has_gets_another_inode(layers: Layers) -> None:
    with tree_of(layers) as (tree, copier):
        file = at(tree, "d/file")
        tree.is_bound = lambda inode: inode is file
        moved: list[Inode] = []
        tree.moved = moved.append
        copier.copy_up(file)
        assert moved[-1] is file
        copy = at(tree, "d/file")
        assert copy is not file
        assert copy.number == file.number
        assert tree.attributes(file) == tree.attributes(copy), "but its attributes are the copy's"
        tree.require_openable(copy)
        with pytest.raises(OSError, match="Stale"):
            tree.require_openable(file)


def test_names_of_one_lower_file_are_inodes_of_their_own(layers: Layers) -> None:
    with tree_of(layers) as (tree, copier):
        one, two = at(tree, "one"), at(tree, "two")
        assert one is not two
        assert one.number == two.number == os.stat(layers.lowers[0] / "one").st_ino
        copier.copy_up(one)
        assert tree.attributes(one).links == 1
        assert tree.attributes(two).links == 2
    with tree_of(layers, upper=False) as (tree, _):
        assert at(tree, "one") is at(tree, "two"), "nothing will be copied up"


def test_what_may_be_given_to_the_kernel_for_good(layers: Layers) -> None:
    """On tier inode: not what may be copied up, nor what is made of several directories."""
    asked = OpsMask.of(Op.GETATTR, Op.SETATTR, Op.READ, Op.WRITE, Op.READDIR)
    upper = asked - OpsMask.of(Op.READDIR)
    lower = OpsMask.of(Op.GETATTR, Op.READ)

    def given(tree: LayeredTree, *names: str) -> list[OpsMask]:
        return [tree.attachable(at(tree, name), asked) for name in names]

    with tree_of(layers) as (tree, copier):
        assert given(tree, "own", "pure") == [upper, upper]
        assert given(tree, ".", "d", "d/file", "d/below") == [OpsMask()] * 4
        copier.copy_up(at(tree, "d/file"))
        assert given(tree, "d/file") == [upper]
    with tree_of(layers, upper=False) as (tree, _):
        assert given(tree, "d/file", "d") == [lower, OpsMask()]


def test_a_directory_that_was_forgotten_and_found_again(layers: Layers) -> None:
    """What is below it still refers to it as it was; its copy must be the one that is known."""
    with tree_of(layers) as (tree, copier):
        file, earlier = at(tree, "d/file"), at(tree, "d")
        tree.forget(earlier.nodeid, earlier.lookups)
        present = at(tree, "d")
        assert present is not earlier
        copier.copy_up(file)
        assert standing_of(present).layer.is_upper
        assert at(tree, "d/file") is file


def test_layers_on_other_filesystems(
    layers: Layers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Path("/dev/shm") / f"inopt-tests-{os.getpid()}"
    if os.stat("/dev/shm").st_dev == os.stat(layers.upper).st_dev:
        pytest.skip("/dev/shm is on the same filesystem here")
    (elsewhere / "d").mkdir(parents=True)
    try:
        (elsewhere / "d/foreign").write_text("x")
        moved = Layers((*layers.lowers, elsewhere), layers.upper, layers.work)
        with tree_of(moved) as (tree, copier):
            foreign = at(tree, "d/foreign")
            assert foreign.nodeid >= FOREIGN, "its number could be another one's"
            number = os.stat(elsewhere / "d/foreign").st_ino
            assert foreign.number == tree.stack.layers[-1].number(number) != number
            copier.copy_up(foreign)
            assert at(tree, "d/foreign") is foreign
            assert (layers.upper / "d/foreign").read_text() == "x"
    finally:
        (elsewhere / "d/foreign").unlink()
        (elsewhere / "d").rmdir()
        elsewhere.rmdir()


def test_nothing_is_held_afterwards(layers: Layers) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with tree_of(layers) as (tree, copier):
        for path in ("d/file", "d/below", "one", "two", "own", "pure"):
            copier.copy_up(at(tree, path))
        assert os.listdir(layers.work / "work") == []
    assert len(os.listdir("/proc/self/fd")) == before
