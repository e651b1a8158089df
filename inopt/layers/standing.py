"""Where an inode stands in the layers, and which parts of them a directory consists of."""

from __future__ import annotations

import msgspec

from inopt.backing.inodes import Inode
from inopt.layers.stack import Layer


class Standing(msgspec.Struct, eq=False, gc=False):
    """Where an inode stands in the layers.

    ``parent`` and ``name``: one of its names. ``layer``: the one whose file it is. ``below``: the
    lower parts of a directory that is merged, topmost first. ``replaced``: it has been copied up
    while the kernel read the lower file by itself, so the copy is another inode. ``has_twin``: it
    is such a copy. ``protection``: which flags of chattr(1) it has, beside those that a file of the
    upper layer has itself; -1 while that is not known. ``listed_in``: the nodeid of the directory
    in which it was when it was last opened to be listed; -1 if it never was. ``impure``: of a
    directory, whether files in it may have the inode numbers of others; None while not known.
    """

    parent: Inode | None
    name: bytes
    layer: Layer
    below: tuple[Part, ...] = ()
    replaced: bool = False
    has_twin: bool = False
    protection: int = -1
    listed_in: int = -1
    impure: bool | None = None


class Part:
    """A directory of one layer below the topmost one that a directory of the tree consists of.

    ``inode`` is in no table: it is what descriptors are kept by.
    """

    __slots__ = ("inode", "layer")

    def __init__(self, inode: Inode, layer: Layer) -> None:
        self.inode = inode
        self.layer = layer


def standing_of(inode: Inode) -> Standing:
    """Where *inode* stands."""
    standing = inode.layers
    assert isinstance(standing, Standing)  # noqa: S101 - every inode of such a tree has one
    return standing
