"""How handlers call the daemon: a request made of arguments, served, and its reply told as a value.

What a call looks up or opens for a request is noted, and taken back if the request fails.
"""

from __future__ import annotations

import errno
import os
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Final, NamedTuple

import pyfuse3

from inopt.backing.caller import groups_of
from inopt.handlers.failures import fail
from inopt.handlers.serve import GIVES, LOOKS_UP, Context, Serve, operations, undo
from inopt.handlers.types import (
    AnsweredAttributes,
    EntryAttributes,
    FileInfo,
    RequestContext,
    entry_of,
)
from inopt.ops import Op
from inopt.wire import bodies, kernel_replies, uapi
from inopt.wire.bodies import NO_EXTENSIONS, Header


class Request(NamedTuple):
    """The request that is being served here: by this thread, or by this task.

    ``thread`` is the reader that serves it, whose descriptors are protected; 0 for a task.
    ``made``: payloads of what was looked up or opened for it, taken back if it fails.
    """

    header: Header
    body: Any
    thread: int
    made: list[bytes]

    def take_back(self, context: Context) -> None:
        """The request fails: what was looked up or opened for it, the kernel is not told of."""
        for payload in self.made:
            undo(context, self.header.opcode, payload, lent=True)


current: Final[ContextVar[Request | None]] = ContextVar("inopt_request", default=None)
_NOBODY: Final = RequestContext(os.geteuid(), os.getegid(), 0)


class Calls:
    """Calls of the daemon's operations on one mount."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._table: list[Serve | None] = operations(context)

    def _call(
        self, opcode: Op, nodeid: int, body: Any, ctx: pyfuse3.RequestContext | None = None
    ) -> bytes:
        request = current.get()
        if ctx is None:
            ctx = caller(request)
        header = Header(0, opcode, 0, nodeid, ctx.uid, ctx.gid, ctx.pid, 0)
        serve = self.function(header, body)
        if request is not None and request.thread == get_ident():
            # The reader that serves the request protects what the call uses.
            payload = serve(header, body) or b""
        else:
            with self.context.tree.descriptors.use():
                payload = serve(header, body) or b""
        if opcode in GIVES:
            if opcode in LOOKS_UP:
                self.context.tree.table.lend((nodeid_in(payload),))
            if request is not None and opcode == request.header.opcode:
                request.made.append(payload)
        return payload

    def function(self, header: Header, _body: Any) -> Serve:
        """What serves an opcode. Raises `OSError` ``ENOSYS``."""
        serve = self._table[header.opcode]
        if serve is None:
            fail(errno.ENOSYS)
        return serve

    def _entry(self, payload: bytes) -> EntryAttributes:
        return self._attributes_in(payload, 0)

    def _attributes(self, nodeid: int, payload: bytes) -> EntryAttributes:
        return self._attributes_in(payload, nodeid)

    def _attributes_in(self, payload: bytes, nodeid: int) -> EntryAttributes:
        """The attributes in a reply: those of *nodeid*, or an entry if that is 0."""
        return AnsweredAttributes(payload, nodeid, self._unpack)

    def _unpack(self, payload: bytes, nodeid: int) -> EntryAttributes:
        """Like `_attributes_in`, with every field filled in."""
        if nodeid:
            answered = kernel_replies.decode_attr(payload)
            generation = self.context.tree.table.get(nodeid).generation
            return entry_of(answered.attributes, answered.validity, nodeid, generation)
        reply = kernel_replies.decode_any_entry(payload)
        return entry_of(reply.attributes, reply.validity, reply.nodeid, reply.generation)

    def _info(self, payload: bytes) -> FileInfo:
        reply = kernel_replies.decode_open(payload)
        return FileInfo(
            reply.handle,
            direct_io=bool(reply.open_flags & uapi.FOPEN_DIRECT_IO),
            keep_cache=bool(reply.open_flags & uapi.FOPEN_KEEP_CACHE),
        )

    def _nodeid_of(self, handle: int) -> int:
        return self.context.files.get(handle).inode.nodeid


def nodeid_in(payload: bytes) -> int:
    """The nodeid in an entry reply; 0 for a name that does not exist."""
    return int.from_bytes(payload[:8], "little")


def caller(request: Request | None) -> pyfuse3.RequestContext:
    """For whom a handler acts that names nobody: who has sent the request, or else the daemon."""
    if request is None:
        return _NOBODY
    header = request.header
    return RequestContext(header.uid, header.gid, header.pid)


def extensions(ctx: pyfuse3.RequestContext) -> bodies.Extensions:
    """The groups that decide about set-group-id bits of what *ctx* makes."""
    request = current.get()
    if request is not None and request.header.uid == ctx.uid:
        extensions: bodies.Extensions = getattr(request.body, "extensions", NO_EXTENSIONS)
        return extensions
    return bodies.Extensions(groups=groups_of(ctx.pid)) if ctx.uid else NO_EXTENSIONS


def umask(ctx: pyfuse3.RequestContext) -> int:
    """The file mode creation mask of a caller; 0 where it is not told."""
    return getattr(ctx, "umask", 0)
