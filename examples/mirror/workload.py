"""Everyday work on a directory: what each step leaves behind or prints must not depend on where.

Reading steps go over the whole tree; writing steps stay in one scratch directory of it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SCRATCH = ".inopt-demo"
_ROWS = 2000
_BLOCK = 1 << 20
_WALKERS = 4


def generate_tree(root: Path, directories: int = 60, files: int = 50) -> None:
    """Fill *root* with a few thousand small files, some links among them."""
    for number in range(directories):
        directory = root / f"project-{number:02}" / "notes"
        directory.mkdir(parents=True)
        for index in range(files):
            text = f"note {index} of project {number}\n" * (index % 40 + 1)
            (directory / f"{index:03}.txt").write_text(text)
        (directory / "latest").symlink_to("000.txt")
        os.link(directory / "001.txt", directory / "001-again.txt")


def make_tarball(path: Path) -> None:
    """Pack a Python package of the standard library, the same bytes each time."""
    package = Path(os.__file__).parent / "email"
    with tarfile.open(path, "w") as tar:
        for file in sorted(package.rglob("*.py")):
            member = tar.gettarinfo(file, f"email_copy/{file.relative_to(package)}")
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime = 1_700_000_000
            with file.open("rb") as content:
                tar.addfile(member, content)


def untar(root: Path, tarball: Path) -> str:
    """Unpack an archive."""
    run(["tar", "-xf", str(tarball)], root / SCRATCH)
    return ""


def grep(root: Path, _: Path) -> str:
    """Search all files for a word."""
    command = ["grep", "-r", "-c", "--binary-files=text", "-e", "the", "."]
    return "\n".join(sorted(run(command, root, codes=(0, 1, 2)).splitlines()))


def python_import(root: Path, _: Path) -> str:
    """Import the unpacked package with a fresh interpreter."""
    code = "import email_copy.charset, email_copy.header; print(email_copy.header.MAXLINELEN)"
    return run([sys.executable, "-B", "-c", code], root / SCRATCH)


def sqlite(root: Path, _: Path) -> str:
    """Insert and query with a write-ahead log, which maps shared memory."""
    with sqlite3.connect(root / SCRATCH / "notes.db") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table notes(id integer primary key, text)")
        rows = ((f"note {number}",) for number in range(_ROWS))
        database.executemany("insert into notes(text) values(?)", rows)
        database.commit()
        answer = database.execute("select count(*), max(id), min(text) from notes").fetchone()
    database.close()
    return str(answer)


def dd(root: Path, _: Path) -> str:
    """Write 64 MiB and read it back."""
    path = root / SCRATCH / "large"
    target = ["if=/dev/zero", f"of={path}", "bs=1M", "count=64", "conv=fsync", "status=none"]
    run(["dd", *target], root)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def parallel_stat(root: Path, _: Path) -> str:
    """Stat everything from several threads."""
    paths = sorted(relative for relative, _ in walk(root))
    with ThreadPoolExecutor(_WALKERS) as pool:
        modes = list(pool.map(lambda path: (root / path).lstat().st_mode, paths))
    return hashlib.sha256(repr(list(zip(paths, modes, strict=True))).encode()).hexdigest()


STEPS: dict[str, Callable[[Path, Path], str]] = {
    "untar": untar,
    "grep -r": grep,
    "python import": python_import,
    "sqlite": sqlite,
    "dd": dd,
    "parallel stat": parallel_stat,
}


def run(command: list[str], directory: Path, codes: tuple[int, ...] = (0,)) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, check=False, text=True, errors="replace"
    )
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All paths below *root*, relative, with what lstat(2) tells."""
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory, name)
            yield str(path.relative_to(root)), path.lstat()


def fingerprint(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything that can be compared of a tree: attributes, and every byte of every file."""
    tree: dict[str, tuple[object, ...]] = {}
    for relative, status in walk(root):
        path = root / relative
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        size = None if stat.S_ISDIR(status.st_mode) else status.st_size
        facts = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink)
        tree[relative] = (*facts, size, content)
    return tree
