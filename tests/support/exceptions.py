"""Where a mount may differ from the bare tree: the one table, each with its reason.

A scenario names the exception around just the calls that it is about. Within it, a result that
differs must be one of those that the table lists for the mount.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Exception_:  # noqa: N801 - not an exception of Python
    """*mount*: what the mount may answer instead; *tiers*: where.

    *beside*: that it may, given what the bare tree answers.
    """

    reason: str
    mount: Callable[[Any], bool]
    tiers: frozenset[str] = frozenset({"none", "rw", "inode"})
    beside: Callable[[Any, Any], bool] = lambda _bare, _mount: True


def _without_trusted(listed: Any) -> Any:
    """What listxattr(2) answered, or how long that is, without ``trusted.secret``."""
    if isinstance(listed, list):
        return [name for name in listed if not name.startswith("trusted.")]
    return listed - len("trusted.secret") - 1 if isinstance(listed, int) else listed


_STATX_SUBVOL: Final = 0x8000


def _errno(*names: str) -> Callable[[Any], bool]:
    return lambda result: result in names


KNOWN: Final[dict[str, Exception_]] = {
    "fallocate-shifts": Exception_(
        "fs/fuse/file.c: the client takes KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE only",
        _errno("EOPNOTSUPP"),
    ),
    "ioctl-on-fifo": Exception_(
        "fs/fuse/inode.c: fifos, sockets and devices get the kernel's own operations, no ioctl",
        _errno("ENOTTY"),
    ),
    "chown-nothing": Exception_(
        "fs/fuse/dir.c: chown(-1, -1) has nothing to say to the daemon, which thus cannot clear "
        "set-id bits",
        lambda result: isinstance(result, dict),
    ),
    "immutable-order": Exception_(
        "the client does not know of immutable and append-only inodes, so that its own checks "
        "come first: EACCES where the bare tree says EPERM, or the other way round",
        _errno("EPERM", "EACCES"),
    ),
    "immutable-access": Exception_(
        "the client does not know of immutable inodes: access(2) for writing goes by mode and ACL",
        lambda result: result is None,
    ),
    "statx-attributes": Exception_(
        "fs/fuse/dir.c: no stx_attributes are passed on",
        lambda result: isinstance(result, tuple),
    ),
    "statx-subvolume": Exception_(
        "btrfs tells STATX_SUBVOL, for which struct fuse_statx has no room",
        lambda result: isinstance(result, tuple),
        beside=lambda bare, mount: mount == (int(bare[0]) & ~_STATX_SUBVOL,),
    ),
    "truncate-nothing": Exception_(
        "btrfs leaves the modification time alone when truncate(2) changes no size; the daemon "
        "uses ftruncate(2), which moves it",
        lambda result: isinstance(result, tuple),
        frozenset({"none", "rw"}),
        beside=lambda bare, mount: mount == (bare[0], True, bare[2]),
    ),
    "trusted-listed": Exception_(
        "btrfs lists names of trusted.* for everybody, though none but root may read them; the "
        "mount does as other filesystems",
        lambda result: isinstance(result, list | int),
        beside=lambda bare, mount: _without_trusted(bare) == mount,
    ),
    "status-flags-later": Exception_(
        "bypassed: the kernel opened the backing file with the flags of open time; F_SETFL on the "
        "mount's file does not reach it",
        lambda _result: True,
        frozenset({"rw", "inode"}),
    ),
    "root-writes-set-id": Exception_(
        "tier rw: bypassed writes act as the owner, so that root's write clears set-id bits "
        "which were set after the first open",
        lambda _result: True,
        frozenset({"rw"}),
    ),
    "lock-pid": Exception_(
        "fs/fuse/file.c, convert_fuse_file_lock(), and fs/locks.c: of locks that the daemon keeps, "
        "F_GETLK tells a process, and F_OFD_GETLK an open file (-1), whatever has them",
        lambda result: isinstance(result, tuple) and abs(result[3]) == 1,
        frozenset({"async", "plain", "locks"}),
    ),
}
