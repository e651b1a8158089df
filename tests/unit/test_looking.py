"""A listing looks up what it lists, unless the kernel has just asked for each of the names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inopt import Handlers
from inopt.testing import FakeKernel, fake_mount

NAMES = [b"file-%d" % number for number in range(20)]
LONG = "version: 1\ncache: {entry: 1h, attributes: 1h}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name.decode()).write_bytes(name)
    return tmp_path


@pytest.fixture
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "long.yaml"
    path.write_text(LONG)
    return path


async def looked_up(kernel: FakeKernel) -> int:
    """How many entries of a listing are looked up as well."""
    opened = await kernel.opendir()
    page = await kernel.readdirplus(opened.handle)
    assert {plus.dirent.name for plus in page} >= set(NAMES), "all of them are listed"
    await kernel.releasedir(opened.handle)
    return sum(bool(plus.entry.nodeid) for plus in page)


async def test_what_the_kernel_has_asked_for_is_not_looked_up_again(
    tree: Path, policy: Path
) -> None:
    async with fake_mount(source=tree, policy=policy) as kernel:
        for name in NAMES:
            await kernel.lookup(1, name)
        assert await looked_up(kernel) == 0
        assert await looked_up(kernel) == len(NAMES), "but the next time it is"


async def test_few_names_do_not_count(tree: Path, policy: Path) -> None:
    async with fake_mount(source=tree, policy=policy) as kernel:
        for name in NAMES[:5]:
            await kernel.lookup(1, name)
        assert await looked_up(kernel) == len(NAMES)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("inopt.handlers.serve.looking.monotonic", lambda: now[0])
    return now


async def test_what_it_will_soon_not_believe_any_more_is(
    tree: Path, policy: Path, passing: list[float]
) -> None:
    async with fake_mount(source=tree, policy=policy) as kernel:
        for name in NAMES:
            await kernel.lookup(1, name)
        passing[0] += 1801
        assert await looked_up(kernel) == len(NAMES)


async def test_a_handler_gets_all_of_a_listing(tree: Path) -> None:
    listed: list[Any] = []

    class Lists(Handlers):
        def statfs(self, ctx: Any) -> Any:
            handle = self.daemon.opendir(1, ctx)
            listed.extend(self.daemon.entries(handle, 0))
            return self.daemon.statfs(ctx)

    async with fake_mount(Lists(), source=tree) as kernel:
        for name in NAMES:
            await kernel.lookup(1, name)
        await kernel.statfs()
        inodes = {name: attributes.st_ino for name, attributes, _ in listed}
        assert all(inodes[name] for name in NAMES)
