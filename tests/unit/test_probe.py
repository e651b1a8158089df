"""The probe, on kernels in memory: each is told by what its ioctls answer, bit by bit."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inopt.kernel.device import Device
from inopt.kernel.dialects import NO_OPS, Tier
from inopt.kernel.probe import ask
from inopt.ops import Op, OpsMask
from inopt.wire import kernel_side
from inopt.wire.bodies import Init
from inopt.wire.kernel_side import InitReply

_PASSTHROUGH: Final = 1 << 37
_BIT_43: Final = 1 << 43
_OVER_IO_URING: Final = 1 << 41
_INIT_EXT: Final = 1 << 30
_COMMON: Final = 0x3FFFFF | _INIT_EXT | 1 << 34 | 1 << 35

_BY_OPEN: Final = OpsMask.of(Op.READ, Op.WRITE)
_V2: Final = _BY_OPEN | OpsMask.of(Op.GETATTR, Op.SETATTR, Op.READDIR, Op.STATX)
_V1: Final = _V2 | OpsMask.of(Op.OPEN)


def _raise(number: int) -> int:
    raise OSError(number, os.strerror(number))


class Kernel(Device):
    """One session of a kernel in memory: it has sent INIT, and looks at the reply."""

    __slots__ = ("_end", "_kind", "_reply")

    def __init__(self, kind: Kind) -> None:
        self._end, session_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(session_end.detach())
        self._kind = kind
        self._reply: InitReply | None = None
        body = Init(7, kind.minor, 1 << 17, kind.offered)
        self._end.send(kernel_side.encode_request(Op.INIT, 2, 0, body))

    @property
    def negotiated(self) -> int:
        """The flags that count: those of the reply that have been offered."""
        if self._reply is None:
            message = self._end.recv(4096)
            reply = kernel_side.decode_reply(message)
            assert (reply.unique, reply.error) == (2, 0)
            self._reply = kernel_side.decode_init(reply.payload)
            assert self._reply.flags & ~self._kind.offered & ~_INIT_EXT == 0
            assert self._reply.max_stack_depth in (1, 2) or not self._reply.flags & _PASSTHROUGH
            self._kind.sessions.append(self._reply.flags)
        flags = self._reply.flags
        return flags if flags & _INIT_EXT else flags & 0xFFFF_FFFF

    def backing_open(self, descriptor: int, ops_mask: int = 0) -> int:
        self._kind.asked.append(ops_mask)
        return self._kind.backing_open(self.negotiated, descriptor, ops_mask)

    def backing_close(self, backing_id: int) -> None:
        assert backing_id == 1

    def passthrough_open(self, descriptor: int) -> int:
        return self._kind.passthrough_open(self.negotiated, descriptor)

    def close(self) -> None:
        self._end.close()
        super().close()


class Kind:
    """What all sessions of one kernel have in common; ``takes``: what it knows of a mask."""

    def __init__(
        self,
        offered: int,
        takes: OpsMask = NO_OPS,
        *,
        minor: int = 45,
        privileged: bool = True,
        knows_masks: bool = False,
        android: bool = False,
        stacked: bool = False,
    ) -> None:
        self.offered = offered
        self.takes = takes
        self.minor = minor
        self.privileged = privileged
        self.knows_masks = knows_masks
        self.android = android
        self.stacked = stacked
        self.sessions: list[int] = []
        self.asked: list[int] = []

    @contextmanager
    def session(self) -> Iterator[Device]:
        kernel = Kernel(self)
        try:
            yield kernel
        finally:
            kernel.close()

    def backing_open(self, negotiated: int, descriptor: int, ops_mask: int) -> int:
        if self.android or not self.offered & _PASSTHROUGH:
            return _raise(errno.ENOTTY)
        if not negotiated & _PASSTHROUGH or not self.privileged:
            return _raise(errno.EPERM)
        allowed = 0
        if self.knows_masks:
            allowed = int(self.takes if negotiated & _BIT_43 else self.takes & _BY_OPEN)
        if ops_mask & ~allowed:
            return _raise(errno.EINVAL)
        return self._file(descriptor)

    def passthrough_open(self, negotiated: int, descriptor: int) -> int:
        if not self.android:
            return _raise(errno.ENOTTY)
        if not negotiated & 1 << 31:
            return _raise(errno.EPERM)
        return self._file(descriptor)

    def _file(self, descriptor: int) -> int:
        if descriptor < 0:
            return _raise(errno.EBADF)
        return _raise(errno.ELOOP) if self.stacked else 1


KERNELS: Final[dict[str, tuple[Callable[[], Kind], str, OpsMask, int]]] = {
    "before 6.9": (lambda: Kind(_COMMON), "none", OpsMask(), errno.ENOTTY),
    "mainline": (lambda: Kind(_COMMON | _PASSTHROUGH), "mainline", OpsMask(), 0),
    "ino-v1": (
        lambda: Kind(_COMMON | _PASSTHROUGH | _BIT_43, _V1, minor=46, knows_masks=True),
        "ino-v1", _V1, 0,
    ),
    "ino-v2": (
        lambda: Kind(_COMMON | _PASSTHROUGH | _BIT_43, _V2, minor=46, knows_masks=True),
        "ino-v2", _V2, 0,
    ),
    # Offered with io_uring, a name for buffers: every mask is padding that is not zero.
    "Linux 7.3": (
        lambda: Kind(_COMMON | _PASSTHROUGH | _OVER_IO_URING | _BIT_43, minor=46),
        "mainline", OpsMask(), 0,
    ),
    # Masks of what bypasses by open replies anyway are no inode tier.
    "no more than read and write": (
        lambda: Kind(_COMMON | _PASSTHROUGH | _BIT_43, _BY_OPEN, knows_masks=True),
        "mainline", OpsMask(), 0,
    ),
    "unprivileged": (
        lambda: Kind(_COMMON | _PASSTHROUGH, privileged=False), "none", OpsMask(), errno.EPERM,
    ),
    "unprivileged ino-v2": (
        lambda: Kind(
            _COMMON | _PASSTHROUGH | _BIT_43, _V2, privileged=False, knows_masks=True
        ),
        "none", OpsMask(), errno.EPERM,
    ),
    "android": (
        lambda: Kind(_COMMON & ~_INIT_EXT & 0xFFFF_FFFF | 1 << 31, minor=34, android=True),
        "android", OpsMask(), 0,
    ),
    "something else by flag 31": (
        lambda: Kind(_COMMON | 1 << 31), "none", OpsMask(), errno.ENOTTY,
    ),
    "mainline with flag 31": (
        lambda: Kind(_COMMON | _PASSTHROUGH | 1 << 31), "mainline", OpsMask(), 0,
    ),
    "the posting of 2020, or submounts": (
        lambda: Kind(_COMMON | 1 << 27), "none", OpsMask(), errno.ENOTTY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str) -> None:
    make, dialect, accepts, error = KERNELS[name]
    kind = make()
    found = ask(kind.session)
    assert (found.dialect, found.accepts, found.bypass_error) == (dialect, accepts, error)
    assert (found.major, found.minor, found.flags) == (7, kind.minor, kind.offered)
    assert found.can_bypass == (error == 0)
    tiers = {"none": Tier.NONE, "ino-v1": Tier.INODE, "ino-v2": Tier.INODE}
    assert found.tier is tiers.get(dialect, Tier.RW)
    assert found.lacks_privilege == (error == errno.EPERM)
    assert len(kind.sessions) == len(set(kind.sessions)) <= 2
    assert all(mask.bit_count() <= 1 for mask in kind.asked), "one opcode at a time"


def test_flag_43_is_not_enough() -> None:
    """In Linux 7.3 it was asked for, refused bit by bit, and is left out of what follows."""
    kind = KERNELS["Linux 7.3"][0]()
    assert ask(kind.session).dialect == "mainline"
    first, second = kind.sessions
    assert first & _BIT_43
    assert not first & _OVER_IO_URING
    assert not second & _BIT_43
    assert sorted(kind.asked)[-64:] == [1 << bit for bit in range(64)]


@given(st.integers(0, 2**64 - 1))
def test_what_is_accepted_is_data(bits: int) -> None:
    takes = OpsMask(bits)
    kind = Kind(_COMMON | _PASSTHROUGH | _BIT_43, takes, knows_masks=True)
    found = ask(kind.session)
    if Op.OPEN in takes:
        assert (found.dialect, found.accepts) == ("ino-v1", takes)
    elif takes - _BY_OPEN:
        assert (found.dialect, found.accepts) == ("ino-v2", takes)
    else:
        assert (found.dialect, found.accepts) == ("mainline", OpsMask())


def test_a_file() -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for name in ("mainline", "ino-v2", "android"):
            make, dialect, accepts, _ = KERNELS[name]
            kind = make()
            found = ask(kind.session, null)
            assert (found.dialect, found.accepts, found.bypass_error) == (dialect, accepts, 0)
            kind = make()
            kind.stacked = True
            assert ask(kind.session, null, 2).bypass_error == errno.ELOOP
    finally:
        os.close(null)


def test_sessions_are_closed_whatever_happens() -> None:
    before = len(os.listdir("/proc/self/fd"))

    class Broken(Kind):
        def backing_open(self, negotiated: int, descriptor: int, ops_mask: int) -> int:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        ask(Broken(_COMMON | _PASSTHROUGH).session)
    assert len(os.listdir("/proc/self/fd")) == before
