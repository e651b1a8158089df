"""What handlers are given and what they answer with: pyfuse3's types, and ours beside them.

`EntryAttributes`, `StatvfsData` and `FUSEError` are pyfuse3's own. Those that Python cannot fill
in (`RequestContext`, `SetattrFields`) have subclasses here whose attributes it can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

import msgspec
import pyfuse3
from pyfuse3 import EntryAttributes as EntryAttributes
from pyfuse3 import FileInfo as PlainFileInfo
from pyfuse3 import StatvfsData as StatvfsData

from inopt.backing.ranges import LAST_BYTE, Range
from inopt.wire import bodies, notifications, uapi
from inopt.wire.bodies import Header, Setattr
from inopt.wire.replies import Attributes, Validity

if TYPE_CHECKING:
    from pyfuse3 import PollHandle as PollHandle

    class FUSEError(Exception):
        """Answers the request with an errno; pyfuse3's own, which some checkers cannot read."""

        errno: int

        def __init__(self, errno: int) -> None: ...

else:
    from pyfuse3 import FUSEError as FUSEError

    PollHandle = getattr(pyfuse3, "PollHandle", object)  # pyfuse3 3.5

_SECOND: Final = 1_000_000_000
Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def plain(
    method: Callable[Parameters, Returned],
) -> Callable[Parameters, CoroutineType[Any, Any, Returned]]:
    """For type checkers, on a plain ``def`` that overrides an ``async def``; changes nothing."""
    return method  # type: ignore[return-value]  # the session takes both


class RequestContext(pyfuse3.RequestContext):
    """Who asks: ``uid``, ``gid``, ``pid`` of the calling process and its ``umask``."""

    __slots__ = ("gid", "pid", "uid", "umask")

    def __init__(self, uid: int, gid: int, pid: int, umask: int = 0) -> None:
        self.uid: int = uid
        self.gid: int = gid
        self.pid: int = pid
        self.umask: int = umask

    def __repr__(self) -> str:
        return f"RequestContext(uid={self.uid}, gid={self.gid}, pid={self.pid})"


def context_of(header: Header, umask: int = 0) -> RequestContext:
    """Who is behind a request."""
    return RequestContext(header.uid, header.gid, header.pid, umask)


class SetattrFields(pyfuse3.SetattrFields):
    """Which attributes `setattr` is to change."""

    __slots__ = (
        "update_atime", "update_ctime", "update_gid", "update_mode", "update_mtime", "update_size",
        "update_uid",
    )  # fmt: skip

    def __init__(self, *names: str) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, name in names)


class Lock(msgspec.Struct, frozen=True):
    """A lock on a range of bytes, as fcntl(2) has it.

    ``type``: ``F_RDLCK``, ``F_WRLCK``, or ``F_UNLCK`` to give it back. ``start``: the first byte.
    ``length``: in bytes, 0 for all up to the end, however long the file becomes. ``pid``: the
    process that has it, or asks for it. ``owner``: a number; locks of one owner do not exclude
    each other. It is the process's (all its locks on a file go when it closes the file), or the
    open file's, for ``F_OFD_SETLK``; 0 where it is not told.
    """

    type: int
    start: int
    length: int
    pid: int
    owner: int

    @property
    def end(self) -> int:
        """The last byte."""
        return self.start + self.length - 1 if self.length else LAST_BYTE

    def excludes(self, other: Lock) -> bool:
        """Whether two owners cannot have both: they overlap, and one is for writing."""
        mine, others = (Range(each.type, each.start, each.end) for each in (self, other))
        return self.owner != other.owner and mine.excludes(others)


def lock_of(body: bodies.Lock) -> Lock:
    """What a request for a lock says."""
    length = 0 if body.end == LAST_BYTE else body.end - body.start + 1
    return Lock(body.type, body.start, length, body.pid, body.owner)


class Waker(PollHandle):
    """By which those who poll an open file can be woken; *number* is the kernel's."""

    __slots__ = ("_number", "_tell")

    def __init__(self, number: int, tell: Callable[[bytes], None]) -> None:
        self._number = number
        self._tell = tell

    def notify(self) -> None:
        """Wake them: the kernel then asks again what is ready. By any thread, at any time."""
        self._tell(notifications.poll(self._number))


class FileInfo(PlainFileInfo):
    """pyfuse3's `FileInfo`, and whether the open is to bypass.

    ``bypass``: None leaves it to the policy. True asks for the kernel to serve reading and
    writing of this open, False for it not to. An inode's opens bypass all or none, so what is
    asked for holds if this open is the only one, and else what the others have.
    """

    bypass: bool | None

    def __new__(
        cls,
        fh: int = 0,
        direct_io: bool = False,
        keep_cache: bool = False,
        nonseekable: bool = False,
        *,
        bypass: bool | None = None,  # noqa: ARG004 - for __init__
    ) -> Self:
        """Make the part that is pyfuse3's."""
        return super().__new__(cls, fh, direct_io, keep_cache, nonseekable)  # type: ignore[call-arg]

    def __init__(
        self,
        *_args: Any,
        bypass: bool | None = None,
        **_kwargs: Any,
    ) -> None:
        super().__init__()
        self.bypass = bypass


def open_flags_of(info: PlainFileInfo) -> int:
    """The ``FOPEN_*`` flags that a `FileInfo` asks for."""
    flags = 0
    if info.direct_io:
        flags |= uapi.FOPEN_DIRECT_IO
    if info.keep_cache:
        flags |= uapi.FOPEN_KEEP_CACHE
    if info.nonseekable:
        flags |= uapi.FOPEN_NONSEEKABLE
    return flags


def entry_of(
    attributes: Attributes, validity: Validity, nodeid: int, generation: int
) -> EntryAttributes:
    """What a handler sees of an inode; ``st_ino`` is its nodeid."""
    entry = EntryAttributes()
    entry.st_ino = nodeid
    entry.generation = generation
    entry.entry_timeout = validity.entry_seconds + validity.entry_nanoseconds / _SECOND
    entry.attr_timeout = validity.attribute_seconds + validity.attribute_nanoseconds / _SECOND
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.links
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = os.makedev(attributes.rdev_major, attributes.rdev_minor)
    entry.st_size = attributes.size
    entry.st_blksize = attributes.block_size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_seconds * _SECOND + attributes.atime_nanoseconds
    entry.st_mtime_ns = attributes.mtime_seconds * _SECOND + attributes.mtime_nanoseconds
    entry.st_ctime_ns = attributes.ctime_seconds * _SECOND + attributes.ctime_nanoseconds
    return entry


class AnsweredAttributes(EntryAttributes):
    """What the daemon has answered with, which may go back to the kernel as it is.

    Handlers that pass on what ``super()`` has returned never look into it, and then unpacking it
    and packing it again would be most of the work. So that is done when somebody first does look,
    or changes something: then the object becomes an `UnpackedAttributes`.

    ``payload`` is the reply: attributes of *nodeid*, or an entry if that is 0. *unpack* makes
    attributes of both.
    """

    __slots__ = ("nodeid", "payload", "unpack")

    def __init__(
        self, payload: bytes, nodeid: int, unpack: Callable[[bytes, int], EntryAttributes]
    ) -> None:
        super().__init__()
        self.payload: bytes = payload
        self.nodeid: int = nodeid
        self.unpack: Callable[[bytes, int], EntryAttributes] = unpack

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.become_unpacked()
        return self.__reduce_ex__(protocol)

    def become_unpacked(self) -> None:
        """Fill the fields in, and go on as an ordinary object."""
        unpacked = self.unpack(self.payload, self.nodeid)
        self.__class__ = UnpackedAttributes  # type: ignore[assignment]  # the layout is the same
        for name in _ATTRIBUTE_FIELDS:
            setattr(self, name, getattr(unpacked, name))


class UnpackedAttributes(EntryAttributes):
    """An `AnsweredAttributes` that somebody has looked into."""

    __slots__ = ("nodeid", "payload", "unpack")


_ATTRIBUTE_FIELDS: Final = (
    "st_ino", "generation", "entry_timeout", "attr_timeout", "st_mode", "st_nlink", "st_uid",
    "st_gid", "st_rdev", "st_size", "st_blksize", "st_blocks", "st_atime_ns", "st_mtime_ns",
    "st_ctime_ns",
)  # fmt: skip


def _looked_into(name: str) -> property:
    """The property that unpacks, when field *name* is read or written."""

    def get(answered: AnsweredAttributes) -> Any:
        answered.become_unpacked()
        return getattr(answered, name)

    def change(answered: AnsweredAttributes, value: Any) -> None:
        answered.become_unpacked()
        setattr(answered, name, value)

    return property(get, change)


for _name in _ATTRIBUTE_FIELDS:
    setattr(AnsweredAttributes, _name, _looked_into(_name))


def attributes_of(entry: EntryAttributes) -> Attributes:
    """What the kernel is told of an inode that a handler describes."""
    atime, atime_rest = divmod(entry.st_atime_ns, _SECOND)
    mtime, mtime_rest = divmod(entry.st_mtime_ns, _SECOND)
    ctime, ctime_rest = divmod(entry.st_ctime_ns, _SECOND)
    return Attributes(
        False, entry.st_blksize, 0, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_mode,
        entry.st_ino, entry.st_size, entry.st_blocks, 0, atime, atime_rest, 0, 0, ctime, ctime_rest,
        mtime, mtime_rest, os.major(entry.st_rdev), os.minor(entry.st_rdev), 0, 0, 0,
    )  # fmt: skip


def with_birth(attributes: Attributes, backing: Attributes) -> Attributes:
    """*attributes* with the time of birth of *backing*."""
    attributes.btime_seconds = backing.btime_seconds
    attributes.btime_nanoseconds = backing.btime_nanoseconds
    attributes.has_btime = backing.has_btime
    return attributes


def validity_of(entry: EntryAttributes) -> Validity:
    """For how long the kernel may believe it."""
    return Validity.of(entry.entry_timeout, entry.attr_timeout)


def changes_of(body: Setattr) -> tuple[EntryAttributes, SetattrFields]:
    """What a SETATTR changes. A time of "now" is told as the time of this moment."""
    attributes = EntryAttributes()
    valid, now = body.valid, time.time_ns()
    attributes.st_mode, attributes.st_size = body.mode, body.size
    attributes.st_uid, attributes.st_gid = body.uid, body.gid
    given = body.atime_seconds * _SECOND + body.atime_nanoseconds
    attributes.st_atime_ns = now if valid & uapi.FATTR_ATIME_NOW else given
    given = body.mtime_seconds * _SECOND + body.mtime_nanoseconds
    attributes.st_mtime_ns = now if valid & uapi.FATTR_MTIME_NOW else given
    attributes.st_ctime_ns = body.ctime_seconds * _SECOND + body.ctime_nanoseconds
    return attributes, SetattrFields(*(name for name, bit in _FIELDS.items() if valid & bit))


def setattr_of(
    attributes: EntryAttributes,
    fields: pyfuse3.SetattrFields,
    handle: int | None,
    like: Setattr | None,
) -> Setattr:
    """The SETATTR that makes these changes.

    *like* is the request that is being served, if any: where it says "now", so does the result.
    """
    valid = 0
    for name, bit in _FIELDS.items():
        if getattr(fields, name):
            valid |= bit
    if like is not None:
        valid |= like.valid & _NOW_OR_KILL
    if handle is not None:
        valid |= uapi.FATTR_FH
    atime, atime_rest = divmod(attributes.st_atime_ns if fields.update_atime else 0, _SECOND)
    mtime, mtime_rest = divmod(attributes.st_mtime_ns if fields.update_mtime else 0, _SECOND)
    return Setattr(
        valid, handle or 0, attributes.st_size if fields.update_size else 0, 0, atime, mtime, 0,
        atime_rest, mtime_rest, 0, attributes.st_mode if fields.update_mode else 0,
        attributes.st_uid if fields.update_uid else 0,
        attributes.st_gid if fields.update_gid else 0,
    )  # fmt: skip


_FIELDS: Final = {
    "update_mode": uapi.FATTR_MODE,
    "update_uid": uapi.FATTR_UID,
    "update_gid": uapi.FATTR_GID,
    "update_size": uapi.FATTR_SIZE,
    "update_atime": uapi.FATTR_ATIME,
    "update_mtime": uapi.FATTR_MTIME,
    "update_ctime": uapi.FATTR_CTIME,
}
_NOW_OR_KILL: Final = uapi.FATTR_ATIME_NOW | uapi.FATTR_MTIME_NOW | uapi.FATTR_KILL_SUIDGID
