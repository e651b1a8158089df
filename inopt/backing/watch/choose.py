"""The best watch that a tree can have, or why there is none."""

from __future__ import annotations

import errno
import os
from typing import Final

from inopt.backing.filesystems import changed_elsewhere
from inopt.backing.tree import Tree
from inopt.backing.watch.changes import Watch
from inopt.backing.watch.fanotify import Fanotify
from inopt.backing.watch.inotify import Inotify
from inopt.exceptions import UsageError

# Set (not to 0), it keeps fanotify from being used.
SWITCH: Final = "INOPT_NO_FANOTIFY"

_FANOTIFY_REASONS: Final = {
    errno.EPERM: "it needs CAP_SYS_ADMIN in the initial user namespace",
    errno.EINVAL: "it needs Linux 5.17 or later",
    errno.ENOSYS: "the kernel has none",
    errno.ENODEV: "the filesystem has no id",
    errno.EOPNOTSUPP: "the filesystem has no file handles",
    errno.EXDEV: "the source is on a subvolume of btrfs",
    errno.EMFILE: "the limit fs.fanotify.max_user_groups is reached",
    errno.ENOSPC: "the limit fs.fanotify.max_user_marks is reached",
}
_INOTIFY_REASONS: Final = {
    errno.ENOSYS: "the kernel has none",
    errno.EMFILE: "the limit fs.inotify.max_user_instances is reached",
    errno.ENOSPC: "the limit fs.inotify.max_user_watches is reached",
}


def open_watch(tree: Tree) -> tuple[Watch, str]:
    """A watch of *tree*, and why it is not the better one (empty if it is).

    Raises `UsageError` with the reasons if changes underneath cannot be noticed.
    """
    kind = changed_elsewhere(tree.root.descriptor)
    if kind is not None:
        raise UsageError(f"it is on {kind}, where others make changes that nobody tells here")
    try:
        return _fanotify(tree), ""
    except OSError as error:
        reason = "no fanotify: " + _said(error, _FANOTIFY_REASONS)
    try:
        return Inotify(tree), reason
    except OSError as error:
        raise UsageError(f"{reason}; no inotify: {_said(error, _INOTIFY_REASONS)}") from error


def _fanotify(tree: Tree) -> Fanotify:
    if os.environ.get(SWITCH, "") not in ("", "0"):
        raise OSError(errno.ECANCELED, f"{SWITCH} is set")
    if not tree.has_handles:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return Fanotify(tree)


def _said(error: OSError, reasons: dict[int, str]) -> str:
    return reasons.get(error.errno or 0, error.strerror or str(error))
