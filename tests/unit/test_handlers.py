"""Handlers on a kernel in memory: errors, mistakes, interrupts, hooks, state, bypass."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableSequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from support.everything import METHODS, AsyncEverything, PlainEverything

from inopt import EntryAttributes, FileInfo, FUSEError, Handlers, Lock, UsageError
from inopt.handlers.reach import SessionReach
from inopt.ops import Op
from inopt.testing import FakeKernel, fake_mount
from inopt.wire import bodies
from inopt.wire.uapi import NotifyCode

Logs = MutableSequence[Any]

_ALL: Final = "version: 1\nrules: [{handle: all}]\n"
_PLAIN = [False, True]
_ROOT: Final = 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.setxattr(tmp_path / "file", "user.a", b"value")
    return tmp_path


def handlers_with(plain: bool, **methods: Callable[..., Any]) -> Any:
    """Handlers that override everything, and some of it by *methods* (without ``self``).

    While ``on`` is False, those do as the daemon does.
    """
    base: type[Handlers] = PlainEverything if plain else AsyncEverything

    def bound(name: str, given: Callable[..., Any]) -> Callable[..., Any]:
        def plain_method(self: Any, *arguments: Any) -> Any:
            return given(*arguments) if self.on else getattr(self.daemon, name)(*arguments)

        async def method(self: Any, *arguments: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return plain_method(self, *arguments)

        return plain_method if plain else method

    made = {name: bound(name, given) for name, given in methods.items()}
    return type("Made", (base,), {"on": True, **made})()


def raising(error: Exception) -> Callable[..., Any]:
    def method(*_arguments: Any) -> Any:
        raise error

    return method


@pytest.fixture
def logs() -> Iterator[Logs]:
    """All log records, with tracebacks as text."""
    capture = LogCapture()
    earlier = structlog.get_config()
    structlog.configure(processors=[structlog.processors.format_exc_info, capture])
    yield capture.entries
    structlog.configure(**earlier)


def failures(logs: Logs) -> list[Any]:
    return [each for each in logs if each["event"] == "request failed"]


async def open_file(kernel: FakeKernel, flags: int = os.O_RDWR) -> tuple[int, int]:
    entry = await kernel.lookup(_ROOT, b"file")
    return entry.nodeid, (await kernel.open(entry.nodeid, flags)).handle


async def errno_of(call: Awaitable[object]) -> int:
    """The errno that a call is answered with, 0 for success."""
    try:
        await call
    except OSError as error:
        return error.errno or -1
    return 0


_LOCK: Final = Lock(fcntl.F_WRLCK, 0, 10, 1, 1)
# One request for each method: what is open for it is opened before the method is spoilt.
Ask = Callable[[FakeKernel, int, int, int], Awaitable[object]]
ASKS: Final[dict[str, Ask]] = {
    "lookup": lambda k, *_: k.lookup(_ROOT, b"file"),
    "mknod": lambda k, *_: k.mknod(_ROOT, b"new", stat.S_IFIFO | 0o600),
    "mkdir": lambda k, *_: k.mkdir(_ROOT, b"new"),
    "symlink": lambda k, *_: k.symlink(_ROOT, b"new", b"target"),
    "link": lambda k, inode, *_: k.link(inode, _ROOT, b"new"),
    "unlink": lambda k, *_: k.unlink(_ROOT, b"other"),
    "rmdir": lambda k, *_: k.rmdir(_ROOT, b"directory"),
    "rename": lambda k, *_: k.rename(_ROOT, b"other", _ROOT, b"new"),
    "create": lambda k, *_: k.create(_ROOT, b"new"),
    "tmpfile": lambda k, *_: k.tmpfile(_ROOT),
    "open": lambda k, inode, *_: k.open(inode),
    "read": lambda k, inode, fh, _: k.read(fh, 0, 100, nodeid=inode),
    "write": lambda k, inode, fh, _: k.write(fh, 0, b"new", nodeid=inode),
    "flush": lambda k, inode, fh, _: k.flush(fh, nodeid=inode),
    "release": lambda k, inode, fh, _: k.release(fh, nodeid=inode),
    "fsync": lambda k, inode, fh, _: k.fsync(fh, nodeid=inode),
    "lseek": lambda k, inode, fh, _: k.lseek(fh, 0, os.SEEK_DATA, nodeid=inode),
    "fallocate": lambda k, inode, fh, _: k.fallocate(fh, 0, 0, 10, nodeid=inode),
    "copy_file_range": lambda k, inode, fh, _: k.copy_file_range(
        fh, 0, fh, 5, 5, nodeid=inode, target_nodeid=inode
    ),
    "ioctl": lambda k, inode, fh, _: k.ioctl(fh, 0x80086601, b"", 8, nodeid=inode),
    "getattr": lambda k, inode, *_: k.getattr(inode),
    "setattr": lambda k, inode, *_: k.setattr(inode, mode=0o600),
    "readlink": lambda k, *_: _readlink(k),
    "statfs": lambda k, *_: k.statfs(),
    "opendir": lambda k, *_: k.opendir(),
    "readdir": lambda k, _inode, _fh, directory: k.readdir(directory),
    "releasedir": lambda k, _inode, _fh, directory: k.releasedir(directory),
    "fsyncdir": lambda k, _inode, _fh, directory: k.fsyncdir(directory),
    "getxattr": lambda k, inode, *_: k.getxattr(inode, b"user.a"),
    "listxattr": lambda k, inode, *_: k.listxattr(inode),
    "setxattr": lambda k, inode, *_: k.setxattr(inode, b"user.b", b"x"),
    "removexattr": lambda k, inode, *_: k.removexattr(inode, b"user.a"),
    "getlk": lambda k, inode, fh, _: k.getlk(fh, _LOCK, nodeid=inode),
    "setlk": lambda k, inode, fh, _: k.setlk(fh, _LOCK, nodeid=inode),
    "flock": lambda k, inode, fh, _: k.flock(fh, fcntl.LOCK_EX, nodeid=inode),
    "poll": lambda k, inode, fh, _: k.poll(fh, select.POLLIN, nodeid=inode),
}
# What it must return, as the message says it, and something that is nearly right.
WANTED: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("lookup", "mknod", "mkdir", "symlink", "link", "getattr", "setattr"), "EntryAttributes"
    ),
    **dict.fromkeys(
        (
            "unlink", "rmdir", "rename", "flush", "release", "fsync", "fallocate", "releasedir",
            "fsyncdir", "setxattr", "removexattr", "readdir", "setlk", "flock",
        ),
        "NoneType",
    ),
    **dict.fromkeys(("create", "tmpfile"), "tuple"),
    "open": "FileInfo",
    **dict.fromkeys(("read", "readlink", "getxattr", "ioctl"), "bytes"),
    **dict.fromkeys(("write", "lseek", "copy_file_range", "opendir", "poll"), "int"),
    "getlk": "Lock",
    "statfs": "StatvfsData",
    "listxattr": "Sequence",
}  # fmt: skip


async def _readlink(kernel: FakeKernel) -> bytes:
    return await kernel.readlink((await kernel.lookup(_ROOT, b"link")).nodeid)


def test_every_method_is_asked() -> None:
    assert set(ASKS) == set(WANTED) == set(METHODS)


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize("name", METHODS)
async def test_super_in_every_method(source: Path, name: str, plain: bool) -> None:
    async with fake_mount(handlers_with(plain), source=source, policy=_ALL) as kernel:
        inode, fh = await open_file(kernel)
        directory = (await kernel.opendir()).handle
        found = await errno_of(ASKS[name](kernel, inode, fh, directory))
        # Filesystems without inode flags, and those that need no FLUSH, may say so.
        allowed = {"ioctl": (0, errno.ENOTTY, errno.EOPNOTSUPP), "flush": (0, errno.ENOSYS)}
        assert found in allowed.get(name, (0,))
        assert {each.route for each in kernel.requests} == {"handler"}


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize("name", METHODS)
async def test_every_wrong_answer_is_named(
    source: Path, logs: Logs, name: str, plain: bool
) -> None:
    handlers = handlers_with(plain, **{name: lambda *_: {"not": "an answer"}})
    async with fake_mount(handlers, source=source, policy=_ALL) as kernel:
        handlers.on = False
        inode, fh = await open_file(kernel)
        directory = (await kernel.opendir()).handle
        if name == "readlink":
            await kernel.lookup(_ROOT, b"link")
        asked = ASKS[name](kernel, inode, fh, directory)
        handlers.on = True
        assert await errno_of(asked) == errno.EIO
        records = failures(logs)
        assert len(records) == 1
        opcode = kernel.requests[-1].opcode
        assert isinstance(opcode, Op)
        assert records[0]["opcode"] == opcode.name
        assert records[0]["log_level"] == "error"
        assert f"the handler of {opcode.name} returned dict" in records[0]["exception"]
        assert f"expected {WANTED[name]}" in records[0]["exception"]
        # The mount lives on.
        handlers.on = False
        assert await errno_of(kernel.statfs()) == 0


_WRONG: Final[list[tuple[str, Any, str]]] = [
    ("read", "text", "the handler of READ returned str ('text'): expected bytes"),
    ("read", None, "the handler of READ returned NoneType (None): expected bytes"),
    ("write", 11, "the handler of WRITE returned 11 for 3 bytes"),
    ("write", -1, "the handler of WRITE returned -1 for 3 bytes"),
    ("write", "3", "the handler of WRITE returned str ('3'): expected int"),
    ("unlink", 0, "the handler of UNLINK returned int (0): expected NoneType"),
    ("readdir", [b"a"], "the handler of READDIR returned list ([b'a']): expected NoneType"),
    ("listxattr", b"user.a", "the handler of LISTXATTR returned bytes (b'user.a'): expected list"),
    ("listxattr", ["user.a"], "the handler of LISTXATTR returned str ('user.a'): expected bytes"),
    ("create", (), "returned a tuple of 0: expected (FileInfo, EntryAttributes)"),
    ("tmpfile", (1, 2, 3), "the handler of TMPFILE returned a tuple of 3"),
    ("open", 5, "the handler of OPEN returned int (5): expected FileInfo"),
    ("open", FileInfo(fh=77), "the handler of OPEN returned fh 77, which no open has given"),
    ("mkdir", EntryAttributes(), "the handler of MKDIR returned st_ino 0"),
]


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize(("name", "answer", "message"), _WRONG)
async def test_what_is_said_of_a_wrong_answer(
    source: Path, logs: Logs, name: str, answer: Any, message: str, plain: bool
) -> None:
    handlers = handlers_with(plain, **{name: lambda *_: answer})
    async with fake_mount(handlers, source=source, policy=_ALL) as kernel:
        handlers.on = False
        inode, fh = await open_file(kernel)
        directory = (await kernel.opendir()).handle
        handlers.on = True
        assert await errno_of(ASKS[name](kernel, inode, fh, directory)) == errno.EIO
        assert message in failures(logs)[0]["exception"]


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FUSEError(errno.EDQUOT), errno.EDQUOT),
        (FUSEError(0), errno.EIO),
        (FUSEError(100_000), errno.EIO),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (PermissionError(errno.EPERM, "no"), errno.EPERM),
        (OSError("without a number"), errno.EIO),
        (FileNotFoundError(errno.ENOENT, "none"), errno.ENOENT),
    ],
    ids=repr,
)
async def test_errors_are_answers(
    source: Path, logs: Logs, error: Exception, number: int, plain: bool
) -> None:
    handlers = handlers_with(plain, getattr=raising(error))
    async with fake_mount(handlers, source=source, policy=_ALL) as kernel:
        assert await errno_of(kernel.getattr(_ROOT)) == number
        assert failures(logs) == []
        assert kernel.requests[-1].route == "handler"
        assert await errno_of(kernel.statfs()) == 0


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), KeyError("k"), ExceptionGroup("g", [ValueError("v")])]
)
async def test_exceptions_are_eio_for_that_request_alone(
    source: Path, logs: Logs, error: Exception, plain: bool
) -> None:
    handlers = handlers_with(plain, getattr=raising(error))
    async with fake_mount(handlers, source=source, policy=_ALL) as kernel:
        inode, fh = await open_file(kernel)
        assert await errno_of(kernel.getattr(inode)) == errno.EIO
        (record,) = failures(logs)
        assert (record["opcode"], record["nodeid"]) == ("GETATTR", inode)
        assert "Traceback" in record["exception"]
        assert type(error).__name__ in record["exception"]
        assert "in raising" in record["exception"] or "in method" in record["exception"]
        assert await kernel.read(fh, 0, 4, nodeid=inode) == b"0123"
        stats = kernel.session.stats()["GETATTR"]
        assert (stats["handler"], stats["errors"]) == (1, 1)


async def test_a_plain_method_that_wants_to_wait(source: Path, logs: Logs) -> None:
    class Waits(Handlers):
        def getattr(self, _inode: int, _ctx: Any) -> Any:
            return trio.sleep(0.1)  # noqa: ASYNC105 - the mistake that is tested

    async with fake_mount(Waits(), source=source) as kernel:
        assert await errno_of(kernel.getattr(_ROOT)) == errno.EIO
        assert "make it async def" in failures(logs)[0]["exception"]


async def test_a_plain_method_may_return_what_super_gives(source: Path) -> None:
    class Passes(Handlers):
        def getattr(self, inode: int, ctx: Any) -> Any:
            return super().getattr(inode, ctx)

    async with fake_mount(Passes(), source=source) as kernel:
        assert stat.S_ISDIR((await kernel.getattr(_ROOT)).attributes.mode)


# --- what a failed request leaves --------------------------------------------------------------


@pytest.mark.parametrize("plain", _PLAIN)
async def test_failed_requests_leave_nothing(source: Path, plain: bool) -> None:
    made: list[Handlers] = []

    def after_super(name: str) -> Callable[..., Any]:
        def method(*arguments: Any) -> Any:
            getattr(made[0].daemon, name)(*arguments)
            raise FUSEError(errno.EPERM)

        return method

    names = ("lookup", "open", "opendir", "create", "tmpfile", "mkdir")
    handlers = handlers_with(plain, **{name: after_super(name) for name in names})
    made.append(handlers)
    async with fake_mount(handlers, source=source, policy=_ALL, bypass=True) as kernel:
        handlers.on = False
        inode, fh = await open_file(kernel)
        before = await facts(kernel)
        handlers.on = True
        for name in names:
            for _ in range(3):
                error = await errno_of(ASKS[name](kernel, inode, fh, 0))
                assert error in (errno.EPERM, errno.EEXIST, errno.ESTALE)
        (source / "third").touch()
        assert await errno_of(kernel.lookup(_ROOT, b"third")) == errno.EPERM
        assert await facts(kernel) == before


async def test_a_lookup_that_the_handler_forgets_is_taken_back_once(source: Path) -> None:
    class Hides(Handlers):
        async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
            entry = await super().lookup(parent_inode, name, ctx)
            if self.hides:
                await self.forget([(entry.st_ino, 1)])
                raise FUSEError(errno.ENOENT)
            return entry

        hides = False

    handlers = Hides()
    async with fake_mount(handlers, source=source) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        handlers.hides = True
        for _ in range(3):
            assert await errno_of(kernel.lookup(_ROOT, b"file")) == errno.ENOENT
        assert await errno_of(kernel.getattr(inode)) == 0
        await kernel.forget(inode)
        assert await errno_of(kernel.getattr(inode)) == errno.ESTALE


async def facts(kernel: FakeKernel) -> dict[str, int]:
    stats = kernel.session.stats()
    names = ("known_inodes", "open_files", "open_directories", "backing_ids")
    return {name: stats[name] for name in names}


# --- interrupts and stuck handlers -------------------------------------------------------------


class Sleeps(Handlers):
    """STATFS never ends by itself."""

    async def statfs(self, _ctx: Any) -> Any:
        await trio.sleep_forever()

    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        info = await super().open(inode, flags, ctx)
        await trio.sleep_forever()
        return info


async def test_an_interrupt_ends_an_async_handler(source: Path) -> None:
    async with fake_mount(Sleeps(), source=source) as kernel:
        waiting = [await kernel.start(Op.STATFS, _ROOT, bodies.Statfs()) for _ in range(3)]
        await kernel.interrupt(waiting[1])
        assert await errno_of(waiting[1].payload()) == errno.EINTR
        assert not waiting[0].has_come
        for answer in (waiting[0], waiting[2]):
            await kernel.interrupt(answer)
            assert await errno_of(answer.payload()) == errno.EINTR
        assert [each.errno for each in kernel.requests if each.opcode == Op.STATFS] == [
            errno.EINTR
        ] * 3


async def test_an_interrupted_open_is_taken_back(source: Path) -> None:
    async with fake_mount(Sleeps(), source=source, bypass=True) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        answer = await kernel.start(Op.OPEN, inode, bodies.Open(os.O_RDONLY, 0))
        while not kernel.backing_ids:  # noqa: ASYNC110 - another thread's
            await trio.sleep(0.01)
        await kernel.interrupt(answer)
        assert await errno_of(answer.payload()) == errno.EINTR
        assert kernel.backing_ids == {}
        assert kernel.session.stats()["open_files"] == 0


async def test_an_interrupt_ends_the_system_call_of_a_plain_handler(source: Path) -> None:
    class Waits(Handlers):
        def statfs(self, _ctx: Any) -> Any:
            wait_for_a_signal()

    async with fake_mount(Waits(), source=source) as kernel:
        answer = await kernel.start(Op.STATFS, _ROOT, bodies.Statfs())
        await trio.sleep(0.1)
        await kernel.interrupt(answer)
        assert await errno_of(answer.payload()) == errno.EINTR


def wait_for_a_signal() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.pause()
    raise OSError(ctypes.get_errno(), "interrupted")


async def test_others_are_served_while_a_plain_handler_sleeps(source: Path) -> None:
    go_on = threading.Event()

    class Waits(Handlers):
        def statfs(self, ctx: Any) -> Any:
            go_on.wait(240)
            return self.daemon.statfs(ctx)

    async with fake_mount(Waits(), source=source) as kernel:
        answer = await kernel.start(Op.STATFS, _ROOT, bodies.Statfs())
        for _ in range(5):
            assert await errno_of(kernel.getattr(_ROOT)) == 0
        assert not answer.has_come
        go_on.set()
        await answer.payload()


@pytest.mark.parametrize("plain", _PLAIN)
async def test_a_stuck_handler_is_named(source: Path, logs: Logs, plain: bool) -> None:
    go_on = threading.Event()

    class Waits(Handlers):
        if plain:

            def statfs(self, ctx: Any) -> Any:
                go_on.wait(240)
                return self.daemon.statfs(ctx)

        else:

            async def statfs(self, ctx: Any) -> Any:  # type: ignore[misc]
                while not go_on.is_set():  # noqa: ASYNC110 - threads set it
                    await trio.sleep(0.01)
                return await super().statfs(ctx)

    async with fake_mount(Waits(), source=source, handler_timeout=0.2) as kernel:
        by = kernel.by(1001, pid=4711)
        answer = await by.start(Op.STATFS, _ROOT, bodies.Statfs())
        while not stuck_in(logs):  # noqa: ASYNC110 - another task logs it
            await trio.sleep(0.01)
        go_on.set()
        await answer.payload()
        told = stuck_in(logs)
        assert (told[0]["opcode"], told[0]["nodeid"], told[0]["pid"]) == ("STATFS", _ROOT, 4711)
        assert told[0]["seconds"] >= 0.2
        await trio.sleep(0.4)
        assert stuck_in(logs) == told, "it has answered"


def stuck_in(logs: Logs) -> Logs:
    """The lines of the log about handlers that do not answer."""
    return [each for each in logs if each["event"] == "a handler does not answer"]


# --- hooks, background tasks, state ------------------------------------------------------------


async def test_hooks_and_background_tasks(source: Path) -> None:
    told: list[str] = []

    class Hooks(Handlers):
        async def started(self, session: SessionReach) -> None:
            told.append(f"started at {session.mountpoint}")
            assert self.session is session
            assert self.daemon.statfs(RequestNobody).f_namemax > 0
            session.nursery.start_soon(self.background)

        async def background(self) -> None:
            told.append("task")
            try:
                await trio.sleep_forever()
            finally:
                told.append("cancelled")

        async def stopped(self) -> None:
            told.append("stopped")

    async with fake_mount(Hooks(), source=source) as kernel:
        await kernel.getattr(_ROOT)
    assert told == ["started at /nowhere (fake)", "task", "cancelled", "stopped"]


class _Nobody:
    uid = gid = pid = 0


RequestNobody: Any = _Nobody()


async def test_a_hook_that_fails_ends_the_mount(source: Path) -> None:
    class Fails(Handlers):
        async def started(self, session: SessionReach) -> None:
            raise RuntimeError("no database")

    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        async with fake_mount(Fails(), source=source):
            raise AssertionError("it was mounted")
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert str(error) == "no database"


async def test_state_is_dropped_with_its_owner(source: Path) -> None:
    class Counts(Handlers):
        def read(self, fh: int, off: int, size: int) -> bytes:  # type: ignore[override]
            inode = self.backing.inode_of(fh)
            for state in (self.backing.inode_state(inode), self.backing.open_state(fh)):
                state["reads"] = state.get("reads", 0) + 1
            seen.append((self.backing.inode_state(inode)["reads"], state["reads"]))
            return self.daemon.read(fh, off, size)

    seen: list[tuple[int, int]] = []
    async with fake_mount(Counts(), source=source) as kernel:
        inode, first = await open_file(kernel, os.O_RDONLY)
        second = (await kernel.open(inode)).handle
        for fh in (first, first, second):
            await kernel.read(fh, 0, 10, nodeid=inode)
        assert seen == [(1, 1), (2, 2), (3, 1)]
        await kernel.release(first, nodeid=inode)
        third = (await kernel.open(inode)).handle
        await kernel.read(third, 0, 10, nodeid=inode)
        assert seen[-1] == (4, 1)
        for fh in (second, third):
            await kernel.release(fh, nodeid=inode)
        await kernel.forget(inode)
        inode, fourth = await open_file(kernel, os.O_RDONLY)
        await kernel.read(fourth, 0, 10, nodeid=inode)
        assert seen[-1] == (1, 1)


# --- who asks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", _PLAIN)
async def test_who_asks(source: Path, plain: bool) -> None:
    seen: list[tuple[int, int, int]] = []
    handlers = handlers_with(plain)

    def look(inode: int, ctx: Any) -> Any:
        request = handlers.session.request()
        assert request is not None
        assert (request.opcode, request.inode) == (Op.GETATTR, inode)
        assert (request.uid, request.gid, request.pid) == (ctx.uid, ctx.gid, ctx.pid)
        seen.append((ctx.uid, ctx.gid, ctx.pid))
        return handlers.daemon.getattr(inode, ctx)

    handlers = handlers_with(plain, getattr=look)
    async with fake_mount(handlers, source=source, policy=_ALL) as kernel:
        await kernel.by(1001).getattr(_ROOT)
        await kernel.by(7, 8, 9).getattr(_ROOT)
        assert seen == [(1001, 1001, 1), (7, 8, 9)]
        assert handlers.session.request() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
@pytest.mark.parametrize("plain", _PLAIN)
async def test_supplementary_groups_reach_the_daemon(source: Path, plain: bool) -> None:
    source.chmod(0o2777)
    os.chown(source, 0, 2000)
    source.chmod(0o2777)
    async with fake_mount(handlers_with(plain), source=source, policy=_ALL) as kernel:
        user = kernel.by(1001)
        made = await user.create(_ROOT, b"in", mode=0o2775, groups=(2000,))
        assert made.entry.attributes.mode == stat.S_IFREG | 0o2775
        made = await user.create(_ROOT, b"out", mode=0o2775)
        assert made.entry.attributes.mode == stat.S_IFREG | 0o775


async def test_umasks_of_threads_do_not_mix(source: Path) -> None:
    """Handlers may make files from any thread, each with the umask of who asks."""

    class Threads(Handlers):
        async def create(self, *arguments: Any) -> Any:
            return await trio.to_thread.run_sync(partial(self.daemon.create, *arguments))

    async with fake_mount(Threads(), source=source) as kernel:
        modes: dict[int, set[int]] = {}

        async def make(number: int) -> None:
            umask = 0o077 if number % 2 else 0o022
            made = await kernel.create(_ROOT, b"%d" % number, mode=0o666, umask=umask)
            modes.setdefault(umask, set()).add(made.entry.attributes.mode & 0o777)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(make, number)
        assert modes == {0o077: {0o600}, 0o022: {0o644}}


async def test_a_write_elsewhere_does_not_append(source: Path) -> None:
    """A handler of an appending WRITE may itself write elsewhere, at an offset."""

    class Copies(Handlers):
        log = 0

        async def write(self, fh: int, off: int, buf: bytes) -> int:
            self.daemon.write(self.log, 0, b"LOG")
            return await super().write(fh, off, buf)

    handlers = Copies()
    async with fake_mount(handlers, source=source) as kernel:
        (source / "other").write_bytes(b"0123456789")
        other = (await kernel.lookup(_ROOT, b"other")).nodeid
        handlers.log = (await kernel.open(other, os.O_RDWR)).handle
        inode, fh = await open_file(kernel)
        await kernel.write(fh, 0, b"+", nodeid=inode, flags=os.O_WRONLY | os.O_APPEND)
    assert (source / "file").read_bytes() == b"0123456789+"
    assert (source / "other").read_bytes() == b"LOG3456789"


# --- listings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", _PLAIN)
async def test_listings_are_those_of_the_daemon(source: Path, plain: bool) -> None:
    for number in range(300):
        (source / f"entry-{number}").touch()

    async def listings(handlers: Handlers | None) -> tuple[list[Any], list[Any], int]:
        policy = _ALL if handlers else "version: 1\n"
        async with fake_mount(handlers, source=source, policy=policy) as process:
            kernel = process.by(0, pid=0)  # of nobody in particular, so that all is looked up
            handle = (await kernel.opendir()).handle
            names: list[Any] = []
            while page := await kernel.readdir(handle, names[-1][0] if names else 0):
                names += [(e.next_offset, e.inode, e.type, e.name) for e in page]
            known = kernel.session.stats()["known_inodes"]
            plus: list[Any] = []
            while found := await kernel.readdirplus(handle, plus[-1][0] if plus else 0):
                plus += [
                    (e.dirent.next_offset, e.dirent.inode, e.dirent.type, e.dirent.name,
                     e.entry.nodeid, e.entry.generation, e.entry.attributes.size)
                    for e in found
                ]  # fmt: skip
            await kernel.batch_forget([(each[4], 1) for each in plus if each[4]])
            await kernel.statfs()
            assert kernel.session.stats()["known_inodes"] == known
            return names, plus, known

    assert await listings(handlers_with(plain)) == await listings(None)


# --- bypass ------------------------------------------------------------------------------------


async def test_wishes_about_the_bypass(source: Path) -> None:
    class Wishes(Handlers):
        wish: bool | None = None

        async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
            info = await super().open(inode, flags, ctx)
            info.bypass = self.wish
            return info

    handlers = Wishes()
    async with fake_mount(handlers, source=source, bypass=True) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        opens = []
        for wish, expected in ((None, True), (False, True), (True, True)):
            handlers.wish = wish
            opened = await kernel.open(inode)
            assert bool(opened.backing_id) is expected, wish
            opens.append(opened)
        assert len({each.backing_id for each in opens}) == len(kernel.backing_ids) == 1
        for each in opens:
            await kernel.release(each.handle, nodeid=inode)
        assert kernel.backing_ids == {}
        handlers.wish = False
        first = await kernel.open(inode)
        handlers.wish = True
        second = await kernel.open(inode)
        assert first.backing_id == second.backing_id == 0
        for each in (first, second):
            await kernel.release(each.handle, nodeid=inode)
        assert (await kernel.open(inode)).backing_id


async def test_stop_bypassing_and_bypass_again(source: Path) -> None:
    handlers = handlers_with(False)
    policy = "version: 1\nrules: [{handle: getattr}]\n"
    async with fake_mount(handlers, source=source, policy=policy, bypass=True) as kernel:
        inode, fh = await open_file(kernel)
        assert kernel.backing_ids
        handlers.session.stop_bypassing(inode)
        second = await kernel.open(inode)
        assert second.backing_id  # the first open decides for all
        for each in (fh, second.handle):
            await kernel.release(each, nodeid=inode)
        third = await kernel.open(inode)
        assert not third.backing_id
        handlers.session.bypass_again(inode)
        assert not (await kernel.open(inode)).backing_id
        assert kernel.backing_ids == {}


# --- notifications -----------------------------------------------------------------------------


async def test_notifications(source: Path) -> None:
    class Tells(Handlers):
        async def statfs(self, ctx: Any) -> Any:
            session = self.session
            assert await session.invalidate_inode(5)
            assert await session.invalidate_inode(5, attributes_only=True)
            assert await session.invalidate_entry(1, b"name")
            assert await session.invalidate_entry(1, b"name", deleted=5)
            assert await session.expire_entry(1, b"name")
            assert await session.store(5, 10, b"data")
            return await super().statfs(ctx)

    async with fake_mount(Tells(), source=source) as kernel:
        await kernel.statfs()
        assert [code for code, _ in kernel.notifications] == [
            NotifyCode.INVAL_INODE,
            NotifyCode.INVAL_INODE,
            NotifyCode.INVAL_ENTRY,
            NotifyCode.DELETE,
            NotifyCode.INVAL_ENTRY,
            NotifyCode.STORE,
        ]
        assert kernel.notifications[-1][1].endswith(b"data")


# --- what policies and classes say of each other -----------------------------------------------


async def test_what_is_handled_but_not_overridden_is_refused(source: Path) -> None:
    class Reads(Handlers):
        async def read(self, fh: int, off: int, size: int) -> bytes:
            return await super().read(fh, off, size)

    policy = "version: 1\nrules: [{handle: [read, unlink]}]\n"
    with pytest.raises(UsageError, match="INO112"):
        async with fake_mount(Reads(), source=source, policy=policy):
            raise AssertionError("it was mounted")


async def test_descriptors_are_protected_from_every_thread(tmp_path: Path) -> None:
    """A small budget and many directories: descriptors are evicted while calls use them."""
    for number in range(120):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "file").write_bytes(b"%d" % number)

    class Threads(AsyncEverything):
        async def getxattr(self, *arguments: Any) -> Any:
            return await trio.to_thread.run_sync(partial(self.daemon.getxattr, *arguments))

    handlers = Threads()
    async with fake_mount(handlers, source=tmp_path, policy=_ALL, fd_budget=64) as kernel:
        wrong: list[object] = []

        async def work(start: int) -> None:
            for number in [(start + step) % 120 for step in range(120)]:
                try:
                    entry = await kernel.walk(f"{number}/file")
                    opened = await kernel.open(entry.nodeid)
                    data = await kernel.read(opened.handle, 0, 10, nodeid=entry.nodeid)
                    if data != b"%d" % number:
                        wrong.append((number, data))
                    await kernel.release(opened.handle, nodeid=entry.nodeid)
                    found = await errno_of(kernel.getxattr(entry.nodeid, b"user.no"))
                    if found not in (errno.ENODATA, errno.EOPNOTSUPP):
                        wrong.append(found)
                    if handlers.backing.stat(entry.nodeid).st_size != len(data):
                        wrong.append("size")
                except OSError as error:
                    wrong.append(error)

        async with trio.open_nursery() as nursery:
            for start in range(0, 120, 8):
                nursery.start_soon(work, start)
        assert wrong == []


# --- overwriting denied while a handler writes --------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
async def test_two_writes_behind_the_end_do_not_overwrite_each_other(
    source: Path, plain: bool
) -> None:
    """Both begin at the end of the file; when it is the second one's turn, it is not any more."""
    (source / "log").write_bytes(b"data")

    class Slow(Handlers):
        async def write(self, fh: int, off: int, buf: bytes) -> int:
            await trio.sleep(0.05)
            return await super().write(fh, off, buf)

    class Plain(Handlers):
        def write(self, fh: int, off: int, buf: bytes) -> int:  # type: ignore[override]
            return self.daemon.write(fh, off, buf)

    handlers = Plain() if plain else Slow()
    policy = "version: 1\nrules:\n- {match: {path: log}, handle: write, deny: overwrite}\n"
    async with fake_mount(handlers, source=source, policy=policy) as kernel:
        entry = await kernel.lookup(1, b"log")
        opened = await kernel.open(entry.nodeid, os.O_WRONLY)
        answers = [
            await kernel.start(
                Op.WRITE,
                entry.nodeid,
                bodies.Write(opened.handle, 4, 4, 0, 0, os.O_WRONLY, memoryview(data)),
            )
            for data in (b"1st.", b"2nd.")
        ]
        written = 0
        for answer in answers:  # which of them is first nobody says
            try:
                await answer.payload()
                written += 1
            except PermissionError:
                pass
        assert written == 1
        assert await kernel.write(opened.handle, 8, b"3rd.", nodeid=entry.nodeid) == 4
    assert (source / "log").read_bytes() in (b"data1st.3rd.", b"data2nd.3rd.")
