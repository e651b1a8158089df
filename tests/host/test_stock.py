"""Filesystems written for pyfuse3 do the same under inopt's session as under pyfuse3 itself."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support.battery import Record, Stage
from support.clients import Clients, clients
from support.examples import examples_directory
from support.mounting import detach, inopt, mounts_below
from support.waiting import within

pytestmark = pytest.mark.host

# A program of its own for what takes arguments; the same lines end differently.
_PROGRAM: Final = """
import sys
sys.path.insert(0, {examples!r})
{imports}
filesystem = {made}
if sys.argv[1] == "inopt":
    import inopt
    inopt.run(filesystem, sys.argv[2])
else:
    import pyfuse3, trio
    options = {{*pyfuse3.default_options, "allow_other"}}
    pyfuse3.init(filesystem, sys.argv[2], options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()
"""


@contextmanager
def served(place: Path, command: list[str], name: str) -> Iterator[Path]:
    """A server in the foreground; unmounted and ended afterwards, without complaints."""
    path = place / name
    path.mkdir()
    with open(place / f"{name}.log", "w+b") as log:
        process = subprocess.Popen(
            [*command, str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
        )
        try:
            mounted = within(lambda: bool(mounts_below(path)) or process.poll() is not None)
            log.seek(0)
            assert mounted, log.read().decode()
            assert mounts_below(path), log.read().decode()
            os.stat(path)
            yield path
        finally:
            if mounts_below(path):
                detach(path)
            try:
                code = process.wait(240)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = -1
        log.seek(0)
        said = log.read().decode()
        assert code == 0, said
        assert "Traceback" not in said
        assert "[error" not in said


Scenario = Callable[[Stage], None]


def perform(scenario: Scenario, path: Path, people: Clients) -> list[Record]:
    stage = Stage(path, people)
    try:
        scenario(stage)
    finally:
        stage.leave()
    return stage.records


def same(one: list[Record], other: list[Record]) -> None:
    problems = [
        f"{mine.told()}: pyfuse3 {mine.result!r}, inopt {theirs.result!r}"
        for mine, theirs in zip(one, other, strict=True)
        if mine.result != theirs.result
    ]
    assert problems == []
    assert len(one) > 5


# --- hello.py ----------------------------------------------------------------------------------


def hello(stage: Stage) -> None:
    root = stage.client("root")
    root.listing(b".")
    root.listdir(b".")
    root.lstat(b".")
    root.lstat(b"message")
    root.times(b"message")
    root.read_file(b"message")
    root.read_file(b"nothing")
    root.open("f", b"message", os.O_RDONLY)
    root.pread("f", 5, 6)
    root.pread("f", 100, 12)
    root.fstat("f")
    root.open("w", b"message", os.O_RDWR)
    root.open("w", b"message", os.O_WRONLY)
    root.write_file(b"new", b"data")
    root.mkdir(b"new")
    root.symlink(b"a", b"new")
    root.link(b"message", b"new")
    root.unlink(b"message")
    root.rename(b"message", b"new")
    root.chmod(b"message", 0o600)
    root.truncate(b"message", 3)
    root.set_times(b"message", (1, 2), (3, 4))
    root.getxattr(b"message", "user.a")
    root.listxattr(b"message")
    root.setxattr(b"message", "user.a", b"b")
    root.readlink(b"message")
    root.access(b"message", os.R_OK)


# --- tmpfs.py ----------------------------------------------------------------------------------


def tmpfs(stage: Stage) -> None:
    root = stage.client("root")
    root.listing(b".")
    root.mkdir(b"d", 0o750)
    root.lstat(b"d")
    root.write_file(b"d/f", b"0123456789" * 1000)
    root.read_file(b"d/f")
    root.lstat(b"d/f")
    root.open("f", b"d/f", os.O_RDWR)
    root.pwrite("f", b"new", 5000)
    root.pread("f", 20, 4995)
    root.ftruncate("f", 6000)
    root.fstat("f")
    root.read_file(b"d/f")
    root.open("a", b"d/f", os.O_WRONLY | os.O_APPEND)
    root.write("a", b"at the end")
    root.close("a")
    root.pread("f", 100, 5990)
    root.close("f")
    root.symlink(b"d/f", b"link")
    root.readlink(b"link")
    root.read_file(b"link")
    root.link(b"d/f", b"hard")
    root.lstat(b"hard")
    root.listing(b"d")
    root.rename(b"hard", b"d/moved")
    root.rename(b"d/moved", b"d/f")
    root.read_file(b"d/f")
    root.mknod(b"fifo", stat.S_IFIFO | 0o640)
    root.lstat(b"fifo")
    root.mknod(b"device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    root.lstat(b"device")
    root.chmod(b"d/f", 0o4711)
    root.chown(b"d/f", 12, 34)
    root.set_times(b"d/f", (1, 2), (3, 4))
    root.times(b"d/f")
    root.rmdir(b"d")
    root.unlink(b"d/f")
    root.rmdir(b"d")
    root.listdir(b".")
    root.unlink(b"nothing")
    root.open("gone", b"gone", os.O_CREAT | os.O_RDWR, 0o600)
    root.write("gone", b"still here")
    root.unlink(b"gone")
    root.pread("gone", 20, 0)
    root.close("gone")
    root.mkdir(b"many")
    root.fill_directory(b"many", 300)
    root.listdir(b"many")
    root.umask(0o077)
    root.mkdir(b"masked", 0o777)
    root.lstat(b"masked")
    root.getxattr(b"d", "user.a")
    root.listxattr(b"d")


@pytest.mark.parametrize(
    ("module", "name", "scenario"),
    [("hello", "TestFs", hello), ("tmpfs", "Operations", tmpfs)],
)
def test_by_name(place: Path, module: str, name: str, scenario: Scenario) -> None:
    examples = examples_directory()
    with clients() as people:
        stock = [sys.executable, str(examples / f"{module}.py")]
        with served(place, stock, "stock") as path:
            expected = perform(scenario, path, people)
        path = place / "ours"
        path.mkdir()
        done = inopt(
            "mount", "mirror", "-", str(path), "--handlers", f"{module}:{name}", cwd=examples
        )
        assert done.returncode == 0, done.stderr
        try:
            found = perform(scenario, path, people)
            same(expected, found)
        finally:
            assert inopt("umount", str(path)).returncode == 0
            detach(path)


# --- passthroughfs.py --------------------------------------------------------------------------


def passthrough(stage: Stage) -> None:
    root, user = stage.clients("root", "user")
    for client in (root, user):
        name = client.name.encode()
        client.mkdir(name, 0o755)
        client.write_file(name + b"/f", b"0123456789" * 2000, 0o640)
        client.lstat(name + b"/f")
        client.read_file(name + b"/f")
        client.open("f", name + b"/f", os.O_RDWR)
        client.pwrite("f", b"new", 30_000)
        client.pread("f", 10, 29_998)
        client.fstat("f")
        client.ftruncate("f", 100)
        client.close("f")
        client.rename(name + b"/f", name + b"/g")
        client.link(name + b"/g", name + b"/h")
        client.symlink(b"g", name + b"/l")
        client.readlink(name + b"/l")
        client.listing(name)
        client.chmod(name + b"/g", 0o600)
        if client is root:
            client.set_times(name + b"/g", (1, 2), (3, 4))
            client.times(name + b"/g")
        client.unlink(name + b"/h")
        client.rmdir(name)
        client.filesystem(b".")
        client.mknod(name + b"/fifo", stat.S_IFIFO | 0o640)
        client.listdir(name)
        client.umask(0o027)
        client.write_file(name + b"/masked", b"")
        client.lstat(name + b"/masked")


def test_what_takes_an_argument(place: Path) -> None:
    examples = examples_directory()
    results = []
    with clients() as people:
        for how in ("stock", "inopt"):
            backing = place / f"backing-{how}"
            backing.mkdir()
            backing.chmod(0o777)
            program = place / f"program-{how}.py"
            text = _PROGRAM.format(
                examples=str(examples),
                imports="import passthroughfs",
                made=f"passthroughfs.Operations({str(backing)!r})",
            )
            program.write_text(text)
            with served(place, [sys.executable, str(program), how], f"mnt-{how}") as path:
                results.append(perform(passthrough, path, people))
    same(*results)


# --- how such filesystems are written ----------------------------------------------------------

_EARLY: Final = '''
import errno, os, stat
import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ROOT_INODE
from pyfuse3 import readdir_reply, invalidate_entry_async, invalidate_inode, notify_store
from pyfuse3 import terminate as end_it

class Early(pyfuse3.Operations):
    """Names bound early, a helper in another module, and methods that pyfuse3 lacks."""

    supports_dot_lookup = False
    inited = 0

    def __init__(self):
        super().__init__()
        self.forgotten = 0
        self.names = [b"%02d" % n for n in range(40)]

    def init(self):
        self.inited += 1

    async def getattr(self, inode, ctx=None):
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == ROOT_INODE else stat.S_IFREG | 0o644
        entry.st_nlink = 1
        entry.st_size = self.inited if inode == 2 else self.forgotten
        entry.attr_timeout = entry.entry_timeout = 300
        return entry

    async def lookup(self, parent, name, ctx):
        if name not in self.names:
            raise FUSEError(errno.ENOENT)
        return await self.getattr(self.names.index(name) + 2)

    async def forget(self, inode_list):
        self.forgotten += sum(count for _, count in inode_list)

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, fh, start_id, token):
        for number, name in enumerate(self.names[start_id:], start_id):
            if not readdir_reply(token, name, await self.getattr(number + 2), number + 1):
                return

    async def unlink(self, parent, name, ctx):
        self.names.remove(name)
        if name == b"39":
            end_it()

    async def setxattr(self, inode, name, value, ctx):
        if name == b"user.drop":
            self.names.remove(value)
            invalidate_entry_async(ROOT_INODE, value, ignore_enoent=True)
'''


def early(stage: Stage) -> None:
    root = stage.client("root")
    root.listdir(b".")
    root.listing(b".")
    root.lstat(b"00")
    root.lstat(b"05")
    root.setxattr(b"00", "user.drop", b"05")
    stage.note("05 is gone", within(lambda: not (stage.path / "05").exists()))
    root.listdir(b".")
    root.lstat(b"nothing")
    root.unlink(b"07")
    root.listdir(b".")


def test_names_that_are_bound_early(place: Path) -> None:
    (place / "early.py").write_text(textwrap.dedent(_EARLY))
    program = place / "program.py"
    program.write_text(
        _PROGRAM.format(examples=str(place), imports="import early", made="early.Early()")
    )
    results: list[list[Any]] = []
    with clients() as people:
        for how in ("stock", "inopt"):
            with served(place, [sys.executable, str(program), how], f"mnt-{how}") as path:
                results.append(perform(early, path, people))
                # terminate() ends both.
                people.close()
                (path / "39").unlink()
                assert within(lambda path=path: not mounts_below(path))  # type: ignore[misc]
    same(*results)


def test_init_is_called_once(place: Path) -> None:
    (place / "early.py").write_text(textwrap.dedent(_EARLY))
    program = place / "program.py"
    program.write_text(
        _PROGRAM.format(examples=str(place), imports="import early", made="early.Early()")
    )
    for how in ("stock", "inopt"):
        with served(place, [sys.executable, str(program), how], f"mnt-{how}") as path:
            assert (path / "00").stat().st_size == 1, how
