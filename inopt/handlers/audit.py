"""Handlers that do what the daemon does, and log who did it, with what result."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from inopt.handlers.serve import Context, Serve
from inopt.ops import OPCODE_LIMIT, Op, op_name
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("inopt.audit")


class AuditHandlers:
    """One log record for each operation that a policy hands to it.

    A record has ``opcode``, ``path`` (of the name or the inode, as it is before the operation,
    relative to the source), ``uid``, ``gid``, ``pid`` and ``result`` (0, or the errno's name).
    RENAME, LINK and COPY_FILE_RANGE also have ``new_path``: where it goes; operations on extended
    attributes, ``attribute``. What the kernel writes back from shared mappings is nobody's in
    particular: then the ids are null. What the policy denies does not come here.
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
        fields = self._paths(header, body)
        written_back = isinstance(body, bodies.Write) and body.write_flags & uapi.WRITE_CACHE
        for name in ("uid", "gid", "pid"):
            fields[name] = None if written_back else getattr(header, name)
        result: int | str = "EIO"  # what the kernel is told of any other exception
        try:
            payload = serve(header, body)
            result = 0
        except OSError as error:
            result = errno.errorcode.get(error.errno or 0, str(error.errno))
            raise
        finally:
            _log.info("audit", opcode=op_name(header.opcode), **fields, result=result)
        return payload

    def _paths(self, header: Header, body: Any) -> dict[str, Any]:
        match body:
            case bodies.Rename():
                new = self._path(body.new_directory, body.new_name)
                return {"path": self._path(header.nodeid, body.name), "new_path": new}
            case bodies.Link():
                new = self._path(header.nodeid, body.name)
                return {"path": self._path(body.old_nodeid), "new_path": new}
            case bodies.CopyFileRange():
                new = self._path(body.nodeid_out)
                return {"path": self._path(header.nodeid), "new_path": new}
            case bodies.Setxattr() | bodies.Getxattr() | bodies.Removexattr():
                return {"path": self._path(header.nodeid), "attribute": os.fsdecode(body.name)}
        name = None if header.opcode == Op.TMPFILE else getattr(body, "name", None)
        return {"path": self._path(header.nodeid, name)}

    def _path(self, nodeid: int, name: object = None) -> str:
        """Where the inode is now, for people to read: nothing is decided by it."""
        tree = self._tree
        try:
            inode = tree.table.get(nodeid)
            path = os.readlink(tree.path(inode))
            root = os.readlink(tree.path(tree.root))
        except OSError:
            return f"nodeid {nodeid}"
        inside = path[len(root.rstrip(b"/")) :] or b"/"
        if isinstance(name, bytes) and inode.is_directory:
            inside = os.path.join(inside, name)
        return os.fsdecode(inside)
