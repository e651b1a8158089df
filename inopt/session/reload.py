"""Replace the policy of a live mount: the new one is checked first, the old one kept on error.

What the kernel remembers is made stale by the best notification that it has. Inodes come under the
new policy when they are next looked up; those that are open keep their plan, unless it can be
told where they stand and the new plan lets their opens go on as they are.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Final

import structlog

from inopt.backing.inodes import Inode
from inopt.handlers.serve import Context
from inopt.kernel.device import Device
from inopt.kernel.negotiate import Terms
from inopt.wire import notifications
from inopt.wire.uapi import EXPIRE_ONLY, InitFlag

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
_EPOCH_MINOR: Final = 44


def settle(context: Context) -> dict[str, Any]:
    """Put open inodes under the present policy, where that can be done; count the others."""
    inodes = [inode for inode in context.tree.table.snapshot() if inode.io is not None]
    kept = [inode for inode in inodes if not _settle(context, inode)]
    for inode in kept[:10]:
        _log.info("open: keeps its earlier plan until it is closed", inode=inode.number)
    return {
        "known_inodes": len(context.tree.table),
        "open_inodes": len(inodes),
        "on_old_plan": len(kept),
        "on_old_plan_inodes": sorted(inode.number for inode in kept)[:100],
    }


def _settle(context: Context, inode: Inode) -> bool:
    with context.tree.descriptors.use():
        return context.placement.settle(inode)


def make_stale(device: Device, context: Context, terms: Terms) -> str:
    """Make the kernel ask again for every name, and for attributes and data of every inode.

    Returns how: ``epoch``, ``entries``. Must not be called by a reader.
    """
    how = make_names_stale(device, context, terms)
    for inode in context.tree.table.snapshot():
        _tell(device, notifications.invalidate_inode(inode.nodeid, 0, 0))
    return how


def make_names_stale(device: Device, context: Context, terms: Terms) -> str:
    """Make the kernel ask again for every name. Returns how; must not be called by a reader."""
    if terms.minor >= _EPOCH_MINOR:
        _tell(device, notifications.increment_epoch())
        return "epoch"
    flags = EXPIRE_ONLY if terms.has(InitFlag.HAS_EXPIRE_ONLY) else 0
    for inode in context.tree.table.snapshot():
        if inode.is_directory:
            with context.tree.descriptors.use():
                _expire_names(device, context, inode, flags)
    return "entries"


def _expire_names(device: Device, context: Context, directory: Inode, flags: int) -> None:
    with suppress(OSError):
        descriptor = context.tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = os.listdir(descriptor)
        finally:
            os.close(descriptor)
        for name in names:
            entry = notifications.invalidate_entry(directory.nodeid, os.fsencode(name), flags)
            _tell(device, entry)


def _tell(device: Device, message: bytes) -> None:
    with suppress(OSError):
        device.notify(message)
