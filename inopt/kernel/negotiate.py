"""INIT in, the terms of the session out. Asks only for what inopt honours."""

from __future__ import annotations

from typing import Final

import msgspec

from inopt.exceptions import UsageError
from inopt.kernel.abilities import Abilities, choose_dialect
from inopt.kernel.dialects import BY_NAME, Dialect, Tier
from inopt.wire import replies, uapi
from inopt.wire.bodies import Init
from inopt.wire.uapi import InitFlag

MAX_WRITE: Final = 1 << 20
_PAGE: Final = 4096
# One request of max_write bytes, its header and WRITE's own arguments.
READ_BUFFER: Final = MAX_WRITE + _PAGE
_MAX_BACKGROUND: Final = 64

_ALWAYS: Final = int(
    InitFlag.ASYNC_READ
    | InitFlag.BIG_WRITES
    | InitFlag.ASYNC_DIO
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.DONT_MASK  # umask or default ACL: the backing filesystem decides
    | InitFlag.AUTO_INVAL_DATA  # what changes underneath shows when its attributes do
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.HANDLE_KILLPRIV_V2  # else every write(2) first asks for security.capability
    | InitFlag.ABORT_ERROR
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPENDIR_SUPPORT
    | InitFlag.SETXATTR_EXT
    | InitFlag.CREATE_SUPP_GROUP
    | InitFlag.HAS_EXPIRE_ONLY
)

_NOT_OF_LIBFUSE: Final = int(
    InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.DONT_MASK
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.CREATE_SUPP_GROUP
    | InitFlag.NO_EXPORT_SUPPORT
)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants of the session.

    ``tier`` None means the best there is. ``max_stack_depth`` is 1 or 2: how deep a stack of
    filesystems the mount becomes part of, and 2 lets an overlayfs be the backing tree.
    ``export``: lookups of ``.`` work, else there are no file handles. ``like_libfuse``: for a
    filesystem that knows nothing of the newer duties (removing set-id bits, applying the umask).
    ``cache_symlinks``: everybody may know a link's target. ``abi`` names a dialect, None for the
    best there is. ``posix_locks``, ``flock_locks``: locks of that kind come as requests, else the
    kernel keeps them by itself, for the mount alone.
    """

    tier: Tier | None = None
    abi: str | None = None
    acl: bool = False
    writeback_cache: bool = False
    max_stack_depth: int = 1
    export: bool = True
    like_libfuse: bool = False
    cache_symlinks: bool = True
    posix_locks: bool = False
    flock_locks: bool = False


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What kernel and daemon have agreed on; ``reply`` is the payload of the INIT reply."""

    minor: int
    flags: int
    dialect: Dialect
    max_write: int
    max_stack_depth: int
    reply: bytes

    @property
    def tier(self) -> Tier:
        """What of the bypass the session has."""
        return self.dialect.tier

    def has(self, flag: InitFlag) -> bool:
        """Whether *flag* was offered and taken."""
        return bool(self.flags & flag)


def negotiate(
    offer: Init, wishes: Wishes, *, privileged: bool, proof: Abilities | None = None
) -> Terms:
    """Answer the kernel's INIT request.

    *privileged* says whether the daemon has CAP_SYS_ADMIN in the initial user namespace, without
    which the kernel takes no backing files; *proof* is what a probe has found out about it. Raises
    `UsageError` for a kernel that is too old, or for a tier or dialect that it lacks.
    """
    if offer.major != uapi.KERNEL_VERSION or offer.minor < uapi.LOWEST_MINOR:
        raise UsageError(
            f"the kernel speaks FUSE {offer.major}.{offer.minor}, inopt needs "
            f"{uapi.KERNEL_VERSION}.{uapi.LOWEST_MINOR} or later: use Linux 5.10 or later"
        )
    check_wishes(wishes)
    dialect = choose_dialect(
        offer.flags, wishes.tier, privileged=privileged, abi=wishes.abi, proof=proof
    )
    return terms_in(dialect, offer, wishes)


def terms_in(dialect: Dialect, offer: Init, wishes: Wishes) -> Terms:
    """The terms of a session in *dialect*, which the kernel is known to speak."""
    asked = _ALWAYS | dialect.init_flags
    if wishes.acl:
        asked |= InitFlag.POSIX_ACL
    asked |= InitFlag.EXPORT_SUPPORT if wishes.export else InitFlag.NO_EXPORT_SUPPORT
    if wishes.like_libfuse:
        asked &= ~_NOT_OF_LIBFUSE
    if wishes.posix_locks:
        asked |= InitFlag.POSIX_LOCKS
    if wishes.flock_locks:
        asked |= InitFlag.FLOCK_LOCKS
    if not wishes.cache_symlinks:
        asked &= ~InitFlag.CACHE_SYMLINKS
    if wishes.writeback_cache and dialect.tier is Tier.NONE:
        asked |= InitFlag.WRITEBACK_CACHE
    flags = offer.flags & asked & ~dialect.unwanted_flags
    if flags >> 32:
        # Without it the kernel does not look at the upper half.
        flags |= InitFlag.INIT_EXT
    max_write = MAX_WRITE if flags & InitFlag.MAX_PAGES else 32 * _PAGE
    depth = wishes.max_stack_depth if dialect.tier >= Tier.RW else 0
    minor = min(offer.minor, uapi.HIGHEST_MINOR)
    reply = replies.init(
        major=uapi.KERNEL_VERSION,
        minor=minor,
        max_readahead=offer.max_readahead,
        flags=flags,
        max_background=_MAX_BACKGROUND,
        congestion_threshold=_MAX_BACKGROUND * 3 // 4,
        max_write=max_write,
        time_granularity=1,
        max_pages=max_write // _PAGE,
        map_alignment=0,
        max_stack_depth=depth,
        request_timeout=0,
    )
    return Terms(
        minor=minor,
        flags=flags,
        dialect=dialect,
        max_write=max_write,
        max_stack_depth=depth,
        reply=reply,
    )


def check_wishes(wishes: Wishes) -> None:
    """Raise `UsageError` for wishes that exclude each other on any kernel."""
    if wishes.writeback_cache and wishes.tier is not Tier.NONE:
        raise UsageError(
            "option writeback_cache: the kernel switches read/write bypass off, without a word, "
            "when it caches writes: use it with --tier none, or leave it out"
        )
    if wishes.abi is not None and wishes.abi not in BY_NAME:
        raise UsageError(f"abi '{wishes.abi}': not a dialect: known are {', '.join(BY_NAME)}")
    if wishes.max_stack_depth not in (1, 2):
        raise UsageError(
            f"option max_stack_depth={wishes.max_stack_depth}: the kernel takes 1 or 2 only"
        )
