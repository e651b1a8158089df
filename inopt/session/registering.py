"""Backing files are made known to the kernel of one mount, in its dialect."""

from __future__ import annotations

import errno

from inopt.backing.attach import Attachments
from inopt.backing.attached import AttachedInodes
from inopt.backing.filesystems import has_number
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.kernel.device import Device
from inopt.kernel.dialects import Tier
from inopt.kernel.negotiate import Terms
from inopt.ops import OpsMask


def attachments_for(tree: Tree, device: Device, terms: Terms) -> Attachments:
    """Which inodes bypass, and by which ids: none, where kernel and daemon have agreed on none."""
    dialect = terms.dialect
    if dialect.one_shot:
        # Only which inodes bypass: each open registers by itself, when its reply is sent.
        return Attachments(lambda _inode, _file: 1, lambda _id: None, mixes=True)
    if terms.tier < Tier.RW:
        return Attachments()

    def attach(inode: Inode, descriptor: int, mask: OpsMask) -> int:
        with tree.quiet(inode, descriptor) as file:
            return dialect.register(device, file, mask)

    def register(inode: Inode, descriptor: int) -> int:
        if dialect.same_numbers and not has_number(descriptor, inode.number):
            raise OSError(errno.EXDEV, "reported by another inode number")
        with tree.quiet(inode, descriptor) as file:
            return dialect.register(device, file)

    def release(backing_id: int) -> None:
        dialect.release(device, backing_id)

    attached = AttachedInodes(tree, attach, release) if dialect.accepts else None
    stays = tree.stays if tree.has_layers else None
    return Attachments(register, release, attached=attached, stays=stays)
