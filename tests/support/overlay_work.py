"""What people do in a tree all day: in a mount of layers, and in a bare copy of the lower one.

Every piece of work is done in the tree's root, by names that are relative to it, so that two trees
are alike afterwards; what it returns must be alike, too.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.programs import STRANGER, sh, user_options

PACKAGES: Final = (
    "asyncio", "email", "encodings", "html", "http", "importlib", "json", "logging", "unittest",
    "urllib", "xml",
)  # fmt: skip
LONG_AGO: Final = 1_000_000_000
_GIT: Final = """\
[user]
	name = everyday
	email = everyday@localhost
[safe]
	directory = *
[core]
	logAllRefUpdates = false
[init]
	defaultBranch = main
[pack]
	threads = 1
[gc]
	auto = 0
"""
_MAKEFILE: Final = """\
objects := $(patsubst %.c,%.o,$(wildcard parts/*.c)) main.o
program: $(objects)
	$(CC) -o $@ $^
%.o: %.c include/sum.h
	$(CC) -O1 -Iinclude -c -o $@ $<
clean:
	rm -f program $(objects)
"""


@dataclass(frozen=True)
class Tools:
    """What work needs beside the tree: in *place*, made once."""

    place: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nobody's settings, and the same answers each time."""
        date = f"{LONG_AGO} +0000"
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "HOME": str(self.place),
            "GIT_CONFIG_GLOBAL": str(self.place / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_DATE": date,
            "PYTHONHASHSEED": "0",  # the order of sets shows in what is compiled
        }

    def run(self, root: Path, *command: str, user: int = 0) -> str:
        """Run a program in *root*; returns what it printed."""
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            command,
            cwd=root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **user_options(user),
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
        return str(done.stdout)

    def make(self) -> None:
        """Put it all in *place*."""
        (self.place / "gitconfig").write_text(_GIT)
        for version, count in (("0.9", 12), ("1.0", 15)):
            _make_wheel(self.place, version, count)
        _make_archive(self.place / "archive.tar")


def _make_wheel(place: Path, version: str, count: int) -> None:
    """A wheel of *count* modules. pip wants the files listed, but no checksums of them."""
    info = f"everyday-{version}.dist-info"
    files = {f"everyday/part{number}.py": f"NUMBER = {number}\n" for number in range(count)}
    files["everyday/__init__.py"] = f"VERSION = '{version}'\n"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: everyday\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(place / f"everyday-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def _make_archive(path: Path) -> None:
    """Files of several owners and modes, hard links, symbolic links, a fifo."""
    with tarfile.open(path, "w") as archive:

        def add(
            name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: int
        ) -> None:
            entry = tarfile.TarInfo(f"unpacked/{name}")
            entry.type, entry.size, entry.mtime = kind, len(content), LONG_AGO
            entry.mode = more.get("mode", 0o644)
            entry.uid = entry.gid = more.get("owner", 0)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = "unpacked/plain-1" if kind == tarfile.LNKTYPE else "plain-2"
            archive.addfile(entry, io.BytesIO(content))

        add("", tarfile.DIRTYPE, mode=0o755)
        add("sticky", tarfile.DIRTYPE, mode=0o1777, owner=STRANGER)
        for number in range(60):
            add(f"plain-{number}", content=bytes([number]) * 1000 * number, owner=number % 3)
        add("program", content=b"#!/bin/sh\n", mode=0o4755)
        add("sticky/secret", content=b"secret", mode=0o600, owner=STRANGER)
        add("linked", tarfile.LNKTYPE)
        add("symbolic", tarfile.SYMTYPE, mode=0o777)
        add("fifo", tarfile.FIFOTYPE, mode=0o640)


def make_tree(root: Path, tools: Tools) -> None:
    """Fill a lower layer, and make all of it long ago."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in PACKAGES:
        _copy_sources(library / name, root / "python" / name)
    parts, include = root / "project/parts", root / "project/include"
    parts.mkdir(parents=True)
    include.mkdir()
    (root / "project/Makefile").write_text(_MAKEFILE)
    names = [f"part{number}" for number in range(8)]
    (include / "sum.h").write_text("".join(f"int {name}(int);\n" for name in names))
    for number, name in enumerate(names):
        text = f'#include "sum.h"\nint {name}(int x) {{ return x * {number}; }}\n'
        (parts / f"{name}.c").write_text(text)
    calls = " + ".join(f"{name}(2)" for name in names)
    main = f'int main(void) {{ return !printf("%d\\n", {calls}); }}\n'
    (root / "project/main.c").write_text(f'#include <stdio.h>\n#include "sum.h"\n{main}')
    (root / "data").mkdir()
    for name in ("journal", "wal"):
        with closing(sqlite3.connect(root / f"data/{name}.db", isolation_level=None)) as base:
            base.execute(f"pragma journal_mode={'wal' if name == 'wal' else 'delete'}")
            base.execute("create table things (number integer primary key, text)")
            rows = ((number, f"thing {number}" * 9) for number in range(2000))
            base.execute("begin")
            base.executemany("insert into things values (?, ?)", rows)
            base.execute("commit")
    (root / "settings").mkdir()
    for number in range(40):
        (root / f"settings/{number}.conf").write_text(f"host = old\nport = {number}\n" * 20)
    (root / "home").mkdir()
    shutil.copytree(root / "python/json", root / "home/json")
    tools.run(root, "git", "init", "-q", "repository")
    _copy_sources(library / "email", root / "repository/email")
    for words in (["add", "."], ["commit", "-qm", "first"]):
        tools.run(root / "repository", "git", *words)
    if _why_no_pip() is None:
        (root / "python/site").mkdir()
        _pip(root, tools, "0.9")
    sh("chown", "-R", f"{STRANGER}:{STRANGER}", str(root / "home"))
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            os.utime(os.path.join(folder, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(root, (LONG_AGO, LONG_AGO))


def _copy_sources(source: Path, target: Path) -> None:
    """The .py files only: a few hundred will do."""
    for path in sorted(source.rglob("*.py")):
        made = target / path.relative_to(source)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(path.read_bytes())


def _why_no_pip() -> str | None:
    done = sh(sys.executable, "-c", "import pip", check=False)
    return None if done.returncode == 0 else "no pip"


def _pip(root: Path, tools: Tools, version: str) -> None:
    tools.run(
        root, sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-compile",
        "--disable-pip-version-check", "--no-cache-dir", "--root-user-action=ignore", "--upgrade",
        "--target", "python/site", str(tools.place / f"everyday-{version}-py3-none-any.whl"),
    )  # fmt: skip


def _compile(root: Path, tools: Tools) -> object:
    places = [f"python/{name}" for name in ("email", "json", "logging", "urllib")]
    tools.run(root, sys.executable, "-m", "compileall", "-q", *places)
    code = "import json, email; print(json.__cached__, email.__file__)"
    return tools.run(root / "python", sys.executable, "-c", code).replace(str(root), "ROOT")


def _install(root: Path, tools: Tools) -> object:
    if reason := _why_no_pip():
        print(f"pip install left out: {reason}")
        return None
    _pip(root, tools, "1.0")
    code = "import everyday.part14; print(everyday.VERSION)"
    return tools.run(root / "python/site", sys.executable, "-B", "-c", code)


def _commit(root: Path, tools: Tools) -> object:
    """In a repository of the lower layer, in a clone of it, and in a new one."""

    def git(place: str, *words: str, user: int = 0) -> str:
        return tools.run(root / place, "git", *words, user=user)

    with (root / "repository/email/message.py").open("a") as file:
        file.write("# changed\n")
    (root / "repository/email/charset.py").unlink()
    (root / "repository/new.py").write_text("new\n")
    said = [git("repository", "status", "--porcelain")]
    git("repository", "add", "-A")
    git("repository", "commit", "-qm", "second")
    git("repository", "checkout", "-q", "-b", "side", "HEAD^")
    git("repository", "checkout", "-q", "main")
    git(".", "clone", "-q", "repository", "cloned")
    git("cloned", "remote", "set-url", "origin", "../repository")
    git("home", "clone", "-q", "--no-hardlinks", "../repository", "cloned", user=STRANGER)
    git("home/cloned", "remote", "set-url", "origin", "../../repository", user=STRANGER)
    git("repository", "gc", "-q", "--prune=now")
    git(".", "init", "-q", "begun")
    (root / "begun/one").write_text("one\n")
    git("begun", "add", ".")
    git("begun", "commit", "-qm", "one")
    for place in ("repository", "cloned", "home/cloned", "begun"):
        said += [git(place, *words) for words in (
            ["fsck", "--strict"], ["status", "--porcelain"], ["log", "--oneline"],
            ["ls-files", "--stage"],
        )]  # fmt: skip
    return said


def _make(root: Path, tools: Tools) -> object:
    project = root / "project"
    tools.run(project, "make", "-j2")
    said = [tools.run(project, "./program")]
    text = (project / "parts/part3.c").read_text()
    (project / "parts/part3.c").write_text(text.replace("x * 3", "x * 30"))
    os.utime(project / "parts/part3.c", (LONG_AGO * 3, LONG_AGO * 3))  # newer than its object
    tools.run(project, "make", "-j2")
    os.utime(project / "parts/part3.c", (LONG_AGO, LONG_AGO))
    return [*said, tools.run(project, "./program"), tools.run(project, "make", "-q")]


def _query(root: Path, _tools: Tools) -> object:
    """A database of each kind of journal from below, and a new one; a reader beside the writer."""
    said: list[object] = []
    for name, journal in (("journal", "delete"), ("wal", "wal"), ("new", "wal")):
        path = root / f"data/{name}.db"
        with (
            closing(sqlite3.connect(path, isolation_level=None)) as writer,
            closing(sqlite3.connect(path, isolation_level=None)) as reader,
        ):
            said += writer.execute(f"pragma journal_mode={journal}").fetchall()
            writer.execute("create table if not exists things (number integer primary key, text)")
            count = "select count(*), max(number) from things"
            said += reader.execute(count).fetchall()
            for first in range(10_000, 10_400, 100):
                writer.execute("begin immediate")
                rows = ((number, "new" * 50) for number in range(first, first + 100))
                writer.executemany("insert into things values (?, ?)", rows)
                if journal == "wal":  # who reads is not kept waiting
                    said += reader.execute(count).fetchall()
                writer.execute("commit")
                said += reader.execute(count).fetchall()
            writer.execute("delete from things where number % 3 = 0")
            said += reader.execute("pragma integrity_check").fetchall()
            text = "\n".join(writer.iterdump())
            said.append(hashlib.sha256(text.encode()).hexdigest())
    return said


def _pack(root: Path, tools: Tools) -> object:
    """A directory of the lower layer is packed; what is unpacked, by root and by a user."""
    for words in (
        ["cf", "packed.tar", "python/xml"],
        ["cf", "home/packed.tar", "-C", "home", "json"],
    ):
        user = STRANGER if "home" in words else 0
        tools.run(root, "tar", *words, "--sort=name", user=user)
    for place, user in ((".", 0), ("home", STRANGER)):
        tools.run(root / place, "tar", "xf", str(tools.place / "archive.tar"), user=user)
    # Again, over what is there: everything is replaced.
    tools.run(root, "tar", "xf", str(tools.place / "archive.tar"))
    tools.run(root / "home", "tar", "xf", "packed.tar", user=STRANGER)
    return tools.run(root, "tar", "df", str(tools.place / "archive.tar"))


def _copy(root: Path, tools: Tools) -> object:
    tools.run(root, "cp", "-a", "python/http", "copied")
    tools.run(root, "cp", "-a", "python/html/.", "python/http")
    tools.run(root / "home", "cp", "-a", "json", "also", user=STRANGER)
    tools.run(root, "mv", "python/urllib", "moved")  # by copying: it cannot be renamed
    tools.run(root, "mv", "moved", "again")  # and now it can
    tools.run(root, "ln", "settings/7.conf", "settings/linked")
    tools.run(root, "ln", "-s", "7.conf", "settings/symbolic")
    return None


def _remove(root: Path, tools: Tools) -> object:
    """A merged directory goes away, and another of its name comes."""
    (root / "python/unittest/added.py").write_text("added\n")
    tools.run(root, "rm", "-rf", "python/unittest")
    said = [os.path.lexists(root / "python/unittest")]
    (root / "python/unittest").mkdir()
    said.append(os.listdir(root / "python/unittest") == [])
    (root / "python/unittest/case.py").write_text("another\n")
    tools.run(root, "find", "python/encodings", "-name", "cp*", "-delete")
    return said


def _edit(root: Path, tools: Tools) -> object:
    names = [f"settings/{number}.conf" for number in range(0, 20, 2)]
    tools.run(root, "sed", "-i", "s/old/new/", *names)
    tools.run(root, "chmod", "-R", "g+w", "python/logging")
    tools.run(root, "chown", "-R", "2:3", "python/importlib")
    tools.run(root, "touch", "-d", "@1234567890", "settings/1.conf")
    tools.run(root, "truncate", "-s", "100", "settings/3.conf")
    tools.run(root, "sh", "-c", "echo more >> settings/5.conf")
    os.setxattr(root / "settings/9.conf", "user.colour", b"blue")
    return sorted(tools.run(root, "grep", "-rl", "host = new", "settings").split())


def _synchronise(root: Path, tools: Tools) -> object:
    if shutil.which("rsync") is None:
        print("rsync left out: not installed")
        return None
    tools.run(root, "rsync", "-a", "python/asyncio/", "synchronised/")
    tools.run(root, "rsync", "-a", "--delete", "python/json/", "python/asyncio/")
    return tools.run(root, "rsync", "-ani", "--delete", "python/json/", "python/asyncio/")


WORK: Final[dict[str, Callable[[Path, Tools], object]]] = {
    "compileall": _compile,
    "pip": _install,
    "git": _commit,
    "make": _make,
    "sqlite": _query,
    "tar": _pack,
    "cp, mv, ln": _copy,
    "rm": _remove,
    "sed": _edit,
    "rsync": _synchronise,
}
