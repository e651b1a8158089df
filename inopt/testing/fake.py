"""A session whose kernel is in memory: everything is real but the device."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

import msgspec
import pyfuse3
import trio

from inopt.backing.tree import Tree
from inopt.exceptions import UsageError
from inopt.kernel.abilities import Abilities
from inopt.kernel.device import Device
from inopt.kernel.dialects import BY_NAME, PLAIN, Mainline
from inopt.ops import OpsMask
from inopt.session.embedding import settings_for
from inopt.session.mounting import begin, wishes_for
from inopt.session.policing import Prepared, is_stock, prepare, require_case
from inopt.session.session import Session
from inopt.session.settings import NO_SOURCE, Settings
from inopt.testing.calls import FakeKernel
from inopt.testing.capture import Recorder
from inopt.testing.wire import Wire
from inopt.wire.uapi import InitFlag

# All that a kernel of today offers, except for large packets, and the bypass.
OFFER: Final = int(
    InitFlag.ASYNC_READ
    | InitFlag.POSIX_LOCKS
    | InitFlag.FLOCK_LOCKS
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.EXPORT_SUPPORT
    | InitFlag.BIG_WRITES
    | InitFlag.DONT_MASK
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.POSIX_ACL
    | InitFlag.ABORT_ERROR
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPENDIR_SUPPORT
    | InitFlag.SETXATTR_EXT
    | InitFlag.INIT_EXT
    | InitFlag.CREATE_SUPP_GROUP
    | InitFlag.HAS_EXPIRE_ONLY
)
_NOWHERE: Final = "/nowhere (fake)"
_BUDGET: Final = 256
_GRACE: Final = 10.0


class _FakeDevice(Device):
    """The session's end, which takes backing files and tells nobody."""

    __slots__ = ("_accepts", "_numbers", "backing_ids", "masks")

    def __init__(self, descriptor: int, accepts: OpsMask) -> None:
        super().__init__(descriptor)
        self.backing_ids: dict[int, int] = {}
        self.masks: dict[int, OpsMask] = {}
        self._accepts = accepts
        self._numbers = itertools.count(1)

    def backing_open(self, descriptor: int, ops_mask: int = 0) -> int:
        if ops_mask & ~int(self._accepts):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        number = self.passthrough_open(descriptor)
        self.masks[number] = OpsMask(ops_mask)
        return number

    def backing_close(self, backing_id: int) -> None:
        del self.backing_ids[backing_id]
        del self.masks[backing_id]

    def passthrough_open(self, descriptor: int) -> int:
        inode = os.fstat(descriptor).st_ino
        number = next(self._numbers)
        self.backing_ids[number] = inode
        return number


@asynccontextmanager
async def fake_mount(
    handlers: pyfuse3.Operations | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    policy: str | os.PathLike[str] | None = None,
    bypass: bool | str = False,
    accepts: Iterable[int] = (),
    offer: int = OFFER,
    **more: Any,
) -> AsyncIterator[FakeKernel]:
    """Serve *handlers* over *source* to a kernel in memory, while the body runs.

    *handlers*, *source*, *policy* and *more* are as for `inopt.mount`. *bypass*: the kernel
    registers backing files as mainline does, or as the dialect that is named (*abi* has to name
    rfc-v7 as well); what it then serves by itself it does not make up. *accepts*: opcodes that it
    takes in an ops_mask, where the dialect has such. *offer*: what it offers beside (`InitFlag`).
    Without root, files are made as who runs the test, whoever asks. Raises `UsageError` for what a
    mount would not be made for.
    """
    settings = settings_for(handlers, source, _NOWHERE, policy=policy, **more)
    prepared = prepare(settings.policy, settings)
    with ExitStack() as stack:
        path = _source_of(settings, prepared, stack)
        settings = msgspec.structs.replace(settings, source=path)
        wire = Wire()
        kind = None if not bypass else Mainline if bypass is True else BY_NAME[bypass]
        device = _FakeDevice(wire.session_end, OpsMask.of(*accepts))
        tree: Tree | None = None
        try:
            tree = Tree(path, settings.fd_budget or _BUDGET)
            require_case(prepared, tree, path)
            offer |= kind.init_flags if kind is not None else 0
            wire.offer(offer)
            wishes = wishes_for(settings, path, prepared)
            proof = Abilities(
                7, wire.minor, offer, 0, kind.name if kind else PLAIN.name, OpsMask.of(*accepts)
            )
            session = begin(
                settings, _NOWHERE, device, tree, wishes, prepared,
                privileged=kind is not None, proof=proof,
            )  # fmt: skip
        except BaseException:
            if tree is not None:
                tree.close()
            device.close()
            wire.close()
            raise
        wire.minor = session.terms.minor
        wire.setxattr_ext = session.terms.has(InitFlag.SETXATTR_EXT)
        recorder = Recorder()
        async with _served(session, wire):
            session.observe(recorder)
            yield FakeKernel(wire, session, recorder.requests, device.backing_ids, device.masks)


@asynccontextmanager
async def _served(session: Session, wire: Wire) -> AsyncIterator[None]:
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.receive)
            await session.start(nursery)
            try:
                yield
            except Exception as error:
                failure = error  # raised as it is, not in the nursery's group
            finally:
                with trio.CancelScope(shield=True):
                    wire.end()
                    with trio.move_on_after(_GRACE):
                        await session.wait_ended()
                    nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            wire.end()
            await session.stop()
            await trio.to_thread.run_sync(session.close)
            wire.close()
    if failure is not None:
        raise failure


def _source_of(settings: Settings, prepared: Prepared, stack: ExitStack) -> str:
    if settings.source != NO_SOURCE:
        if is_stock(prepared):
            raise UsageError("source: a filesystem written for pyfuse3 has no backing tree")
        return os.path.realpath(settings.source)
    return stack.enter_context(tempfile.TemporaryDirectory(prefix="inopt-"))
