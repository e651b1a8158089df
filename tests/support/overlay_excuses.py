"""Where our overlay may answer otherwise than the kernel's: all cases, each with its reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, Final

from support.layer_trees import ACCESS_ACL

_READS: Final = frozenset({"read", "pread", "map_peek"})
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
# By a descriptor of a lower file that has no name any more, the kernel's overlayfs copies it up to
# where the name was, which is there again after the next mount: see test_overlay_nameless.
_OF_THE_NAMELESS: Final = frozenset({"fchmod", "fchown", "fset_times", "fsetxattr"})


def left_out(
    who: str, operation: str, arguments: tuple[Any, ...], nameless: Callable[[str], bool]
) -> bool:
    """Whether a step is about what the kernel's does otherwise than any filesystem beneath it."""
    if operation in _OF_THE_NAMELESS:
        return nameless(arguments[0])
    # ovl_set_or_remove_acl() drops the set-group-id bit also when an ACL is removed.
    return operation == "removexattr" and arguments[1] == ACCESS_ACL and who != "root"


def excused(operation: str, kernel: Any, ours: Any, tier: str) -> bool:
    """Whether two answers may differ, whatever was before."""
    if operation == "listing" and isinstance(kernel, list) and isinstance(ours, list):
        # In a directory that is not marked, the kernel lists numbers that stat(2) does not tell.
        named = [[entry[:2] for entry in entries] for entries in (kernel, ours)]
        return named[0] == named[1] and all(entry[2] for entry in ours)
    if tier != "none":
        if isinstance(kernel, dict) and isinstance(ours, dict):
            ours = {**ours, "mode": level_mode(kernel["mode"], ours["mode"])}
        elif isinstance(kernel, int) and isinstance(ours, int):
            ours = level_mode(kernel, ours)
        return bool(kernel == ours)
    return False


def level_mode(kernel: int, ours: int) -> int:
    """*ours* with the set-id bits that only the kernel's has left.

    Bypassed writes act as the file's owner, so that root's take the bits away as well: see
    ``root-writes-set-id`` in `support.exceptions`.
    """
    missing = kernel & ~ours & _SET_ID
    return ours | missing if stat.S_ISREG(kernel) else ours


def may_be_as_before(
    operation: str, arguments: tuple[Any, ...], ours: Any, held: bytes, now: Any, tier: str
) -> bool:
    """Whether a descriptor may go on reading what it was opened on: *held*; *now*: what is there.

    A lower file that is read by bypass is read on as it was: the one documented difference. A
    mapping made by a descriptor of before a copy-up shows the lower file on the kernel's overlayfs;
    here it may show either.
    """
    if operation not in _READS or not isinstance(ours, bytes):
        return False
    if operation == "map_peek":
        return ours in (held, now)
    if tier == "none":
        return False
    # Where a read(2) begins, only the kernel knows; a pread(2) says it.
    return ours in held if operation == "read" else ours == held[arguments[2] :][: arguments[1]]


def reads_only(flags: int) -> bool:
    """Whether flags of open(2) are for reading alone."""
    return flags & (os.O_ACCMODE | os.O_PATH | os.O_DIRECTORY) == os.O_RDONLY
