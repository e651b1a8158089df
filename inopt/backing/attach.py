"""Which inodes have which backing id, and when it is dropped.

The kernel gives an inode one way of doing input and output from its first open to its last
release: all opens bypass with one backing id, or none does. Any mixture reaches an application as
a bare EIO that the daemon never hears of. Here the mixture cannot be expressed: the first open
decides, later ones are told.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from threading import Lock
from typing import Final

import structlog

from inopt.backing.attached import AttachedInodes, attached_to, reason_of
from inopt.backing.caller import RegisteringIdentity
from inopt.backing.inodes import Inode
from inopt.backing.kept import KeptIds

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class _Io:
    """The opens of one inode: how many, and the backing id of all of them (0: no bypass).

    ``wished``: they bypass because a handler wishes it, not by the policy. ``lent``: the backing id
    is the one that is attached to the inode, and is not given back with the last release.
    ``stores``: how many of them may make mappings through which the file is changed.
    """

    __slots__ = ("backing_id", "lent", "opens", "stores", "wished")

    def __init__(self, backing_id: int, *, lent: bool = False, stores: bool = False) -> None:
        self.backing_id = backing_id
        self.lent = lent
        self.opens = 1
        self.stores = int(stores)
        self.wished = False


class Attachments:
    """Backing ids by inode, from first open to last release. Thread-safe.

    *register* takes an inode and a descriptor of it, and returns a backing id or raises
    `OSError`; *release* takes the id. Both are None where the session has no bypass. *mixes*: the
    kernel lets opens of one inode bypass beside others that do not. *attached*: the inodes whose
    backing files the kernel has from their lookup on; all their opens bypass. *stays*: whether an
    inode's backing file stays as it is, so that its id may be kept for opens to come.
    """

    __slots__ = (
        "_identity",
        "_kept",
        "_lock",
        "_mixes",
        "_refused",
        "_register",
        "_release",
        "_stays",
        "_told",
        "attached",
        "registered",
    )

    def __init__(
        self,
        register: Callable[[Inode, int], int] | None = None,
        release: Callable[[int], None] | None = None,
        *,
        mixes: bool = False,
        attached: AttachedInodes | None = None,
        stays: Callable[[Inode], bool] | None = None,
    ) -> None:
        self._register = register
        self._release = release
        self._stays = stays
        self._kept = KeptIds()
        self._mixes = mixes
        self.attached = attached
        # An inode is attached, or opened, not both at a time.
        self._lock = attached.lock if attached is not None else Lock()
        self._identity = RegisteringIdentity()
        self._told: set[int] = set()
        self._refused: set[int] = set()
        self.registered = 0

    def opened(
        self,
        inode: Inode,
        descriptor: int,
        *,
        writes: bool,
        bypasses: bool,
        joins: bool,
        follows: bool = False,
        stores: bool = False,
    ) -> int:
        """Count an open of *inode*; returns its backing id, or 0 if the daemon serves it.

        *descriptor* is any descriptor of the backing file; *writes* says whether this open may
        write; *stores*, whether a mapping of it may; *bypasses*, whether the inode is to bypass;
        *joins*, whether the policy lets this open bypass if others do; *follows*, if they do
        because a handler wishes it. Only the first open decides.

        Raises `OSError` ``EBUSY`` if this one must not bypass and earlier ones, from before the
        policy said so, still do, and the kernel does not take a mixture.
        """
        with self._lock:
            state = inode.io
            attached = attached_to(inode)
            if attached is not None:
                # For good: what this policy would have otherwise was asked before it was attached.
                if isinstance(state, _Io):
                    state.opens += 1
                    state.stores += stores
                else:
                    inode.io = _Io(attached.backing_id, lent=True, stores=stores)
                return attached.backing_id
            if isinstance(state, _Io):
                may_join = bypasses or joins or (follows and state.wished)
                alike = may_join or not state.backing_id
                if not alike and not self._mixes:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                state.opens += 1
                state.stores += stores
                return state.backing_id if alike else 0
            backing_id = 0
            if self._register is not None and bypasses:
                backing_id = self._try_register(inode, descriptor, writes=writes)
            inode.io = _Io(backing_id, stores=stores)
            return backing_id

    def may_open_again(self, inode: Inode) -> bool:
        """Whether `opened_again` may find an id: asked first, as it costs nothing."""
        return inode.io is not None or self._kept.has(inode)

    def opened_again(self, inode: Inode) -> int:
        """Count an open for reading by the id that the inode has; 0, and nothing, if it has none.

        It has one while it is open, and perhaps for some time afterwards.
        """
        with self._lock:
            state = inode.io
            if isinstance(state, _Io):
                state.opens += 1 if state.backing_id else 0
                return state.backing_id
            if not self._kept.has(inode):
                return 0
            [backing_id] = self._kept.take(inode.nodeid)
            inode.io = _Io(backing_id)
            return backing_id

    def let_go(self, inode: Inode) -> None:
        """Keep no id of *inode*: it leads to another backing file now."""
        with self._lock:
            self._give_back(self._kept.take(inode.nodeid))

    def _give_back(self, backing_ids: list[int]) -> None:
        for backing_id in backing_ids:
            self.registered -= 1
            if self._release is not None:
                self._release(backing_id)

    def change(self, inode: Inode, descriptor: int, *, writes: bool, bypasses: bool) -> int:
        """Let the opens of *inode* bypass, or not, if there is only one; returns its backing id.

        That one has just been opened and its open has not been answered.
        """
        with self._lock:
            state = inode.io
            if not isinstance(state, _Io):
                return 0
            if state.lent or state.opens > 1 or bool(state.backing_id) == bypasses:
                return state.backing_id
            if bypasses and self._register is not None:
                state.backing_id = self._try_register(inode, descriptor, writes=writes)
                state.wished = bool(state.backing_id)
            elif state.backing_id:
                self._give_back([state.backing_id])
                state.backing_id = 0
            return state.backing_id

    def backing_id(self, inode: Inode) -> int:
        """The backing id of an open inode's opens, 0 if they do not bypass."""
        state = inode.io
        return state.backing_id if isinstance(state, _Io) else 0

    def may_store(self, inode: Inode) -> bool:
        """Whether the file may change at any moment without the kernel noticing: by a mapping."""
        state = inode.io
        return isinstance(state, _Io) and state.stores > 0 and state.backing_id > 0

    def released(self, inode: Inode, *, stores: bool = False) -> None:
        """Count a release of what was `opened` with this *stores*.

        The last one gives the backing id back, if it is not kept.
        """
        with self._lock:
            state = inode.io
            if not isinstance(state, _Io):
                return
            state.opens -= 1
            state.stores -= stores
            if state.opens:
                return
            inode.io = None
            if state.backing_id and not state.lent and self._release is not None:
                if self._stays is not None and self._stays(inode):
                    self._give_back(self._kept.put(inode, state.backing_id))
                else:
                    self._give_back([state.backing_id])

    def refuse(self, device: int) -> None:
        """From now on no inode of *device* (``st_dev``) bypasses: the kernel takes no such files.

        For a kernel that looks at a backing file only after it has been told to bypass.
        """
        self._refused.add(device)

    def _try_register(self, inode: Inode, descriptor: int, *, writes: bool) -> int:
        register = self._register
        assert register is not None  # noqa: S101 - the caller has looked
        try:
            status = os.fstat(descriptor)
            if writes and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                # Who writes decides whether set-id bits stay; bypassed writes do not tell who.
                return 0
            if status.st_dev in self._refused:
                return 0
            backing_id: int = self._identity.run(status.st_uid, lambda: register(inode, descriptor))
        except OSError as error:
            # One line for each reason: a whole stacked filesystem would fail alike.
            number = error.errno or 0
            level = _log.debug if number in self._told else _log.warning
            self._told.add(number)
            level(
                "not bypassed: the backing file cannot be given to the kernel",
                inode=inode.number,
                reason=reason_of(number),
                served_by="daemon",
            )
            return 0
        self.registered += 1
        return backing_id
