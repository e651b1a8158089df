"""Handlers that do what the daemon does, and log who did it, with what result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from inopt.handlers.serve import Context, Serve
from inopt.ops import OPCODE_LIMIT, Op, op_name
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("inopt.audit")


class AuditHandlers:
    """One log record for each operation that a policy hands to it.

    A record has ``opcode``, ``path`` (of the name or the inode, as it is at that moment, relative
    to the source), ``uid``, ``gid``, ``pid`` and ``result`` (0, or the errno's name).
    """

    opcodes = frozenset(Op) - {Op.INIT, Op.DESTROY, Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT}

    def __init__(self, context: Context, served: Sequence[Serve | None]) -> None:
        self._tree = context.tree
        self._served = served

    def table(self) -> list[Serve | None]:
        """The functions by opcode."""
        table: list[Serve | None] = [None] * OPCODE_LIMIT
        for opcode in self.opcodes:
            serve = self._served[opcode]
            if serve is not None:
                table[opcode] = partial(self._audited, serve)
        return table

    def _audited(self, serve: Serve, header: Header, body: Any) -> bytes | None:
        path = self._path(header.nodeid, getattr(body, "name", None))
        error: OSError | None = None
        try:
            return serve(header, body)
        except OSError as caught:
            error = caught
            raise
        finally:
            _log.info(
                "audit",
                opcode=op_name(header.opcode),
                path=path,
                uid=header.uid,
                gid=header.gid,
                pid=header.pid,
                result=0 if error is None else _name_of(error),
            )

    def _path(self, nodeid: int, name: object) -> str:
        """Where the inode is now, for people to read: nothing is decided by it."""
        tree = self._tree
        try:
            inode = tree.table.get(nodeid)
            path = os.readlink(tree.path(inode))
            root = os.readlink(tree.path(tree.root))
        except OSError:
            return f"nodeid {nodeid}"
        inside = path[len(root) :] or b"/"
        if isinstance(name, bytes) and inode.is_directory:
            inside = os.path.join(inside, name)
        return os.fsdecode(inside)


def _name_of(error: OSError) -> str:
    return os.strerror(error.errno or 0)
