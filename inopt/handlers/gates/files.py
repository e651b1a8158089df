"""The gates of open files: what may be read and written is decided when a file is opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

import trio

from inopt.handlers.failures import fail
from inopt.handlers.gates.deciding import Deciding, Gate, Substitute, opening
from inopt.handlers.running import is_async, with_guard
from inopt.handlers.serve import Context, Serve
from inopt.handlers.tasks import Guard
from inopt.ops import Op
from inopt.policy.plan import Plan
from inopt.policy.words import Part
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header

# fallocate(2) modes that change bytes which are there: punch, collapse, zero, insert.
_REWRITING: Final = 0x02 | 0x08 | 0x10 | 0x20


class FileGates(Deciding):
    """The gates of OPEN and of what is done with an open file."""

    def __init__(
        self, context: Context, served: Sequence[Serve | None], handlers: Sequence[Serve | None]
    ) -> None:
        super().__init__(context, served, handlers)
        # What must not come between looking how long a file is and writing behind its end.
        self.appending = Lock()
        self._turns: WeakValueDictionary[int, trio.Lock] = WeakValueDictionary()

    def by_opcode(self) -> dict[int, Gate]:
        """The gates."""
        return {
            Op.OPEN: self.open_file,
            Op.WRITE: self.write,
            Op.FALLOCATE: self.fallocate,
            Op.COPY_FILE_RANGE: self.copy_file_range,
            Op.COPY_FILE_RANGE_64: self.copy_file_range,
            Op.SETLK: self.lock,
            Op.SETLKW: self.lock,
        }

    def open_file(self, header: Header, body: bodies.Open) -> Serve | None:
        """OPEN: here it is decided whether a file may be read, written or truncated."""
        plan = self.placement.plan(self.inode(header))
        return self.decide(plan, header, *opening(body.flags))

    def write(self, header: Header, _body: bodies.Write) -> Serve | None:
        """WRITE: that it may be done was decided at open; what it may overwrite is decided now."""
        plan = self.placement.plan(self.inode(header))
        handler = self.handler(Op.WRITE) if plan.is_handled(Op.WRITE) else None
        if not plan.direct_writers:
            return handler
        serve = handler or self.served[Op.WRITE]

        def guarded(header: Header, body: bodies.Write) -> bytes | None:
            assert serve is not None  # noqa: S101 - WRITE is served
            if is_async(serve):
                return self._write_in_turn(serve, plan, header, body)
            with self.appending:
                self._require_end(plan, header, body)
                return serve(header, body)

        return Substitute(guarded) if handler is None else guarded

    def _write_in_turn(
        self, serve: Serve, plan: Plan, header: Header, body: bodies.Write
    ) -> bytes | None:
        """Let a handler write that may take its time: nobody else writes to the file meanwhile."""

        def check() -> None:
            with self.tree.descriptors.use():
                self._require_end(plan, header, body)

        with self.appending:
            turn = self._turns.get(header.nodeid)
            if turn is None:
                turn = self._turns[header.nodeid] = trio.Lock()
        return with_guard(serve, Guard(turn, check))(header, body)

    def _require_end(self, plan: Plan, header: Header, body: bodies.Write) -> None:
        """Refuse to overwrite: what does not append must not begin before the end of the file."""
        if body.flags & os.O_APPEND:
            return
        if body.offset < self.tree.attributes(self.inode(header)).size:
            self.decide(plan, header, Part.OVERWRITE)

    def fallocate(self, header: Header, body: bodies.Fallocate) -> Serve | None:
        """FALLOCATE: some modes change bytes that are there."""
        plan = self.placement.plan(self.inode(header))
        handler = self.decide(plan, header, Op.FALLOCATE)
        if body.mode & _REWRITING:
            self.decide(plan, header, Part.OVERWRITE)
        return handler

    def copy_file_range(self, header: Header, body: bodies.CopyFileRange) -> Serve | None:
        """COPY_FILE_RANGE: with a handler for reading or writing, the caller reads and writes.

        What is denied is changing the target; that the source may be read was decided at open.
        """
        source = self.placement.plan(self.inode(header))
        target = self.placement.plan(self.tree.table.get(body.nodeid_out))
        handler = self.decide(target, header, header.opcode)
        if handler is None and source.is_handled(header.opcode):
            handler = self.handler(header.opcode)
        if handler is None and (source.is_handled(Op.READ) or target.is_handled(Op.WRITE)):
            fail(errno.EOPNOTSUPP)
        if target.direct_writers:
            fail(errno.EOPNOTSUPP)
        return handler

    def lock(self, header: Header, body: bodies.Lock) -> Serve | None:
        """SETLK and SETLKW: of a range of bytes, or of the whole file by flock(2)."""
        plan = self.placement.plan(self.inode(header))
        slot = Part.FLOCK if body.flags & uapi.LOCK_FLOCK else header.opcode
        return self.handler(header.opcode) if plan.is_handled(slot) else None
