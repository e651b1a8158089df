"""Encode notifications, the messages that the daemon sends unasked.

Each function returns a whole message: a reply header with ``unique`` 0 whose ``error`` field holds
the notification's code, and the payload. Minors name the first protocol that knows the code.

Source: the ``fuse_notify_*_out`` structures of linux/fuse.h; fs/fuse/dev.c checks the exact sizes
(a name is followed by one NUL that its length does not count; RESEND and INC_EPOCH are bare).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inopt.wire import layouts
from inopt.wire.uapi import NotifyCode

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER_SIZE: Final = layouts.OUT_HEADER.size
_POLL: Final = int(NotifyCode.POLL)
_INVAL_INODE: Final = int(NotifyCode.INVAL_INODE)
_INVAL_ENTRY: Final = int(NotifyCode.INVAL_ENTRY)
_STORE: Final = int(NotifyCode.STORE)
_RETRIEVE: Final = int(NotifyCode.RETRIEVE)
_DELETE: Final = int(NotifyCode.DELETE)
_RESEND: Final = int(NotifyCode.RESEND)
_INC_EPOCH: Final = int(NotifyCode.INC_EPOCH)
_PRUNE: Final = int(NotifyCode.PRUNE)


def _message(code: int, payload: bytes) -> bytes:
    return layouts.OUT_HEADER.pack(_HEADER_SIZE + len(payload), code, 0) + payload


def poll(kernel_handle: int) -> bytes:
    """Wake whoever polls the file with this kernel handle (7.11)."""
    return _message(_POLL, layouts.NOTIFY_POLL_WAKEUP_OUT.pack(kernel_handle))


def invalidate_inode(nodeid: int, offset: int, length: int) -> bytes:
    """Drop cached attributes, and cached data from ``offset`` on (7.12).

    A negative ``offset`` spares the data; a ``length`` of 0 or less means up to the end.
    """
    return _message(_INVAL_INODE, layouts.NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, length))


def invalidate_entry(parent: int, name: bytes, flags: int = 0) -> bytes:
    """Drop a cached name (7.12), or let it expire with ``EXPIRE_ONLY`` (7.38)."""
    fixed = layouts.NOTIFY_INVAL_ENTRY_OUT.pack(parent, len(name), flags)
    return _message(_INVAL_ENTRY, fixed + name + b"\0")


def delete(parent: int, child: int, name: bytes) -> bytes:
    """Tell that ``name``, if it is still ``child``, was deleted (7.18)."""
    fixed = layouts.NOTIFY_DELETE_OUT.pack(parent, child, len(name))
    return _message(_DELETE, fixed + name + b"\0")


def store(nodeid: int, offset: int, data: bytes | bytearray | memoryview) -> bytes:
    """Put ``data`` into the cache of an inode at ``offset`` (7.15)."""
    fixed = layouts.NOTIFY_STORE_OUT.pack(nodeid, offset, len(data))
    return _message(_STORE, fixed + bytes(data))


def retrieve(notify_unique: int, nodeid: int, offset: int, size: int) -> bytes:
    """Ask for cached data; it comes as a NOTIFY_REPLY whose unique is ``notify_unique`` (7.15)."""
    return _message(
        _RETRIEVE, layouts.NOTIFY_RETRIEVE_OUT.pack(notify_unique, nodeid, offset, size)
    )


def resend() -> bytes:
    """Ask for every unanswered request again, marked with ``RESEND_UNIQUE_BIT`` (7.40)."""
    return _message(_RESEND, b"")


def increment_epoch() -> bytes:
    """Make every cached name of the mount stale at once (7.44)."""
    return _message(_INC_EPOCH, b"")


def prune(nodeids: Sequence[int]) -> bytes:
    """Ask the kernel to forget these inodes if nothing uses them (7.45)."""
    fixed = layouts.NOTIFY_PRUNE_OUT.pack(len(nodeids))
    return _message(_PRUNE, fixed + b"".join(nodeid.to_bytes(8, "little") for nodeid in nodeids))
