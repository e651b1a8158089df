"""The example `transparent-zstd`: plain for programs, seekable zstd underneath."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import Mount, in_place, mounted
from support.waiting import within

zstandard = pytest.importorskip("zstandard")
pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "transparent-zstd"
MAGIC = b"\x28\xb5\x2f\xfd"
MEBI = 1 << 20


@pytest.fixture(scope="module")
def mount(host: None) -> Iterator[Mount]:
    with (
        in_place("zstd") as place,
        mounted(place / "back", place / "mnt", policy=EXAMPLE / "zstd.yaml") as made,
    ):
        yield made
        assert made.complaints() == []


def settled(mount: Mount) -> None:
    """RELEASE comes after close(2) has returned."""
    assert within(lambda: mount.stats()["open_files"] == 0)


def text(size: int, seed: int = 1) -> bytes:
    chance = random.Random(seed)
    words = [b"%x " % chance.getrandbits(24) for _ in range(500)]
    return b"".join(chance.choices(words, k=size // 5))[:size].ljust(size, b".")


def is_packed(mount: Mount, name: str) -> bool:
    settled(mount)
    with (mount.source / name).open("rb") as file:
        return file.read(4) == MAGIC


def test_written_read_and_listed(mount: Mount) -> None:
    content = text(5 * MEBI + 123)
    path = mount.path / "a.txt"
    path.write_bytes(content)
    assert is_packed(mount, "a.txt")
    below = mount.source / "a.txt"
    assert below.stat().st_size < len(content) * 3 // 4
    assert below.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert path.stat().st_size == len(content)
    assert path.read_bytes() == content
    # A frame at a time, or all of it by another program: these are ordinary zstd files.
    with below.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        assert reader.read() == content


def test_any_offset(mount: Mount) -> None:
    content = text(4 * MEBI + 77, 2)
    path = mount.path / "b.txt"
    path.write_bytes(content)
    assert is_packed(mount, "b.txt")
    chance = random.Random(3)
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT):
        descriptor = os.open(path, flags)
        try:
            for _ in range(100):
                offset = chance.randrange(len(content) + 100) // 512 * 512
                memory = mmap.mmap(-1, 8192)
                count = os.preadv(descriptor, [memory], offset)
                assert memory[:count] == content[offset : offset + 8192]
            assert os.lseek(descriptor, 5, os.SEEK_DATA) == 5
            assert os.lseek(descriptor, 5, os.SEEK_HOLE) == len(content)
            with pytest.raises(OSError, match="No such device"):
                os.lseek(descriptor, len(content), os.SEEK_DATA)
        finally:
            os.close(descriptor)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        assert pages[:] == content
    copy = mount.path / "copy.txt"
    shutil.copyfile(path, copy)
    subprocess.run(["cp", "--sparse=always", path, mount.path / "copy2.txt"], check=True)
    assert copy.read_bytes() == (mount.path / "copy2.txt").read_bytes() == content


def test_changing(mount: Mount) -> None:
    content = bytearray(text(2 * MEBI, 4))
    path = mount.path / "c.txt"
    path.write_bytes(content)
    inode = path.stat().st_ino
    os.link(path, mount.path / "c-again.txt")
    assert (mount.path / "c-again.txt").stat().st_size == len(content)
    assert is_packed(mount, "c.txt")
    with path.open("r+b") as file:
        file.seek(MEBI - 3)
        file.write(b"across")
        file.flush()
        content[MEBI - 3 : MEBI + 3] = b"across"
        assert not (mount.source / "c.txt").read_bytes().startswith(MAGIC)
        assert path.read_bytes() == content
        assert path.stat().st_size == len(content)
    assert is_packed(mount, "c.txt")
    assert path.read_bytes() == content
    with path.open("ab") as end:
        end.write(b"end")
    content += b"end"
    os.truncate(path, len(content) - 1)
    del content[-1:]
    assert is_packed(mount, "c.txt")
    assert path.read_bytes() == content
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[10:15] = content[10:15] = b"paged"
    assert is_packed(mount, "c.txt")
    assert path.read_bytes() == content == (mount.path / "c-again.txt").read_bytes()
    os.chmod(path, 0o600)
    assert path.stat().st_size == len(content)
    assert path.stat().st_ino == inode
    path.write_bytes(b"short")
    assert not is_packed(mount, "c.txt")
    assert path.read_bytes() == b"short"
    assert path.stat().st_size == 5


def test_listings_tell_plain_sizes(mount: Mount) -> None:
    folder = mount.path / "many"
    folder.mkdir()
    sizes = {}
    for number in range(50):
        sizes[f"{number}.txt"] = 10_000 + number
        (folder / f"{number}.txt").write_bytes(b"x" * (10_000 + number))
    settled(mount)
    time.sleep(1.1)  # what the kernel knew from before
    with os.scandir(folder) as entries:
        assert {entry.name: entry.stat().st_size for entry in entries} == sizes
    done = subprocess.run(["ls", "-l", folder], check=True, capture_output=True, text=True)
    listed = (line.split() for line in done.stdout.splitlines()[1:])
    assert {fields[8]: int(fields[4]) for fields in listed} == sizes


def test_what_looks_packed_is_what_was_written(mount: Mount) -> None:
    inner = zstandard.compress(text(100_000))
    for name, content in (("d.txt", inner), ("tiny.txt", MAGIC), ("random.txt", os.urandom(MEBI))):
        (mount.path / name).write_bytes(content)
        settled(mount)
        assert (mount.path / name).read_bytes() == content
        assert (mount.path / name).stat().st_size == len(content)
    (mount.path / "e.zst").write_bytes(inner)
    settled(mount)
    assert (mount.path / "e.zst").read_bytes() == (mount.source / "e.zst").read_bytes() == inner
    with pytest.raises(OSError, match="cross-device"):
        os.rename(mount.path / "e.zst", mount.path / "e.txt")


def test_what_others_have_made(mount: Mount) -> None:
    content = text(300_000, 5)
    one = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    (mount.source / "one.txt").write_bytes(one)
    assert (mount.path / "one.txt").read_bytes() == content
    assert (mount.path / "one.txt").stat().st_size == len(content)
    # Two frames, one without a size, and a damaged table: nothing is guessed, they are as they are.
    stream = zstandard.ZstdCompressor().compressobj()
    unsized = stream.compress(content) + stream.flush()
    for name, raw in (("two", one + one), ("unsized", unsized), ("cut", one[:-5]), ("junk", MAGIC)):
        (mount.source / name).write_bytes(raw)
        assert (mount.path / name).read_bytes() == raw
    damaged = bytearray(one)
    damaged[len(one) // 2] ^= 0xFF
    (mount.source / "damaged").write_bytes(damaged)
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "damaged").read_bytes()
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "damaged").open("r+b")
    assert (mount.source / "damaged").read_bytes() == damaged


def test_readers_and_writers_at_once(mount: Mount) -> None:
    path = mount.path / "busy.txt"
    blocks = [bytes([65 + number]) * 65536 for number in range(8)]
    path.write_bytes(b"".join(blocks))
    failures: list[object] = []
    ends = time.monotonic() + 3

    def rewrite() -> None:
        while time.monotonic() < ends:
            with path.open("r+b") as file:
                for block in blocks:
                    file.write(block)

    def read() -> None:
        while time.monotonic() < ends:
            if path.read_bytes() != b"".join(blocks) or path.stat().st_size != 8 * 65536:
                failures.append(len(path.read_bytes()))

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(work,)) for work in (rewrite, rewrite, read, read)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert is_packed(mount, "busy.txt")
