"""The client of client.c in Python, for machines without a C compiler: slower, same interface."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time


def read_names(path: str) -> list[bytes]:
    with open(path, "rb") as names:
        return names.read().splitlines()


def stat_all(names: list[bytes]) -> int:
    for name in names:
        os.lstat(name)
    return len(names)


def stat_near(names: list[bytes]) -> int:
    for directory, some in itertools.groupby(names, os.path.dirname):
        opened = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        for name in some:
            os.stat(os.path.basename(name), dir_fd=opened, follow_symlinks=False)
        os.close(opened)
    return len(names)


def open_all(names: list[bytes]) -> int:
    for name in names:
        file = os.open(name, os.O_RDONLY)
        os.read(file, 1 << 20)
        os.close(file)
    return len(names)


def read_through(file: int) -> int:
    total = 0
    while block := os.pread(file, 1 << 20, total):
        total += len(block)
    return total


def read_file(name: str, at_random: bool) -> tuple[int, float]:
    """The bytes that were read, and when that began: what is read first is not timed."""
    file = os.open(name, os.O_RDONLY)
    blocks = read_through(file) // 4096
    start = time.monotonic()
    if not at_random:
        return sum(read_through(file) for _ in range(8)), start
    for _ in range(50_000):
        os.pread(file, 4096, random.randrange(blocks) * 4096)
    return 50_000 * 4096, start


def append_all(names: list[bytes]) -> int:
    for name in names:
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.write(file, b"x")
        os.close(file)
    return len(names)


def create_all(count: int) -> int:
    names = [f"created/file-{number:06}" for number in range(count)]
    for name in names:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    for name in names:
        os.unlink(name)
    return count


def walk(directory: str) -> int:
    found = 0
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        found += 1
        if os.lstat(path).st_mode & 0o170000 == 0o040000:
            found += walk(path)
    return found


def main() -> None:
    mode, root, argument = sys.argv[1:]
    names = read_names(argument) if mode in ("stat", "near", "open", "append") else []
    os.chdir(root)
    if mode == "open":
        stat_all(names)
    start = time.monotonic()
    if mode == "stat":
        count = stat_all(names)
    elif mode == "near":
        count = stat_near(names)
    elif mode == "open":
        count = open_all(names)
    elif mode in ("sequential", "random"):
        count, start = read_file(argument, mode == "random")
    elif mode == "append":
        count = append_all(names)
    elif mode == "create":
        count = create_all(int(argument))
    else:
        count = walk("many")
    print(count, time.monotonic() - start)


if __name__ == "__main__":
    main()
