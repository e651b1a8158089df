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
        assert made.entry.validity.attribute_seconds == 1
        assert (await kernel.getattr(made.entry.nodeid)).validity.attribute_seconds == 1
        assert kernel.notifications == [], "it knows nothing yet that could be wrong"
        await kernel.release(made.open.handle, nodeid=made.entry.nodeid)
        assert [code for code, _ in kernel.notifications] == [NotifyCode.INVAL_INODE]
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 3600
        opened = await kernel.open(made.entry.nodeid, os.O_RDWR)
        assert [code for code, _ in kernel.notifications] == [NotifyCode.INVAL_INODE] * 2
        assert (await kernel.lookup(1, b"file")).validity.attribute_seconds == 1
        await kernel.release(opened.handle, nodeid=made.entry.nodeid)
