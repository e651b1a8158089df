"""How long the kernel is told to believe attributes, where that is long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inopt.testing import fake_mount
from inopt.wire.uapi import NotifyCode

_LONG = "version: 1\notherwise: bypass\ncache: {attributes: 1h}\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(_LONG)
    return tmp_path / "policy.yaml"


async def test_not_long_while_stores_may_move_times(tmp_path: Path, policy: Path) -> None:
    """The kernel does not notice what is stored through a mapping of a file that bypasses."""
    source = tmp_path / "source"
    source.mkdir()
    async with fake_mount(source=source, policy=policy, bypass=True) as kernel:
        made = await kernel.create(1, b"file", os.O_RDWR)
        assert kernel.backing_ids
        assert made.entry.validity.attribute_seconds == 0
        assert (await kernel.getattr(made.entry.nodeid)).validity.attribute_seconds == 0
        assert kernel.notifications == [], "it knows nothing yet that could be wrong"
        await kernel.release(made.open.handle, nodeid=made.entry.nodeid)
        assert kernel.notifications == [], "nor does it believe anything"
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 1, "a mapping stays"
        opened = await kernel.open(made.entry.nodeid, os.O_RDWR)
        assert [code for code, _ in kernel.notifications] == [NotifyCode.INVAL_INODE]
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 0
        await kernel.release(opened.handle, nodeid=made.entry.nodeid)
        (source / "file").chmod(0o4755)
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 0, "writes move bits"


async def test_long_where_nothing_can_be_stored(tmp_path: Path, policy: Path) -> None:
    """The kernel notices what it writes itself; a mapping needs an open for reading and writing."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"")
    async with fake_mount(source=source, policy=policy, bypass=True) as kernel:
        nodeid = (await kernel.lookup(1, b"file")).nodeid
        for flags in (os.O_RDONLY, os.O_WRONLY):
            await kernel.open(nodeid, flags)
            assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 3600
        assert kernel.notifications == []
        reader_and_writer = await kernel.open(nodeid, os.O_RDWR)
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 0
        await kernel.release(reader_and_writer.handle, nodeid=nodeid)
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 1
