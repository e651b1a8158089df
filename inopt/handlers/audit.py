"""Handlers that do what the daemon does, and log who asked for it, with what result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final

import structlog

from inopt.handlers.base import Handlers
from inopt.handlers.calling import current
from inopt.handlers.reach import RequestInfo
from inopt.ops import Op
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("inopt.audit")

_ACCESS: Final = {os.O_RDONLY: "read", os.O_WRONLY: "write", os.O_RDWR: "read, write"}
_CHANGES: Final = {
    "mode": uapi.FATTR_MODE,
    "owner": uapi.FATTR_UID | uapi.FATTR_GID,
    "size": uapi.FATTR_SIZE,
    "times": uapi.FATTR_ATIME | uapi.FATTR_MTIME,
}


def _audited(operation: str) -> Callable[..., Any]:
    """A method that serves *operation* as the daemon does, and leaves a record."""

    def serve(self: AuditHandlers, *arguments: Any) -> Any:
        fields = self._fields()
        result: int | str = "EIO"  # what the kernel is told of any other exception
        try:
            answer = getattr(self.daemon, operation)(*arguments)
            result = 0
        except OSError as error:
            result = errno.errorcode.get(error.errno or 0, str(error.errno))
            raise
        finally:
            self.record(fields | {"result": result})
        return answer

    serve.__name__ = operation
    serve.__doc__ = f"Like the daemon's `{operation}`, with a record."
    return serve


class AuditHandlers(Handlers):
    """One log record for each operation that a policy hands to it.

    A record has ``opcode``, ``path`` (of the name or the inode, as it is before the operation,
    relative to the source), ``uid``, ``gid``, ``pid`` and ``result`` (0, or the errno's name).
    RENAME, LINK and COPY_FILE_RANGE also have ``new_path``: where it goes; operations on extended
    attributes, ``attribute``; OPEN, ``access``; SETATTR, ``changes``; SYMLINK, ``target``; all,
    ``comm`` and ``cgroup`` of the caller. What the kernel writes back from shared mappings is
    nobody's in particular: then the ids are null. What the policy denies does not come here.

    A subclass may put the records elsewhere, by `record`, and say more of the caller, by `who`.
    """

    for_any_policy = True

    lookup = _audited("lookup")
    mknod = _audited("mknod")
    mkdir = _audited("mkdir")
    symlink = _audited("symlink")
    link = _audited("link")
    unlink = _audited("unlink")
    rmdir = _audited("rmdir")
    rename = _audited("rename")
    create = _audited("create")
    tmpfile = _audited("tmpfile")
    open = _audited("open")
    read = _audited("read")
    write = _audited("write")
    flush = _audited("flush")
    release = _audited("release")
    fsync = _audited("fsync")
    lseek = _audited("lseek")
    fallocate = _audited("fallocate")
    copy_file_range = _audited("copy_file_range")
    ioctl = _audited("ioctl")
    getattr = _audited("getattr")
    setattr = _audited("setattr")
    readlink = _audited("readlink")
    statfs = _audited("statfs")
    opendir = _audited("opendir")
    readdir = _audited("readdir")
    releasedir = _audited("releasedir")
    fsyncdir = _audited("fsyncdir")
    getxattr = _audited("getxattr")
    listxattr = _audited("listxattr")
    setxattr = _audited("setxattr")
    removexattr = _audited("removexattr")

    def record(self, fields: dict[str, Any]) -> None:
        """Keep one record; by default, in the daemon's log."""
        _log.info("audit", **fields)

    def who(self, request: RequestInfo) -> dict[str, Any]:
        """What a record says of the caller."""
        written_back = request.opcode == Op.WRITE and request.page_cache
        names = ("uid", "gid", "pid")
        if written_back:
            return dict.fromkeys((*names, "comm", "cgroup"))
        caller = self.session.caller(request)
        ids = {name: getattr(request, name) for name in names}
        return ids | {"comm": caller.comm, "cgroup": caller.cgroup}

    def _fields(self) -> dict[str, Any]:
        request, info = current.get(), self.session.request()
        if request is None or info is None:
            return {}
        return (
            {"opcode": info.opcode.name}
            | self._paths(request.header, request.body)
            | self.who(info)
        )

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
            case bodies.Setattr():
                changes = [name for name, bits in _CHANGES.items() if body.valid & bits]
                return {"path": self._path(header.nodeid), "changes": changes}
            case bodies.Symlink():
                path = self._path(header.nodeid, body.name)
                return {"path": path, "target": os.fsdecode(body.target)}
            case bodies.Open():
                access = _ACCESS.get(body.flags & os.O_ACCMODE, "")
                return {"path": self._path(header.nodeid), "access": access}
        name = None if header.opcode == Op.TMPFILE else getattr(body, "name", None)
        return {"path": self._path(header.nodeid, name)}

    def _path(self, nodeid: int, name: object = None) -> str:
        """Where the inode is now, for people to read: nothing is decided by it."""
        tree = self.daemon.context.tree
        try:
            inode = tree.table.get(nodeid)
            inside = b"/" + b"/".join(tree.location(inode))
        except OSError:
            return f"nodeid {nodeid}"
        if isinstance(name, bytes) and inode.is_directory:
            inside = os.path.join(inside, name)
        return os.fsdecode(inside)
