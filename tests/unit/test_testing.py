"""`inopt.testing`: the kernel in memory is one, and needs no privileges."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pyfuse3
import pytest
from support.programs import STRANGER, as_stranger

import inopt
from inopt import Handlers, UsageError
from inopt.ops import Op
from inopt.testing import Answer, fake_mount
from inopt.wire import bodies

_READS: Final = "version: 1\nrules:\n- {match: {path: /secret}, deny: open}\n- handle: read\n"


class Upper(Handlers):
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return (await super().read(fh, off, size)).upper()


async def test_requests_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "secret").write_bytes(b"data")
    async with fake_mount(Upper(), source=tmp_path, policy=_READS) as kernel:
        entry = await kernel.by(7, 8, 9).lookup(1, b"file")
        opened = await kernel.open(entry.nodeid, os.O_RDWR)
        assert await kernel.read(opened.handle, 0, 10, nodeid=entry.nodeid) == b"DATA"
        assert await kernel.write(opened.handle, 4, b"more", nodeid=entry.nodeid) == 4
        secret = await kernel.lookup(1, b"secret")
        with pytest.raises(PermissionError):
            await kernel.open(secret.nodeid)
        found = [(each.name, each.route, each.errno) for each in kernel.requests]
        assert found == [
            ("LOOKUP", "daemon", 0),
            ("OPEN", "daemon", 0),
            ("READ", "handler", 0),
            ("WRITE", "daemon", 0),
            ("LOOKUP", "daemon", 0),
            ("OPEN", "denied", errno.EACCES),
        ]
        header = kernel.requests[0].header
        assert (header.uid, header.gid, header.pid, header.nodeid) == (7, 8, 9, 1)
        assert kernel.requests[0].body == bodies.Lookup(b"file")
        assert bytes(kernel.requests[3].body.data) == b"more"
    assert (tmp_path / "file").read_bytes() == b"datamore"


async def test_a_filesystem_of_its_own() -> None:
    class Stock(pyfuse3.Operations):
        async def getattr(self, inode: Any, _ctx: Any = None) -> pyfuse3.EntryAttributes:
            entry = pyfuse3.EntryAttributes()
            entry.st_ino = inode
            entry.st_mode = 0o40755 if inode == 1 else 0o100644
            entry.st_size = inode
            return entry

        async def lookup(self, _parent: Any, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
            return await self.getattr(int(name), ctx)

    async with fake_mount(Stock()) as kernel:
        assert (await kernel.lookup(1, b"77")).nodeid == 77
        assert (await kernel.getattr(77)).attributes.size == 77
        assert (await kernel.statx(78)).attributes.size == 78
        with pytest.raises(OSError, match="not implemented"):
            await kernel.mkdir(1, b"d")
    with pytest.raises(UsageError, match="no backing tree"):
        async with fake_mount(Stock(), source="/"):
            raise AssertionError("it was mounted")


async def test_errors_come_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with fake_mount(Upper(), source=tmp_path):
            raise ZeroDivisionError
    with pytest.raises(UsageError, match="requires tier 'rw'"):
        async with fake_mount(source=tmp_path, policy="version: 1\nrequire: rw\n"):
            raise AssertionError("it was mounted")
    async with fake_mount(source=tmp_path, policy="version: 1\nrequire: rw\n", bypass=True):
        pass


async def test_answers_may_wait(tmp_path: Path) -> None:
    async with fake_mount(source=tmp_path) as kernel:
        answers = [await kernel.start(Op.STATFS, 1, bodies.Statfs()) for _ in range(50)]
        assert all(isinstance(answer, Answer) for answer in answers)
        for answer in reversed(answers):
            await answer.payload()
            assert answer.has_come


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def once() -> None:
        async with fake_mount(Upper(), source=tmp_path) as kernel:
            await kernel.create(1, b"file")
            await kernel.opendir()
        os.unlink(tmp_path / "file")

    await once()
    before = descriptors()
    for _ in range(5):
        await once()
    assert descriptors() <= before


async def test_a_class_may_override_a_part_of_a_word(tmp_path: Path) -> None:
    """Without a policy: ``create`` is also O_TMPFILE, ``setattr`` also inode flags."""

    class Part(Handlers):
        made = 0

        async def create(self, *arguments: Any) -> Any:
            self.made += 1
            return await super().create(*arguments)

        @inopt.plain
        def setattr(self, *arguments: Any) -> Any:
            self.made += 1
            return self.daemon.setattr(*arguments)

    handlers = Part()
    async with fake_mount(handlers, source=tmp_path) as kernel:
        made = await kernel.create(1, b"file")
        await kernel.setattr(made.entry.nodeid, mode=0o600)
        assert handlers.made == 2


_WITHOUT_ROOT: Final = """
import os, tempfile, trio
from inopt import Handlers
from inopt.testing import fake_mount

class Upper(Handlers):
    async def read(self, fh, off, size):
        return (await super().read(fh, off, size)).upper()

async def main():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        async with fake_mount(Upper(), source=place, bypass=True) as kernel:
            for asks in (kernel, kernel.by(77), kernel.by(os.getuid())):
                made = await asks.create(1, b"f", mode=0o666, umask=0o027)
                inode, handle = made.entry.nodeid, made.open.handle
                await asks.write(handle, 0, b"hello", nodeid=inode)
                assert await asks.read(handle, 0, 10, nodeid=inode) == b"HELLO"
                await asks.setattr(inode, size=2)
                await asks.mkdir(1, b"d")
                await asks.rmdir(1, b"d")
                await asks.unlink(1, b"f")
                print(os.getuid(), oct(made.entry.attributes.mode), made.entry.attributes.uid)

trio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_without_root() -> None:
    done = subprocess.run(
        [*as_stranger(), sys.executable, "-c", _WITHOUT_ROOT],
        capture_output=True, text=True, timeout=240, check=False, cwd="/",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{STRANGER} 0o100640 {STRANGER}\n" * 3
