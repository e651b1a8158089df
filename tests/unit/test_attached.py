"""Tier inode on a kernel in memory: what is attached at lookup, with which mask, and until when."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from inopt import Handlers, UsageError
from inopt.backing.attached import AttachedInodes, attached_to, reason_of
from inopt.backing.filesystems import kernel_number
from inopt.ops import Op, OpsMask
from inopt.testing import FakeKernel, fake_mount
from inopt.wire.kernel_side import Entry2Reply
from inopt.wire.uapi import FOPEN_DIRECT_IO, FOPEN_PASSTHROUGH, NotifyCode

V2: Final = (Op.READ, Op.WRITE, Op.GETATTR, Op.STATX, Op.SETATTR, Op.READDIR)
ALONE: Final = {Op.GETATTR, Op.STATX, Op.SETATTR, Op.READDIR}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "below").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@asynccontextmanager
async def kernel_with(
    source: Path, policy: str = "", handlers: Any = None, *, dialect: str = "ino-v2",
    accepts: Any = V2,
) -> AsyncIterator[FakeKernel]:  # fmt: skip
    text = "version: 1\n" + policy
    async with fake_mount(
        handlers, source=source, policy=text, bypass=dialect, accepts=accepts
    ) as kernel:
        yield kernel


async def look(kernel: FakeKernel, path: str) -> Entry2Reply:
    entry = await kernel.walk(path)
    assert isinstance(entry, Entry2Reply)
    return entry


def mask_of(kernel: FakeKernel, entry: Any) -> set[Op]:
    return set(kernel.masks[entry.backing_id]) if entry.backing_id else set()


def attached_in(kernel: FakeKernel) -> AttachedInodes:
    attached = kernel.session._context.attachments.attached
    assert attached is not None
    return attached


@pytest.mark.parametrize("path", ["file", "directory", "link", "fifo"])
async def test_each_type_is_attached_once_until_it_is_forgotten(source: Path, path: str) -> None:
    async with kernel_with(source) as kernel:
        first = await look(kernel, path)
        assert mask_of(kernel, first) == ALONE
        assert kernel.backing_ids[first.backing_id] == (source / path).lstat().st_ino
        again = await look(kernel, path)
        assert again.backing_id == first.backing_id
        assert list(kernel.backing_ids) == [first.backing_id], "never two for one inode"
        await kernel.forget(first.nodeid, 1)
        assert (await kernel.getattr(1)).attributes.inode
        assert first.backing_id in kernel.backing_ids
        await kernel.forget(first.nodeid, 1)
        await kernel.getattr(1)
        assert not kernel.backing_ids
        assert attached_in(kernel).count == 0


async def test_what_is_made_is_attached_by_its_first_entry(source: Path) -> None:
    async with kernel_with(source) as kernel:
        made = [
            await kernel.mknod(1, b"node", stat.S_IFREG | 0o600),
            await kernel.mkdir(1, b"new"),
            await kernel.symlink(1, b"symbolic", b"file"),
            (await kernel.create(1, b"created")).entry,
            (await kernel.tmpfile(1)).entry,
        ]
        for entry in made:
            assert isinstance(entry, Entry2Reply)
            assert mask_of(kernel, entry) == ALONE
        linked = await kernel.link(made[0].nodeid, 1, b"linked")
        assert isinstance(linked, Entry2Reply)
        assert isinstance(made[0], Entry2Reply)
        assert linked.backing_id == made[0].backing_id


async def test_opens_of_what_is_attached_bypass_by_the_same_id(source: Path) -> None:
    async with kernel_with(source) as kernel:
        entry = await look(kernel, "file")
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
            opened = await kernel.open(entry.nodeid, flags)
            assert opened.backing_id == entry.backing_id
            assert opened.open_flags & FOPEN_PASSTHROUGH
            assert bool(opened.open_flags & FOPEN_DIRECT_IO) == bool(flags & os.O_APPEND)
            await kernel.release(opened.handle, nodeid=entry.nodeid)
        await kernel.getattr(1)
        assert list(kernel.backing_ids) == [entry.backing_id], "it outlives the opens"


async def test_a_forget_may_come_before_the_last_release(source: Path) -> None:
    async with kernel_with(source) as kernel:
        entry = await look(kernel, "file")
        opened = await kernel.open(entry.nodeid)
        await kernel.forget(entry.nodeid, 1)
        await kernel.getattr(1)
        assert not kernel.backing_ids
        other = await look(kernel, "directory")  # may have got the number of what was given back
        await kernel.release(opened.handle, nodeid=entry.nodeid)
        await kernel.getattr(1)
        assert list(kernel.backing_ids) == [other.backing_id]


async def test_the_root_is_listed_by_what_opendir_names(source: Path) -> None:
    async with kernel_with(source) as kernel:
        first, second = await kernel.opendir(), await kernel.opendir()
        assert first.backing_id == second.backing_id
        assert first.open_flags & FOPEN_PASSTHROUGH
        assert set(kernel.masks[first.backing_id]) == {Op.READDIR}
        entry = await look(kernel, "directory")
        below = await kernel.opendir(entry.nodeid)
        assert (below.backing_id, below.open_flags & FOPEN_PASSTHROUGH) == (0, 0)
        # A kernel that asks for the listing all the same gets it.
        names = [each.name for each in await kernel.readdir(below.handle, nodeid=entry.nodeid)]
        assert b"below" in names


async def test_listings_with_attributes_attach_nothing(source: Path) -> None:
    async with kernel_with(source) as kernel:
        opened = await kernel.opendir()
        await kernel.readdirplus(opened.handle)
        assert list(kernel.backing_ids) == [opened.backing_id]


@pytest.mark.parametrize(
    ("policy", "path", "mask"),
    [
        ("rules: [{deny: chmod}]", "file", {Op.GETATTR, Op.STATX, Op.READDIR}),
        ("rules: [{match: {caller: {user: 7}}, deny: chown}]", "file",
         {Op.GETATTR, Op.STATX, Op.READDIR}),
        ("rules: [{match: {mode: setuid}, deny: utimens}]", "directory",
         {Op.GETATTR, Op.STATX, Op.READDIR}),
        ("rules: [{match: {path: /directory/secret}, visible: false}]", "directory",
         {Op.GETATTR, Op.STATX, Op.SETATTR}),
        # All opens of a regular file bypass that the kernel has.
        ("rules: [{deny: mmap}]", "file", set()),
        ("rules: [{deny: mmap}]", "directory", ALONE),
        ("rules: [{match: {path: file}, deny: overwrite}]", "file", set()),
        # That it may not be written is decided at open; truncate(2) is a SETATTR.
        ("rules: [{match: {type: file}, deny: write}]", "file",
         {Op.GETATTR, Op.STATX, Op.READDIR}),
    ],
)  # fmt: skip
async def test_masks_are_what_the_policy_gives(
    source: Path, policy: str, path: str, mask: set[Op]
) -> None:
    async with kernel_with(source, policy) as kernel:
        assert mask_of(kernel, await look(kernel, path)) == mask


class Opens(Handlers):
    for_any_policy = True

    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        return await super().open(inode, flags, ctx)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await super().read(fh, off, size)

    async def getattr(self, inode: int, ctx: Any) -> Any:
        return await super().getattr(inode, ctx)


@pytest.mark.parametrize("word", ["open", "read"])
async def test_files_whose_opens_a_handler_has_a_say_in(source: Path, word: str) -> None:
    async with kernel_with(source, f"rules: [{{handle: {word}}}]", Opens()) as kernel:
        assert (await look(kernel, "file")).backing_id == 0
        assert mask_of(kernel, await look(kernel, "directory")) >= ALONE - {Op.READDIR}


async def test_handled_attributes_are_not_the_kernels(source: Path) -> None:
    async with kernel_with(source, "rules: [{handle: getattr}]", Opens()) as kernel:
        assert mask_of(kernel, await look(kernel, "file")) == {Op.SETATTR, Op.READDIR}


async def test_set_id_files_need_a_kernel_that_knows_their_mode(source: Path) -> None:
    (source / "file").chmod(0o4755)
    async with kernel_with(source, "rules: [{handle: getattr}]", Opens()) as kernel:
        assert (await look(kernel, "file")).backing_id == 0
    async with kernel_with(source) as kernel:
        assert mask_of(kernel, await look(kernel, "file")) == ALONE


async def test_the_first_posting_may_have_open(source: Path) -> None:
    accepts = (*V2, Op.OPEN)
    async with kernel_with(source, dialect="ino-v1", accepts=accepts) as kernel:
        assert mask_of(kernel, await look(kernel, "file")) == {*ALONE, Op.OPEN}
    async with kernel_with(
        source, "rules: [{match: {path: file}, deny: write}]", dialect="ino-v1", accepts=accepts
    ) as kernel:
        mask = mask_of(kernel, await look(kernel, "file"))
        assert mask == {Op.GETATTR, Op.STATX, Op.READDIR}, "who opens is asked what for"


async def test_a_file_that_is_open_already_is_not_attached(source: Path) -> None:
    async with kernel_with(source) as kernel:
        attached = attached_in(kernel)
        with attached.paused():
            entry = await look(kernel, "file")
            assert entry.backing_id == 0
            opened = await kernel.open(entry.nodeid)
            assert opened.backing_id
        assert (await look(kernel, "file")).backing_id == 0, "its opens go by another id"
        await kernel.release(opened.handle, nodeid=entry.nodeid)
        assert (await look(kernel, "file")).backing_id


# --- names that the kernel must not do as much for ------------------------------------------------


async def test_a_name_made_underneath_in_a_stricter_place(source: Path) -> None:
    policy = "rules: [{match: {path: /directory/**}, deny: chmod}]"
    async with kernel_with(source, policy) as kernel:
        entry = await look(kernel, "file")
        assert Op.SETATTR in mask_of(kernel, entry)
        os.link(source / "file", source / "directory" / "other")
        directory = await look(kernel, "directory")
        with pytest.raises(OSError, match="cross-device"):
            await kernel.lookup(directory.nodeid, b"other")
        assert (await look(kernel, "file")).backing_id == entry.backing_id
        await kernel.forget(entry.nodeid, 2)
        other = await look(kernel, "directory/other")
        assert Op.SETATTR not in mask_of(kernel, other)


async def test_names_of_one_treatment_are_all_right(source: Path) -> None:
    policy = "rules: [{match: {path: /directory/**}, deny: chmod}]"
    async with kernel_with(source, policy) as kernel:
        entry = await look(kernel, "file")
        linked = await kernel.link(entry.nodeid, 1, b"linked")
        assert isinstance(linked, Entry2Reply)
        assert linked.backing_id == entry.backing_id
        assert (await look(kernel, "linked")).backing_id == entry.backing_id


# --- what cannot be attached ----------------------------------------------------------------------


async def test_another_device_below(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    below = tmp_path / "below"
    below.mkdir()
    await trio.run_process(["mount", "-t", "tmpfs", "below", str(below)])
    try:
        (below / "file").write_bytes(b"")
        async with kernel_with(tmp_path) as kernel:
            assert (await look(kernel, "below")).backing_id == 0
            entry = await look(kernel, "below/file")
            assert entry.backing_id == 0
            inode = kernel.session._context.tree.table.get(entry.nodeid)
            assert inode.attached == errno.EXDEV
            told = kernel.session.explain({"path": "/below/file"})["path"].live
            assert told["not_attached"] == reason_of(errno.EXDEV)
            opened = await kernel.open(entry.nodeid)
            assert opened.backing_id == 0, "the kernel compares the numbers there, too"
            await kernel.release(opened.handle, nodeid=entry.nodeid)
    finally:
        await trio.run_process(["umount", str(below)])


@pytest.mark.parametrize(
    ("number", "tried_again"), [(errno.ELOOP, False), (errno.ENFILE, True), (errno.ENOMEM, True)]
)
async def test_what_the_kernel_does_not_take(
    source: Path, number: int, tried_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kernel_with(source) as kernel:
        attached = attached_in(kernel)
        register = attached._register

        def refuse(*_: Any) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(attached, "_register", refuse)
        assert (await look(kernel, "file")).backing_id == 0
        monkeypatch.setattr(attached, "_register", register)
        assert bool((await look(kernel, "file")).backing_id) == tried_again


async def test_numbers_that_the_kernel_has_others_for(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an overlayfs without xino, or over the network."""
    monkeypatch.setattr("inopt.backing.attached.numbers_are_sure", lambda _kind: False)
    async with kernel_with(source) as kernel:
        assert (await look(kernel, "file")).backing_id, "they are alike here"
        monkeypatch.setattr("inopt.backing.attached.kernel_number", lambda _descriptor: 4711)
        assert (await look(kernel, "fifo")).backing_id == 0


def test_what_the_kernel_calls_an_inode(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH)
    try:
        assert kernel_number(descriptor) == tmp_path.stat().st_ino
    finally:
        os.close(descriptor)


# --- another policy -------------------------------------------------------------------------------


def pruned(kernel: FakeKernel) -> set[int]:
    """The nodeids that the kernel has been asked to forget."""
    found: set[int] = set()
    for code, payload in kernel.notifications:
        if code is NotifyCode.PRUNE:
            count = struct.unpack_from("<I", payload)[0]
            found |= set(struct.unpack_from(f"<{count}Q", payload, len(payload) - 8 * count))
    return found


async def test_a_narrower_policy_has_inodes_forgotten_first(source: Path) -> None:
    stricter = source.parent / "stricter.yaml"
    stricter.write_text("version: 1\nrules: [{match: {path: file}, deny: chmod}]\n")
    async with kernel_with(source) as kernel:
        file, fifo = await look(kernel, "file"), await look(kernel, "fifo")

        async def forget() -> None:
            while file.nodeid not in pruned(kernel):  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
            await kernel.forget(file.nodeid, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget)
            await kernel.session.reload(str(stricter))
        assert Op.SETATTR not in mask_of(kernel, await look(kernel, "file"))
        assert (await look(kernel, "fifo")).backing_id == fifo.backing_id


async def test_a_narrower_policy_is_refused_for_what_is_in_use(source: Path) -> None:
    stricter = source.parent / "stricter.yaml"
    stricter.write_text("version: 1\nrules: [{match: {path: file}, deny: chmod}]\n")
    async with kernel_with(source) as kernel:
        entry = await look(kernel, "file")
        with pytest.raises(UsageError, match=r"serves more of /file by itself .*setattr"):
            await kernel.session.reload(str(stricter))
        await kernel.setattr(entry.nodeid, mode=0o600)  # the old policy is in force
        assert mask_of(kernel, await look(kernel, "directory")) == ALONE, "attaching goes on"


async def test_a_policy_that_narrows_nothing_is_taken_at_once(source: Path) -> None:
    other = source.parent / "other.yaml"
    other.write_text("version: 1\nrules: [{match: {path: file}, deny: unlink}]\n")
    async with kernel_with(source) as kernel:
        entry = await look(kernel, "file")
        await kernel.session.reload(str(other))
        assert not pruned(kernel)
        inode = kernel.session._context.tree.table.get(entry.nodeid)
        attached = attached_to(inode)
        assert attached is not None
        assert attached.mask == OpsMask.of(*ALONE)


async def test_directories_that_are_to_be_cached_narrow_nothing(source: Path) -> None:
    """What the kernel serves of them since before is no less allowed for that."""
    other = source.parent / "other.yaml"
    other.write_text(
        "version: 1\ncache: {directory_attributes: cached}\n"
        "rules: [{match: {path: /nothing}, deny: chmod}]\n"
    )
    async with kernel_with(source) as kernel:
        entry = await look(kernel, "directory")
        await kernel.session.reload(str(other))
        assert not pruned(kernel)
        again = await look(kernel, "directory")
        assert again.backing_id == entry.backing_id
        assert mask_of(kernel, again) == ALONE
        await kernel.forget(entry.nodeid, 2)
        forgotten = await look(kernel, "directory")
        assert mask_of(kernel, forgotten) == ALONE - {Op.GETATTR, Op.STATX}
