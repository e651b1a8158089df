"""From what a handler's method returns to the payload of the reply, with its mistakes named."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pyfuse3

from inopt.backing.attached import attached_to
from inopt.backing.inodes import Inode
from inopt.handlers.directory import ReaddirToken
from inopt.handlers.failures import fail
from inopt.handlers.serve import Context
from inopt.handlers.serve.attributes import statfs_reply
from inopt.handlers.serve.context import require_room
from inopt.handlers.types import (
    AnsweredAttributes,
    EntryAttributes,
    Lock,
    StatvfsData,
    attributes_of,
    open_flags_of,
    validity_of,
    with_birth,
)
from inopt.ops import Op, op_name
from inopt.wire import replies
from inopt.wire.attributes import Attributes
from inopt.wire.bodies import Header

Kind = TypeVar("Kind")


class MisuseError(TypeError):
    """A handler's method has answered with something that is no answer."""


def expect(header: Header, kind: type[Kind], result: object) -> Kind:
    """*result*, which must be of *kind*. Raises `MisuseError`, which names what came instead."""
    if isinstance(result, kind):
        return result
    raise MisuseError(
        f"the handler of {op_name(header.opcode)} returned {type(result).__name__} "
        f"({result!r:.60}): expected {kind.__name__}"
    )


class Answers:
    """The payloads of replies; *context* is the mount's.

    `inopt.handlers.adapt` refers to the public methods by function, so a subclass can change
    the private ones alone.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def _inode(self, header: Header, attr: EntryAttributes) -> Inode:
        inode = self.context.tree.table.get_or_none(attr.st_ino)
        if inode is None:
            raise MisuseError(
                f"the handler of {op_name(header.opcode)} returned attributes with st_ino "
                f"{attr.st_ino}, which no lookup has found: take them from super()"
            )
        return inode

    def _entry(self, header: Header, attr: EntryAttributes) -> bytes:
        """An entry for the kernel, which counts a lookup of it: the last thing that can fail."""
        table = self.context.tree.table
        inode: Inode | None
        if type(attr) is AnsweredAttributes and not attr.nodeid:
            inode = table.get_or_none(int.from_bytes(attr.payload[:8], "little"))
            if inode is not None and table.pass_on(inode):
                return attr.payload
        inode = self._inode(header, attr)
        attached = attached_to(inode)
        entry = self.context.dialect.entry(
            inode.nodeid, inode.generation, attributes_of(attr), validity_of(attr), inode.number,
            attached.backing_id if attached is not None else 0,
        )  # fmt: skip
        if not table.pass_on(inode):
            fail(errno.ESTALE)
        return entry

    def prepare(self, header: Header, token: ReaddirToken) -> None:
        """Let a token make entries of what a handler gives to `readdir_reply`."""
        token.entry = partial(self._entry, header)
        token.number = self._number

    def _number(self, nodeid: int) -> int:
        inode = self.context.tree.table.get_or_none(nodeid)
        return nodeid if inode is None else inode.number

    def entry(self, header: Header, _body: Any, result: object) -> bytes:
        """LOOKUP, MKNOD, MKDIR, SYMLINK, LINK."""
        attr = expect(header, EntryAttributes, result)
        if _is_positive(attr):
            return self._entry(header, attr)
        if header.opcode != Op.LOOKUP:
            raise MisuseError(f"the handler of {op_name(header.opcode)} returned st_ino 0")
        if not attr.entry_timeout:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.context.dialect.negative_entry(validity_of(attr))

    def attributes(self, header: Header, _body: Any, result: object) -> bytes:
        """GETATTR and SETATTR."""
        attr = expect(header, EntryAttributes, result)
        if type(attr) is AnsweredAttributes and attr.nodeid == header.nodeid:
            return attr.payload
        number = self._number(header.nodeid)
        return replies.attr(attributes_of(attr), validity_of(attr), number)

    def statx(self, header: Header, _body: Any, result: object) -> bytes:
        """STATX: pyfuse3's attributes have no time of birth, so it is the backing inode's."""
        attr = expect(header, EntryAttributes, result)
        attributes = self._with_birth(header.nodeid, attributes_of(attr))
        return replies.statx(attributes, validity_of(attr), 0, self._number(header.nodeid))

    def _with_birth(self, nodeid: int, attributes: Attributes) -> Attributes:
        tree = self.context.tree
        with tree.descriptors.use(), suppress(OSError):
            return with_birth(attributes, tree.attributes(tree.table.get(nodeid)))
        return attributes

    def opened(self, header: Header, body: Any, result: object) -> bytes:
        """OPEN."""
        return self._opened(header, body, result)

    def _opened(self, header: Header, body: Any, result: object) -> bytes:
        info = expect(header, pyfuse3.FileInfo, result)
        context = self.context
        file = context.files.get_or_none(info.fh)
        if file is None:
            raise MisuseError(
                f"the handler of {op_name(header.opcode)} returned fh {info.fh}, which no open "
                "has given: take it from super()"
            )
        wish: bool | None = getattr(info, "bypass", None)
        with context.tree.descriptors.use():
            backing_id = context.change_bypass(file, wish, header, body.flags)
        flags = file.reply_flags | open_flags_of(info)
        return context.open_reply(info.fh, flags, backing_id)

    def created(self, header: Header, body: Any, result: object) -> bytes:
        """CREATE and TMPFILE."""
        pair = expect(header, tuple, result)
        if len(pair) != 2:
            raise MisuseError(
                f"the handler of {op_name(header.opcode)} returned a tuple of {len(pair)}: "
                "expected (FileInfo, EntryAttributes)"
            )
        attr = expect(header, EntryAttributes, pair[1])
        opened = self._opened(header, body, pair[0])
        return replies.create(self._entry(header, attr), opened)

    def directory(self, header: Header, _body: Any, result: object) -> bytes:
        """OPENDIR."""
        return self.context.dialect.open(expect(header, int, result), 0, 0)

    def nothing(self, header: Header, _body: Any, result: object) -> bytes:
        """What answers with success alone."""
        expect(header, type(None), result)
        return b""

    def data(self, header: Header, _body: Any, result: object) -> bytes:
        """READ and READLINK."""
        return bytes(expect(header, bytes, result))

    def written(self, header: Header, body: Any, result: object) -> bytes:
        """WRITE."""
        size = expect(header, int, result)
        if not 0 <= size <= body.size:
            raise MisuseError(f"the handler of WRITE returned {size} for {body.size} bytes")
        return replies.write(size)

    def lock(self, header: Header, body: Any, result: object) -> bytes:
        """GETLK: a lock that is in the way, None for none."""
        if result is None:
            return replies.lock(body.start, body.end, fcntl.F_UNLCK, 0)
        found = expect(header, Lock, result)
        if found.type not in (fcntl.F_RDLCK, fcntl.F_WRLCK) or not 0 <= found.start <= found.end:
            raise MisuseError(
                f"the handler of GETLK returned {found}: expected a lock for reading or writing, "
                "or None"
            )
        return replies.lock(found.start, found.end, found.type, max(found.pid, 0))

    def polled(self, header: Header, _body: Any, result: object) -> bytes:
        """POLL."""
        ready = expect(header, int, result)
        if not 0 <= ready < 1 << 32:
            raise MisuseError(f"the handler of POLL returned {ready}: expected events")
        return replies.poll(ready)

    def offset(self, header: Header, _body: Any, result: object) -> bytes:
        """LSEEK."""
        return replies.lseek(expect(header, int, result))

    def copied(self, header: Header, _body: Any, result: object) -> bytes:
        """COPY_FILE_RANGE."""
        size = expect(header, int, result)
        if header.opcode == Op.COPY_FILE_RANGE:
            return replies.copy_file_range(size)
        return replies.copy_file_range_64(size)

    def controlled(self, header: Header, body: Any, result: object) -> bytes:
        """IOCTL."""
        return replies.ioctl(0, data=expect(header, bytes, result)[: body.output_size])

    def statfs(self, header: Header, _body: Any, result: object) -> bytes:
        """STATFS."""
        return statfs_reply(expect(header, StatvfsData, result))

    def xattr(self, header: Header, body: Any, result: object) -> bytes:
        """GETXATTR; a size of 0 asks how long the value is."""
        return _sized(expect(header, bytes, result), body.size)

    def xattrs(self, header: Header, body: Any, result: object) -> bytes:
        """LISTXATTR."""
        if isinstance(result, bytes | str):
            expect(header, list, result)
        names = expect(header, Sequence, result)  # type: ignore[type-abstract]
        return _sized(b"".join(expect(header, bytes, name) + b"\0" for name in names), body.size)

    def listing(self, header: Header, _body: Any, result: object) -> bytes:
        """READDIR and READDIRPLUS: what the token has been filled with."""
        if not isinstance(result, ReaddirToken):
            expect(header, type(None), result)
        assert isinstance(result, ReaddirToken)  # noqa: S101 - its own, where None is returned
        if not result.plus:
            for inode, count in result.added:  # the kernel counts none of them
                self.context.tree.give_back(inode, count)
        return bytes(result.page.view())


def _sized(value: bytes, size: int) -> bytes:
    if not size:
        return replies.xattr_size(len(value))
    require_room(len(value), size)
    return value


def _is_positive(attr: EntryAttributes) -> bool:
    """Whether an entry leads to an inode; looks at what the daemon answered without unpacking."""
    if type(attr) is AnsweredAttributes and not attr.nodeid:
        return any(attr.payload[:8])
    return bool(attr.st_ino)
