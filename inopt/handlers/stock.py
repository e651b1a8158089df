"""Filesystems written for pyfuse3, as they are: every opcode is a method call, nothing bypasses.

Such a filesystem has inode numbers and file handles of its own. What it calls in the module
`pyfuse3` (`readdir_reply`, `invalidate_inode`, …) is redirected to the mount while it is served.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyfuse3

from inopt.handlers.answers import Answers, expect
from inopt.handlers.calling import Request
from inopt.handlers.directory import ReaddirToken, readdir_reply
from inopt.handlers.failures import fail
from inopt.handlers.running import handler_table
from inopt.handlers.serve import Context, Serve
from inopt.handlers.tasks import Job, Tasks
from inopt.handlers.types import EntryAttributes, attributes_of, open_flags_of, validity_of
from inopt.kernel.device import Device
from inopt.ops import Op
from inopt.wire import bodies, notifications, replies
from inopt.wire.attributes import Attributes
from inopt.wire.bodies import Header


class StockAnswers(Answers):
    """Answers whose inode numbers and handles are the filesystem's own."""

    def _entry(self, _header: Header, attr: EntryAttributes) -> bytes:
        return self.context.dialect.entry(
            attr.st_ino, attr.generation, attributes_of(attr), validity_of(attr), attr.st_ino
        )

    def _number(self, nodeid: int) -> int:
        return nodeid

    def _with_birth(self, nodeid: int, attributes: Attributes) -> Attributes:
        del nodeid
        return attributes

    def _opened(self, header: Header, _body: Any, result: object) -> bytes:
        info = expect(header, pyfuse3.FileInfo, result)
        return self.context.dialect.open(info.fh, open_flags_of(info), 0)


def stock_table(handlers: pyfuse3.Operations, context: Context, tasks: Tasks) -> list[Serve | None]:
    """The functions by opcode; None for what the filesystem does not have."""
    answers = StockAnswers(context)
    table = handler_table(handlers, answers, tasks)
    table[Op.FORGET] = partial(_forget, handlers, tasks)
    table[Op.BATCH_FORGET] = partial(_forget, handlers, tasks)
    if table[Op.READDIR] is not None:
        table[Op.READDIR] = partial(_list_names, handlers, answers, tasks)
    # What a filesystem need not have a method for, but the kernel asks always.
    table[Op.OPENDIR] = table[Op.OPENDIR] or (lambda _header, _body: replies.open(0, 0))
    for op in (Op.RELEASEDIR, Op.RELEASE):
        table[op] = table[op] or (lambda _header, _body: b"")
    return table


def _forget(
    handlers: pyfuse3.Operations,
    tasks: Tasks,
    header: Header,
    body: bodies.Forget | bodies.BatchForget,
) -> None:
    items = body.items if isinstance(body, bodies.BatchForget) else [(header.nodeid, body.count)]
    tasks.start(Job(Request(header, body, 0, []), handlers.forget, (items,), _no_answer))


def _no_answer(_result: Any) -> None:
    return None


def _list_names(
    handlers: pyfuse3.Operations,
    answers: Answers,
    tasks: Tasks,
    header: Header,
    body: bodies.Read,
) -> bytes | None:
    """READDIR: pyfuse3 knows READDIRPLUS only, where each entry is a lookup; here it is not."""

    async def list_and_forget(handle: int, offset: int, token: ReaddirToken) -> None:
        await handlers.readdir(handle, offset, token)
        if token.added:
            await handlers.forget(token.added)

    token = ReaddirToken(body.size, plus=False)
    answers.prepare(header, token)

    def answer(_result: Any) -> bytes:
        return bytes(token.page.view())

    arguments = (body.handle, body.offset, token)
    tasks.start(Job(Request(header, body, 0, []), list_and_forget, arguments, answer))
    return None


@contextmanager
def redirected(
    handlers: pyfuse3.Operations, device: Device, terminate: Callable[[], None]
) -> Iterator[None]:
    """In the body, what the filesystem calls in `pyfuse3` is about this mount."""
    replaced: dict[str, Callable[..., Any]] = {
        "readdir_reply": readdir_reply,
        "terminate": terminate,
        **_notifications(device),
    }
    places: list[tuple[Any, str, Any]] = []
    modules = [pyfuse3, *(sys.modules[c.__module__] for c in type(handlers).__mro__)]
    originals = {name: getattr(pyfuse3, name) for name in replaced}
    for module in modules:
        for name, value in list(vars(module).items()):
            for original_name, original in originals.items():
                if value is original:
                    places.append((module, name, value))
                    setattr(module, name, replaced[original_name])
    try:
        yield
    finally:
        for module, name, value in places:
            setattr(module, name, value)


def _notifications(device: Device) -> dict[str, Callable[..., Any]]:
    def tell(message: bytes) -> None:
        if not device.notify(message):
            fail(errno.ENOENT)

    def invalidate_inode(inode: int, attr_only: bool = False) -> None:
        device.notify(notifications.invalidate_inode(inode, -1 if attr_only else 0, 0))

    def invalidate_entry(inode_p: int, name: bytes, deleted: int = 0) -> None:
        if deleted:
            tell(notifications.delete(inode_p, deleted, name))
        else:
            tell(notifications.invalidate_entry(inode_p, name))

    def invalidate_entry_async(
        inode_p: int, name: bytes, deleted: int = 0, ignore_enoent: bool = False
    ) -> None:
        try:
            invalidate_entry(inode_p, name, deleted)
        except OSError as error:
            if not (ignore_enoent and error.errno == errno.ENOENT):
                raise

    def notify_store(inode: int, offset: int, data: bytes) -> None:
        tell(notifications.store(inode, offset, data))

    return {
        "invalidate_inode": invalidate_inode,
        "invalidate_entry": invalidate_entry,
        "invalidate_entry_async": invalidate_entry_async,
        "notify_store": notify_store,
    }
