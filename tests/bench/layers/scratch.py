"""The temporary directory of a run: one lower layer, and what each measurement needs anew."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from bench.lab.workloads import Tree
from bench.measure.programs import run
from bench.measure.scratch import compile_client, make_files

_MAKEFILE = """\
objects := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(objects)
	cc -o $@ $^
%.o: %.c
	cc -O1 -Iinclude -c -o $@ $<
"""
_HEADERS = 20


@dataclass(frozen=True)
class Sizes:
    """How much work there is."""

    files: int = 4_000
    archived: int = 1_500
    sources: int = 100
    removed: int = 2_000
    copied: int = 50
    large_mebibytes: int = 1024
    data_mebibytes: int = 128

    @classmethod
    def quick(cls) -> Sizes:
        """A small run, to see that everything works; its numbers mean little."""
        return cls(500, 200, 10, 200, 5, 64, 32)


class Scratch:
    """Everything that a run puts on disk, in *top*.

    ``layers`` holds ``lower``, which stays as it is, and ``upper`` and ``work``, which are made
    anew for each mount. In the lower one: a repository (``tree``), a ``project`` to compile, 2,000
    files to remove, some of 1 MiB, a large one, and ``lower-data`` to read.
    """

    def __init__(self, top: Path, sizes: Sizes) -> None:
        self.sizes = sizes
        self.layers = top / "layers"
        self.lower = self.layers / "lower"
        self.upper = self.layers / "upper"
        self.mountpoint = top / "mnt"
        self.archive = top / "archive.tar"
        self.copied = top / "names-copied"
        self.large = top / "names-large"
        self._data = top / "upper-data"
        for directory in (self.lower, self.mountpoint, self.lower / "untarred"):
            directory.mkdir(parents=True)
        self.client = compile_client(top)
        self.tree = Tree(self.lower, "repository", self.client, sizes.files)
        self.tree.make()
        make_files(self.lower / "removed", sizes.removed, "")
        make_files(top / "archived", sizes.archived, "")
        with tarfile.open(self.archive, "w") as archive:
            archive.add(top / "archived", "archived")
        _make_project(self.lower / "project", sizes.sources)
        for path in (self.lower / "lower-data", self._data):
            _make_data(path, sizes.data_mebibytes)
        (self.lower / "copied").mkdir()
        names = [f"copied/file-{number:03}" for number in range(sizes.copied)]
        for name in names:
            _make_data(self.lower / name, 1)
        _make_data(self.lower / "large", sizes.large_mebibytes)
        self.copied.write_text("".join(f"{name}\n" for name in names))
        self.large.write_text("large\n")
        os.sync()

    def use_memory(self) -> None:
        """Fill as much of the page cache as the large file takes, and give it back.

        The host of a virtual machine finds memory for it when it is used for the first time, which
        takes up to ten times as long as the copy: whoever came first would pay for it.
        """
        path = self.layers / "memory"
        _make_data(path, self.sizes.large_mebibytes, bytes(1 << 20))
        path.unlink()

    def clean(self) -> None:
        """A new upper layer, with a file to read; nothing of earlier work is left to be written."""
        for name in ("upper", "work"):
            run(["rm", "-rf", str(self.layers / name)])
            (self.layers / name).mkdir()
        os.link(self._data, self.upper / "upper-data")
        os.sync()


def _make_data(path: Path, mebibytes: int, block: bytes = b"") -> None:
    block = block or os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(block)


def _make_project(top: Path, sources: int) -> None:
    """So many small sources, each of which includes some of the headers."""
    (top / "include").mkdir(parents=True)
    for number in range(_HEADERS):
        text = f"#pragma once\nstatic inline int h{number}(int x) {{ return x + {number}; }}\n"
        (top / f"include/h{number}.h").write_text(text)
    includes = "".join(f'#include "h{number}.h"\n' for number in range(_HEADERS))
    for number in range(sources):
        text = f"{includes}int f{number}(int x) {{ return h{number % _HEADERS}(x); }}\n"
        (top / f"source{number:03}.c").write_text(text)
    (top / "main.c").write_text("int f0(int);\nint main(void) { return f0(0); }\n")
    (top / "Makefile").write_text(_MAKEFILE)
