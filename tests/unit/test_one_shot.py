"""Dialects whose registrations are used up by one reply: which opens register what, and when."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyfuse3
import pytest
import trio

from inopt import FileInfo, FUSEError, Handlers
from inopt.backing.caller import RegisteringIdentity
from inopt.testing import FakeKernel, fake, fake_mount
from inopt.wire.kernel_side import OpenReply
from inopt.wire.uapi import FOPEN_DIRECT_IO, FOPEN_NOFLUSH

DIALECTS: Final = ("android", "rfc-v7")
_ROOT: Final = 1
_RFC_FLAG: Final = 1 << 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"0123456789")
    (tree / "other").write_bytes(b"")
    return tree


async def opened(
    kernel: FakeKernel, flags: int = os.O_RDONLY, name: bytes = b"file"
) -> tuple[int, OpenReply]:
    nodeid = (await kernel.lookup(_ROOT, name)).nodeid
    return nodeid, await kernel.open(nodeid, flags)


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for what a reader does after it has answered."""
    for _ in range(500):
        if holds():
            return
        await trio.sleep(0.01)
    raise AssertionError(what)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_each_open_registers_for_itself(source: Path, dialect: str) -> None:
    async with fake_mount(source=source, bypass=dialect, abi=dialect) as kernel:
        assert kernel.session.stats()["dialect"] == dialect
        assert kernel.session.stats()["tier"] == "rw"
        before = descriptors()
        handles = []
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_DIRECT):
            nodeid, reply = await opened(kernel, flags)
            assert reply.backing_id > 0
            assert not reply.open_flags & FOPEN_DIRECT_IO
            handles.append(reply)
        if dialect == "android":
            assert [reply.backing_id for reply in handles] == [1, 2, 3, 4]
            assert set(kernel.backing_ids.values()) == {os.stat(source / "file").st_ino}
        else:
            assert all(reply.open_flags & _RFC_FLAG for reply in handles)
        await until(lambda: descriptors() == before, "the daemon holds none of what it gave")
        for reply in handles:
            await kernel.release(reply.handle, nodeid=nodeid)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_is_registered(
    source: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened for what the client may do, but for appending: each write tells of that."""
    seen: list[tuple[int, int]] = []
    as_owner = RegisteringIdentity.run

    def run(self: RegisteringIdentity, owner: int, register: Callable[[], Any]) -> Any:
        for name in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{name}") and os.path.samefile(
                f"/proc/self/fd/{name}", source / "file"
            ):
                flags = next(
                    int(line.split()[1], 8)
                    for line in Path(f"/proc/self/fdinfo/{name}").read_text().splitlines()
                    if line.startswith("flags")
                )
                seen.append((owner, flags & (os.O_ACCMODE | os.O_APPEND | os.O_DIRECT | os.O_PATH)))
        return as_owner(self, owner, register)

    async with fake_mount(source=source, bypass=dialect, abi=dialect) as kernel:
        await opened(kernel)
        monkeypatch.setattr(RegisteringIdentity, "run", run)
        await opened(kernel, os.O_WRONLY | os.O_APPEND)
        await opened(kernel, os.O_RDWR | os.O_DIRECT)
        await opened(kernel, os.O_RDONLY | os.O_TRUNC)
    owner = os.geteuid()
    # The last: truncating takes an open for writing, whoever is to read by it.
    assert seen == [(owner, os.O_WRONLY), (owner, os.O_RDWR | os.O_DIRECT), (owner, os.O_RDWR)]
    assert (source / "file").read_bytes() == b""


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_creating(source: Path, dialect: str) -> None:
    async with fake_mount(source=source, bypass=dialect, abi=dialect) as kernel:
        for number, made in enumerate(
            (await kernel.create(_ROOT, b"new"), await kernel.tmpfile(_ROOT)), 1
        ):
            assert made.open.backing_id > 0
            if dialect == "android":
                assert made.open.backing_id == number
                assert kernel.backing_ids[number] == made.entry.attributes.inode
            await kernel.release(made.open.handle, nodeid=made.entry.nodeid)
        with pytest.raises(FileExistsError):
            await kernel.create(_ROOT, b"new", os.O_RDWR | os.O_EXCL)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_open_that_fails_registers_nothing(source: Path, dialect: str) -> None:
    policy = "version: 1\nrules:\n- {match: {path: /other}, deny: open}\n- bypass: all\n"
    async with fake_mount(source=source, bypass=dialect, abi=dialect, policy=policy) as kernel:
        before = descriptors()
        with pytest.raises(PermissionError):
            await opened(kernel, name=b"other")
        os.unlink(source / "file")
        with pytest.raises(FileNotFoundError):
            await opened(kernel)
        assert kernel.backing_ids == {}
        await until(lambda: descriptors() == before, "nothing is left open")


class Wishful(Handlers):
    """Opens as ``wish`` says, or fails once the daemon has opened."""

    wish: bool | None = None
    fails = False

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        info = await super().open(inode, flags, ctx)
        if self.fails:
            raise FUSEError(errno.EXDEV)
        info.bypass = self.wish
        return info


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_wishes(source: Path, dialect: str) -> None:
    handlers = Wishful()
    async with fake_mount(handlers, source=source, bypass=dialect, abi=dialect) as kernel:
        handlers.fails = True
        with pytest.raises(OSError, match="cross-device"):
            await opened(kernel)
        assert kernel.backing_ids == {}
        assert kernel.session.stats()["open_files"] == 0
        handlers.fails = False
        for wish, bypasses in ((None, True), (False, False), (True, True)):
            handlers.wish = wish
            nodeid, reply = await opened(kernel)
            assert bool(reply.backing_id) == bypasses
            assert await kernel.read(reply.handle, 2, 3, nodeid=nodeid) == b"234"
            await kernel.release(reply.handle, nodeid=nodeid)
        # Beside an open that bypasses, all do.
        handlers.wish = None
        nodeid, first = await opened(kernel)
        handlers.wish = False
        nodeid, second = await opened(kernel)
        assert first.backing_id
        assert second.backing_id
        assert second.handle != first.handle


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_wish_to_bypass_what_does_not(source: Path, dialect: str) -> None:
    handlers = Wishful()
    policy = "version: 1\nrules: [{handle: [open, read]}]\n"

    class Reading(Wishful):
        async def read(self, fh: int, off: int, size: int) -> bytes:
            return (await super().read(fh, off, size)).replace(b"0", b"x")

    handlers = Reading()
    async with fake_mount(
        handlers, source=source, bypass=dialect, abi=dialect, policy=policy
    ) as kernel:
        nodeid, reply = await opened(kernel)
        assert not reply.backing_id
        assert await kernel.read(reply.handle, 0, 2, nodeid=nodeid) == b"x1"
        await kernel.release(reply.handle, nodeid=nodeid)
        handlers.wish = True
        nodeid, reply = await opened(kernel)
        assert reply.backing_id


def refusing(number: int) -> Callable[..., int]:
    def refuse(*_arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


async def test_files_that_the_kernel_does_not_take(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a filesystem is not offered again, and its files are served like any other."""
    monkeypatch.setattr(fake._FakeDevice, "passthrough_open", refusing(errno.EINVAL))
    async with fake_mount(source=source, bypass="android") as kernel:
        nodeid, reply = await opened(kernel, os.O_RDWR | os.O_DIRECT)
        assert (reply.backing_id, reply.open_flags & ~FOPEN_NOFLUSH) == (0, 0)
        assert await kernel.read(reply.handle, 3, 2, nodeid=nodeid) == b"34", "unaligned"
        assert await kernel.write(reply.handle, 3, b"xy", nodeid=nodeid) == 2
        monkeypatch.undo()
        for name in (b"file", b"other"):
            _, reply = await opened(kernel, name=name)
            assert (reply.backing_id, reply.open_flags & ~FOPEN_NOFLUSH) == (0, 0)
        assert kernel.backing_ids == {}
        assert kernel.session.stats()["backing_ids"] == 0


async def test_a_registration_that_fails_for_now(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open is served without page cache, which would hide what its brothers write."""
    async with fake_mount(source=source, bypass="android") as kernel:
        nodeid, first = await opened(kernel)
        with monkeypatch.context() as patched:
            patched.setattr(fake._FakeDevice, "passthrough_open", refusing(errno.ENOMEM))
            _, second = await opened(kernel, os.O_RDWR)
        assert (second.backing_id, second.open_flags & FOPEN_DIRECT_IO) == (0, FOPEN_DIRECT_IO)
        assert await kernel.write(second.handle, 0, b"ab", nodeid=nodeid) == 2
        _, third = await opened(kernel)
        assert first.backing_id
        assert third.backing_id


async def test_a_policy_that_changes(source: Path, tmp_path: Path) -> None:
    """Mixtures are allowed: what bypasses goes on, and new opens do as the new policy says."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nhandlers: support.everything:PlainEverything\n")
    async with fake_mount(source=source, bypass="android", policy=path) as kernel:
        nodeid, first = await opened(kernel)
        assert first.backing_id
        path.write_text(
            "version: 1\nhandlers: support.everything:PlainEverything\nrules: [{handle: read}]\n"
        )
        await kernel.session.reload()
        nodeid, second = await opened(kernel)
        assert (second.backing_id, second.open_flags & FOPEN_DIRECT_IO) == (0, FOPEN_DIRECT_IO)
        for reply in (second, first):
            await kernel.release(reply.handle, nodeid=nodeid)
        _, third = await opened(kernel)
        assert (third.backing_id, third.open_flags & FOPEN_DIRECT_IO) == (0, 0)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_set_id_files(source: Path, dialect: str) -> None:
    """Who writes decides whether the bits stay, and a bypassed write does not tell who."""
    os.chmod(source / "file", 0o4711)
    async with fake_mount(source=source, bypass=dialect, abi=dialect) as kernel:
        nodeid, reply = await opened(kernel, os.O_RDWR)
        assert not reply.backing_id
        await kernel.release(reply.handle, nodeid=nodeid)
        _, reply = await opened(kernel)
        assert reply.backing_id


@pytest.mark.parametrize("dialect", ["ino-v1", "ino-v2"])
async def test_the_inode_tier_with_nothing_attached(source: Path, dialect: str) -> None:
    """Entries are of the kind that the kernel takes; opens bypass as in mainline."""
    async with fake_mount(
        source=source, bypass=dialect, abi=dialect, tier="inode",
        policy="version: 1\ncache: {negative: 1s}\n",
    ) as kernel:  # fmt: skip
        stats = kernel.session.stats()
        assert (stats["tier"], stats["dialect"]) == ("inode", dialect)
        wide = dialect == "ino-v2"
        for entry in (
            await kernel.lookup(_ROOT, b"file"),
            await kernel.lookup(_ROOT, b"missing"),
            await kernel.mkdir(_ROOT, b"made"),
            await kernel.symlink(_ROOT, b"link", b"file"),
            await kernel.mknod(_ROOT, b"node", 0o100644),
            (await kernel.create(_ROOT, b"new")).entry,
            (await kernel.tmpfile(_ROOT)).entry,
        ):
            assert (type(entry).__name__ == "Entry2Reply") == wide
            assert getattr(entry, "backing_id", 0) == 0
        _, one = await opened(kernel)
        _, other = await opened(kernel, os.O_RDWR)
        assert one.backing_id == other.backing_id > 0
        assert b"file" in await kernel.listdir()
