"""FORGET with handlers: they are told, and whatever they do, the kernel's counts are kept."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator, MutableSequence, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
import trio
from structlog.testing import LogCapture

from inopt import EntryAttributes, FUSEError, Handlers, readdir_reply
from inopt.backing.tree import Tree
from inopt.handlers.types import RequestContext
from inopt.session import elsewhere
from inopt.session.embedding import settings_for
from inopt.session.policing import prepare
from inopt.testing import FakeKernel, fake_mount

_ROOT: Final = 1
_PLAIN = [False, True]

# What a handler does when it is told, with itself and the list.
Act = Callable[[Any, Sequence[tuple[int, int]]], None]


class Tells(Handlers):
    """Does what it is told to do when it is told of forgotten inodes."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.told: list[list[tuple[int, int]]] = []

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        await trio.sleep(0.01)
        self.told.append(list(inode_list))
        self.act(self, inode_list)


class TellsPlainly(Tells):
    """The same in a plain method."""

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> Any:
        self.told.append(list(inode_list))
        self.act(self, inode_list)


def handlers_that(act: Act, plain: bool) -> Tells:
    return TellsPlainly(act) if plain else Tells(act)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("file", "other", "third"):
        (tmp_path / name).write_bytes(b"data")
    return tmp_path


@pytest.fixture
def logs() -> Iterator[MutableSequence[Any]]:
    capture = LogCapture()
    earlier = structlog.get_config()
    structlog.configure(processors=[structlog.processors.format_exc_info, capture])
    yield capture.entries
    structlog.configure(**earlier)


def lookups(kernel: FakeKernel, nodeid: int) -> int:
    """How many lookups of an inode are counted; 0 if it is not known."""
    inode = kernel.session._context.tree.table.get_or_none(nodeid)
    assert inode is None or inode.lookups > 0
    return 0 if inode is None else inode.lookups


async def settled(check: Callable[[], bool]) -> None:
    """FORGET is not answered: wait until it has been served."""
    with trio.fail_after(240):
        while not check():  # noqa: ASYNC110 - nobody tells of it
            await trio.sleep(0.005)


async def errno_of(call: Awaitable[object]) -> int:
    try:
        await call
    except OSError as error:
        return error.errno or -1
    return 0


def nothing(_handlers: Any, _items: Sequence[tuple[int, int]]) -> None:
    return


def daemon_once(handlers: Any, items: Sequence[tuple[int, int]]) -> None:
    handlers.daemon.forget(items)


def daemon_often(handlers: Any, items: Sequence[tuple[int, int]]) -> None:
    for _ in range(3):
        handlers.daemon.forget([(inode, 100 * count) for inode, count in items])


def fails(_handlers: Any, _items: Sequence[tuple[int, int]]) -> None:
    raise ZeroDivisionError("a bug")


def refuses(handlers: Any, items: Sequence[tuple[int, int]]) -> None:
    daemon_once(handlers, items)
    raise FUSEError(errno.EPERM)


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize("act", [nothing, daemon_once, daemon_often, fails, refuses])
async def test_counts_go_once_whatever_a_handler_does(source: Path, act: Act, plain: bool) -> None:
    handlers = handlers_that(act, plain)
    async with fake_mount(handlers, source=source) as kernel:
        inode, other = [(await kernel.lookup(_ROOT, name)).nodeid for name in (b"file", b"other")]
        for _ in range(4):
            await kernel.lookup(_ROOT, b"file")
        await kernel.forget(inode, 2)
        await settled(lambda: lookups(kernel, inode) == 3)
        assert handlers.told == [[(inode, 2)]]
        await kernel.batch_forget([(inode, 1), (other, 1)])
        await settled(lambda: lookups(kernel, other) == 0)
        assert handlers.told[1:] == [[(inode, 1), (other, 1)]]
        assert lookups(kernel, inode) == 2
        assert (await kernel.getattr(inode)).attributes.size == 4
        await kernel.forget(inode, 2)
        await settled(lambda: lookups(kernel, inode) == 0)
        assert await errno_of(kernel.getattr(inode)) == errno.ESTALE
        # And the other way round: nothing is kept for ever.
        assert kernel.session.stats()["known_inodes"] == 1


@pytest.mark.parametrize("plain", _PLAIN)
async def test_the_inode_and_its_state_are_there_until_the_end(source: Path, plain: bool) -> None:
    seen: list[Any] = []

    def look(handlers: Any, items: Sequence[tuple[int, int]]) -> None:
        ((inode, _),) = items
        note = handlers.backing.inode_state(inode).get("note")
        opcode = handlers.session.request().opcode.name
        seen.append((note, handlers.backing.stat(inode).st_size, opcode))

    handlers = handlers_that(look, plain)
    async with fake_mount(handlers, source=source) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        handlers.backing.inode_state(inode)["note"] = "mine"
        await kernel.forget(inode)
        await settled(lambda: lookups(kernel, inode) == 0)
        assert seen == [("mine", 4, "FORGET")]
        assert (await kernel.lookup(_ROOT, b"file")).nodeid == inode
        assert handlers.backing.inode_state(inode) == {}


@pytest.mark.parametrize("plain", _PLAIN)
async def test_a_failure_is_told_once(
    source: Path, logs: MutableSequence[Any], plain: bool
) -> None:
    handlers = handlers_that(fails, plain)
    async with fake_mount(handlers, source=source) as kernel:
        for _ in range(3):
            inode = (await kernel.lookup(_ROOT, b"file")).nodeid
            await kernel.forget(inode)
            await settled(partial(lambda nodeid: lookups(kernel, nodeid) == 0, inode))
        records = [each for each in logs if "forget failed" in each["event"]]
        assert len(records) == 1
        assert "a bug" in records[0]["exception"]
        assert records[0]["log_level"] == "error"


async def test_what_comes_between_is_counted(source: Path) -> None:
    """An async method takes its time; the kernel may look the inode up again meanwhile."""
    handlers = handlers_that(nothing, False)
    async with fake_mount(handlers, source=source) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        await kernel.forget(inode)
        assert (await kernel.lookup(_ROOT, b"file")).nodeid == inode
        await settled(lambda: len(handlers.told) == 1 and lookups(kernel, inode) == 1)
        assert (await kernel.getattr(inode)).attributes.size == 4


async def test_without_an_own_method_nobody_is_asked(source: Path) -> None:
    class Else(Handlers):
        async def statfs(self, ctx: Any) -> Any:
            return await super().statfs(ctx)

    async with fake_mount(Else(), source=source) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        await kernel.forget(inode)
        await kernel.statfs()
        assert lookups(kernel, inode) == 0
        assert [each.route for each in kernel.requests if each.name == "FORGET"] == ["daemon"]


@pytest.mark.parametrize("plain", _PLAIN)
@pytest.mark.parametrize("act", [nothing, daemon_once, daemon_often, fails])
async def test_on_pyfuse3(source: Path, act: Act, plain: bool) -> None:
    """The same counts, by the methods that pyfuse3 calls."""
    handlers = handlers_that(act, plain)
    settings = settings_for(handlers, source, "/nowhere", policy="version: 1\nrules: []\n")
    prepared = prepare(settings.policy, settings)
    context = elsewhere._context(Tree(str(source), 256), prepared, settings)
    handlers.daemon = elsewhere.OpenersDaemon(context)
    operations = elsewhere.Elsewhere(elsewhere.GatedDaemon(context, ()), handlers)
    table = context.tree.table
    try:
        for _ in range(3):
            entry = await operations.lookup(_ROOT, b"file", RequestContext(0, 0, 1))
        inode = table.get(entry.st_ino)
        await operations.forget([(inode.nodeid, 1)])
        assert inode.lookups == 2
        assert handlers.told == [[(inode.nodeid, 1)]]
        # A lookup of the handler's own.
        handlers.daemon.lookup(_ROOT, b"file", RequestContext(0, 0, 1))
        await operations.forget([(inode.nodeid, 2)])
        assert inode.lookups == 1
        handlers.daemon.forget([(inode.nodeid, 1)])
        assert inode.nodeid not in table
    finally:
        context.close()


# --- lookups of the handlers' own --------------------------------------------------------------


class Holds(Handlers):
    """Keeps a lookup of each inode that it is asked for, and answers by attributes of its own."""

    for_any_policy = True

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.known: dict[bytes, int] = {}

    def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> Any:
        if name in self.known:
            return self.backing.stat(self.known[name])  # not looked up for this
        entry = self.daemon.lookup(parent_inode, name, ctx)
        if name != b"third":
            self.daemon.lookup(parent_inode, name, ctx)
            self.kept.append(entry.st_ino)
            self.known[name] = entry.st_ino
        return entry

    def give_back(self) -> None:
        self.daemon.forget([(inode, 1) for inode in self.kept])


async def test_lookups_of_handlers_are_told_apart_from_the_kernels(source: Path) -> None:
    handlers = Holds()
    async with fake_mount(handlers, source=source, policy=_lookups()) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        assert lookups(kernel, inode) == 2
        await kernel.forget(inode)
        await kernel.statfs()
        # The handler's own keeps it.
        assert lookups(kernel, inode) == 1
        assert handlers.backing.stat(inode).st_size == 4
        # An answer that was not looked up counts one for the kernel, or passes on the handler's.
        for _ in range(3):
            assert (await kernel.lookup(_ROOT, b"file")).nodeid == inode
        assert lookups(kernel, inode) == 3
        for _ in range(5):
            handlers.daemon.forget([(inode, 7)])
        assert lookups(kernel, inode) == 3
        await kernel.forget(inode, 3)
        await kernel.statfs()
        assert lookups(kernel, inode) == 0


async def test_what_handlers_give_back_is_theirs(source: Path) -> None:
    handlers = Holds()
    async with fake_mount(handlers, source=source, policy=_lookups()) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        handlers.give_back()
        assert lookups(kernel, inode) == 1
        handlers.give_back()
        assert lookups(kernel, inode) == 1
        await kernel.forget(inode)
        await kernel.statfs()
        assert lookups(kernel, inode) == 0


def _lookups() -> str:
    return "version: 1\nrules: [{handle: lookup}]\n"


class Lists(Handlers):
    """Lists only some of the entries, the way of docs/handlers.md."""

    def readdir(self, fh: int, start_id: int, token: Any) -> Any:
        for name, attributes, next_id in self.daemon.entries(fh, start_id):
            shown = name != b"other"
            if shown and readdir_reply(token, name, attributes, next_id):
                continue
            if attributes.st_ino:
                self.daemon.forget([(attributes.st_ino, 1)])
            if shown:
                return


class Invents(Handlers):
    """Lists attributes that were not looked up for the listing."""

    def readdir(self, fh: int, start_id: int, token: Any) -> Any:
        if start_id:
            return
        for number, inode in enumerate(self.listed, 1):
            readdir_reply(token, b"%d" % number, self.backing.stat(inode), number)

    listed: tuple[int, ...] = ()


@pytest.mark.parametrize("plus", [False, True])
async def test_listings_take_over_what_they_are_given(source: Path, plus: bool) -> None:
    policy = "version: 1\nrules: [{handle: readdir}]\n"
    async with fake_mount(Lists(), source=source, policy=policy) as kernel:
        handle = (await kernel.opendir()).handle
        if plus:
            page = await kernel.readdirplus(handle)
            names = {each.dirent.name: each.entry.nodeid for each in page}
            assert [lookups(kernel, names[name]) for name in (b"file", b"third")] == [1, 1]
            await kernel.batch_forget([(nodeid, 1) for nodeid in names.values() if nodeid])
            await kernel.statfs()
        else:
            names = {each.name: 0 for each in await kernel.readdir(handle)}
        assert sorted(names) == [b".", b"..", b"file", b"third"]
        assert kernel.session.stats()["known_inodes"] == 1


async def test_listings_of_what_was_not_looked_up(source: Path) -> None:
    handlers = Invents()
    policy = "version: 1\nrules: [{handle: readdir}]\n"
    async with fake_mount(handlers, source=source, policy=policy) as kernel:
        inode = (await kernel.lookup(_ROOT, b"file")).nodeid
        handlers.listed = (inode, inode)
        handle = (await kernel.opendir()).handle
        assert len(await kernel.readdir(handle)) == 2
        assert lookups(kernel, inode) == 1
        assert len(await kernel.readdirplus(handle)) == 2
        assert lookups(kernel, inode) == 3


async def test_failed_requests_give_back_what_they_looked_up(source: Path) -> None:
    class Fails(Handlers):
        async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
            await super().lookup(parent_inode, name, ctx)
            raise FUSEError(errno.EPERM)

    async with fake_mount(Fails(), source=source) as kernel:
        assert await errno_of(kernel.lookup(_ROOT, b"file")) == errno.EPERM
        assert kernel.session.stats()["known_inodes"] == 1
