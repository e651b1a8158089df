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

from inopt.backing.caller import RegisteringIdentity
from inopt.backing.inodes import Inode

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class _Io:
    """The opens of one inode: how many, and the backing id of all of them (0: no bypass)."""

    __slots__ = ("backing_id", "opens")

    def __init__(self, backing_id: int) -> None:
        self.backing_id = backing_id
        self.opens = 1


class Attachments:
    """Backing ids by inode, from first open to last release. Thread-safe.

    *register* takes an inode and a descriptor of it, and returns a backing id or raises
    `OSError`; *release* takes the id. Both are None where the session has no bypass.
    """

    __slots__ = ("_identity", "_lock", "_register", "_release", "_told", "registered")

    def __init__(
        self,
        register: Callable[[Inode, int], int] | None = None,
        release: Callable[[int], None] | None = None,
    ) -> None:
        self._register = register
        self._release = release
        self._lock = Lock()
        self._identity = RegisteringIdentity()
        self._told: set[int] = set()
        self.registered = 0

    def opened(
        self, inode: Inode, descriptor: int, *, writes: bool, bypasses: bool, joins: bool
    ) -> int:
        """Count an open of *inode*; returns its backing id, or 0 if the daemon serves it.

        *descriptor* is any descriptor of the backing file; *writes* says whether this open may
        write; *bypasses*, whether the policy lets the inode bypass; *joins*, whether it lets this
        open bypass if others do. Only the first open decides.

        Raises `OSError` ``EBUSY`` if this one must not bypass and earlier ones, from before the
        policy said so, still do.
        """
        with self._lock:
            state = inode.io
            if isinstance(state, _Io):
                if state.backing_id and not (bypasses or joins):
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                state.opens += 1
                return state.backing_id
            backing_id = 0
            if self._register is not None and bypasses:
                backing_id = self._try_register(inode, descriptor, writes=writes)
            inode.io = _Io(backing_id)
            return backing_id

    def released(self, inode: Inode) -> None:
        """Count a release; the last one gives the backing id back."""
        with self._lock:
            state = inode.io
            if not isinstance(state, _Io):
                return
            state.opens -= 1
            if state.opens:
                return
            inode.io = None
            if state.backing_id and self._release is not None:
                self.registered -= 1
                self._release(state.backing_id)

    def _try_register(self, inode: Inode, descriptor: int, *, writes: bool) -> int:
        register = self._register
        assert register is not None  # noqa: S101 - the caller has looked
        try:
            status = os.fstat(descriptor)
            if writes and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                # Who writes decides whether set-id bits stay; bypassed writes do not tell who.
                return 0
            backing_id: int = self._identity.run(status.st_uid, lambda: register(inode, descriptor))
        except OSError as error:
            # One line for each reason: a whole stacked filesystem would fail alike.
            number = error.errno or 0
            level = _log.debug if number in self._told else _log.warning
            self._told.add(number)
            level(
                "not bypassed: the kernel refused the backing file",
                inode=inode.number,
                error=os.strerror(number),
                served_by="daemon",
            )
            return 0
        self.registered += 1
        return backing_id
