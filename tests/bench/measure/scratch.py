"""The temporary directory of a run: source trees, lists of names, and the compiled client."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from bench.measure.programs import BenchError, run

BENCH = Path(__file__).resolve().parents[1]
_PER_DIRECTORY = 100
_CONTENT = b"inopt " * 170  # about 1 KB, a small file


@dataclass(frozen=True)
class Sizes:
    """How much work there is."""

    files: int = 20_000
    opened: int = 5_000
    created: int = 5_000
    archived: int = 3_000
    inodes: int = 200_000
    data_mebibytes: int = 128
    fio_seconds: float = 1.5
    idle_seconds: float = 5.0

    @classmethod
    def quick(cls) -> Sizes:
        """A small run, to see that everything works; its numbers mean little."""
        return cls(2_000, 500, 500, 300, 20_000, 32, 0.5, 1.0)


class Scratch:
    """Everything that a run puts on disk, in *top*.

    ``source`` is what contenders mount: ``many`` (files to look at), ``created`` and ``untarred``
    (empty), ``data`` (one large file for fio). ``inodes`` is the tree for the memory measurement.
    """

    def __init__(self, top: Path, sizes: Sizes) -> None:
        self.top = top
        self.sizes = sizes
        self.source = top / "source"
        self.inodes = top / "inodes"
        self.mountpoint = top / "mnt"
        self.names = top / "names"
        self.opened = top / "names-opened"
        self.archive = top / "archive.tar"
        for directory in (self.source, self.mountpoint, self.source / "created"):
            directory.mkdir(parents=True)
        (self.source / "untarred").mkdir()
        names = make_files(self.source / "many", sizes.files, "many/")
        self.names.write_text("".join(f"{name}\n" for name in names))
        self.opened.write_text("".join(f"{name}\n" for name in names[: sizes.opened]))
        with (self.source / "data").open("wb") as data:
            for _ in range(sizes.data_mebibytes):
                data.write(os.urandom(1 << 20))
        make_files(top / "archived", sizes.archived, "")
        with tarfile.open(self.archive, "w") as archive:
            archive.add(top / "archived", "archived")
        self.client = compile_client(top)
        os.sync()

    def clean(self) -> None:
        """Take away what workloads left, beneath the mounts, so that all start alike."""
        for name in ("created", "untarred"):
            shutil.rmtree(self.source / name, ignore_errors=True)
            (self.source / name).mkdir()

    def make_inodes(self) -> Path:
        """The tree for the memory measurement, made when first asked for; returns its names."""
        names = self.top / "names-inodes"
        if not names.exists():
            made = make_files(self.inodes, self.sizes.inodes, "")
            names.write_text("".join(f"{name}\n" for name in made))
        return names


def make_files(top: Path, count: int, prefix: str) -> list[str]:
    """Make *count* small files, a hundred in a directory; returns their names after *prefix*."""
    names = []
    for number in range(count):
        directory, file = divmod(number, _PER_DIRECTORY)
        if not file:
            (top / f"directory-{directory:04}").mkdir(parents=True)
        name = f"directory-{directory:04}/file-{file:03}.txt"
        (top / name).write_bytes(_CONTENT)
        names.append(prefix + name)
    return names


def compile_client(directory: Path) -> list[str]:
    """The command of the client: compiled from C, or the Python one where there is no compiler."""
    program = directory / "client"
    try:
        run(["cc", "-O2", "-o", str(program), str(BENCH / "client.c")])
    except BenchError as error:
        print(f"no C client ({error}): using the slower one in Python", file=sys.stderr)
        return [sys.executable, "-S", str(BENCH / "client.py")]
    return [str(program)]
