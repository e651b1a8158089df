"""A listing looks up what it lists, unless that is known already, or nobody asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inopt import Handlers
from inopt.backing import files
from inopt.handlers.serve.looking import Readers
from inopt.testing import FakeKernel, fake_mount
from inopt.wire.kernel_replies import DirentPlus

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


NOBODY = 0
"""The process id of who is in another process namespace."""


async def listed(kernel: FakeKernel, *, pid: int) -> list[DirentPlus]:
    """What the root lists for process *pid*, without the dots."""
    reader = kernel.by(0, pid=pid)
    opened = await reader.opendir()
    page = await reader.readdirplus(opened.handle)
    await reader.releasedir(opened.handle)
    return [plus for plus in page if plus.dirent.name not in (b".", b"..")]


async def looked_up(kernel: FakeKernel, *, pid: int = NOBODY) -> int:
    """How many entries of a listing are looked up as well."""
    page = await listed(kernel, pid=pid)
    assert {plus.dirent.name for plus in page} >= set(NAMES), "all of them are listed"
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


ALL = len(NAMES)


async def test_for_who_never_asks_files_are_listed_by_name_alone(tree: Path) -> None:
    async with fake_mount(source=tree) as kernel:
        assert await looked_up(kernel, pid=7) == ALL - 1, "one is left out, to see"
        assert await looked_up(kernel, pid=7) == ALL - 1
        assert await looked_up(kernel, pid=7) == 0
        assert await looked_up(kernel, pid=8) == ALL - 1, "it is of one reader"
        assert await looked_up(kernel) == ALL


async def test_directories_and_what_may_be_one_are_always_looked_up(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "below").mkdir()
    async with fake_mount(source=tree) as kernel:
        for _ in range(3):
            page = await listed(kernel, pid=7)
        assert [plus.dirent.name for plus in page if plus.entry.nodeid] == [b"below"]
        # As from a filesystem that does not tell types.
        monkeypatch.setattr(files, "_parse", _without_types(files._parse))
        assert await looked_up(kernel, pid=7) == ALL + 1


def _without_types(parse: Any) -> Any:
    def parse_without(*arguments: Any) -> list[files.DirectoryEntry]:
        return [(number, offset, 0, name) for number, offset, _, name in parse(*arguments)]

    return parse_without


@pytest.mark.parametrize("earlier", [1, 2, 3])
async def test_who_asks_gets_all_looked_up_from_then_on(tree: Path, earlier: int) -> None:
    async with fake_mount(source=tree) as kernel:
        for _ in range(earlier):
            page = await listed(kernel, pid=7)
        left_out = next(plus.dirent.name for plus in page if not plus.entry.nodeid)
        await kernel.by(0, pid=7).lookup(1, left_out)
        for _ in range(4):
            assert await looked_up(kernel, pid=7) == ALL


async def test_to_go_down_is_not_to_ask(tree: Path) -> None:
    (tree / "below").mkdir()
    async with fake_mount(source=tree) as kernel:
        for _ in range(2):
            await listed(kernel, pid=7)
            await kernel.by(0, pid=7).lookup(1, b"below")
        assert await looked_up(kernel, pid=7) == 1, "the directory"


async def test_what_a_reader_does_is_forgotten_when_it_stops(
    tree: Path, passing: list[float]
) -> None:
    async with fake_mount(source=tree) as kernel:
        for _ in range(3):
            await listed(kernel, pid=7)
        passing[0] += 3
        assert await looked_up(kernel, pid=7) == ALL - 1, "the number may be another's by now"


def test_many_readers_take_no_room(passing: list[float]) -> None:
    readers = Readers()
    for thread in range(1, 10_000):
        passing[0] += 0.01
        readers.begin(thread)
    assert len(readers) < 1000
