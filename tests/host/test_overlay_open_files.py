"""A lower file that somebody has open is copied up: nobody meets EIO, nobody sees a mixture."""

import errno
import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import rawcalls
from support.mounting import in_place
from support.overlays import Layers, OverlayMount, mounted_by_us

from inopt.backing.kept import LIMIT

OLD = b"old" * 50_000
NEW = b"new" * 50_000
# What is read is the number of the read, from the beginning of the file.
COUNTING = """
from inopt import Handlers

class Counting(Handlers):
    count = 0

    async def read(self, fh, off, size):
        self.count += not off
        return b"%d" % self.count * size

    async def open(self, inode, flags, ctx):
        return self.daemon.open(inode, flags, ctx)
"""


@pytest.fixture(params=["none", "rw"])
def mount(request: pytest.FixtureRequest, host: None) -> Iterator[OverlayMount]:
    with in_place("open") as place:
        layers = Layers.made(place, 1)
        (layers.lowers[0] / "file").write_bytes(OLD)
        (layers.lowers[0] / "directory").mkdir()
        with mounted_by_us(layers, place / "mnt", "--tier", request.param) as mount:
            yield mount
            assert mount.complaints() == []


def goes_on_with_the_lower_file(mount: OverlayMount) -> bool:
    """Whether the kernel reads the lower file by itself for whoever has it open."""
    return bool(mount.stats()["tier"] == "rw")


def test_a_reader_and_a_writer(mount: OverlayMount) -> None:
    path = mount.path / "file"
    reader = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(reader, 10, 0) == OLD[:10]
        number = os.stat(path).st_ino
        with path.open("r+b") as writer:
            writer.write(NEW)
        expected = OLD if goes_on_with_the_lower_file(mount) else NEW
        assert os.pread(reader, len(OLD), 0) == expected
        assert path.read_bytes() == NEW
        assert os.stat(path).st_ino == number == os.fstat(reader).st_ino
    finally:
        os.close(reader)
    assert path.read_bytes() == NEW


def test_metadata_through_a_reader(mount: OverlayMount) -> None:
    path = mount.path / "file"
    reader = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(reader, 0o640)
        os.setxattr(reader, "user.mark", b"x")
        os.utime(reader, ns=(10**18, 10**18))
        for status in (os.fstat(reader), os.stat(path)):
            assert status.st_mode & 0o7777 == 0o640
            assert status.st_mtime_ns == 10**18
        assert os.getxattr(path, "user.mark") == b"x"
        assert os.pread(reader, len(OLD), 0) == OLD
        assert path.read_bytes() == OLD
    finally:
        os.close(reader)


def test_a_lower_file_is_read_once_at_most(mount: OverlayMount) -> None:
    def requests() -> int:
        return sum(mount.stats()["READ"].values())

    path = mount.path / "file"
    assert path.read_bytes() == OLD
    asked = requests()
    assert bool(asked) == (not goes_on_with_the_lower_file(mount))
    assert path.read_bytes() == OLD
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert bytes(mapping) == OLD
    assert requests() == asked
    path.chmod(0o640)
    assert path.read_bytes() == OLD
    with path.open("r+b") as writer:
        writer.write(NEW[:1000])
    assert path.read_bytes() == NEW[:1000] + OLD[1000:]
    os.truncate(path, 2000)
    assert path.read_bytes() == (NEW[:1000] + OLD[1000:])[:2000]
    (mount.path / "other").write_bytes(NEW)
    (mount.path / "other").rename(path)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("opens", ["", ", open"])
def test_what_a_handler_reads_is_not_kept(host: None, opens: str) -> None:
    with in_place("counting") as place:
        layers = Layers.made(place, 1)
        (layers.lowers[0] / "file").write_bytes(OLD)
        (place / "counting.py").write_text(COUNTING)
        policy = place / "counting.yaml"
        policy.write_text(
            f"version: 1\nhandlers: counting:Counting\nrules: [{{handle: [read{opens}]}}]\n"
        )
        with mounted_by_us(layers, place / "mnt", policy=str(policy)) as mount:
            path = mount.path / "file"
            assert [path.read_bytes()[:1] for _ in range(3)] == [b"1", b"2", b"3"]


def test_what_was_copied_up_beside_a_reader_can_be_executed(mount: OverlayMount) -> None:
    program = mount.path / "program"
    shutil.copy2("/bin/true", mount.layers.lowers[0] / "program")
    with program.open("rb") as reader:
        assert reader.read(4) == b"\x7fELF"
        program.chmod(0o750)
        in_upper = mount.layers.upper / "program"
        assert in_upper.exists()
        for path in (program, in_upper):
            assert subprocess.run([path], check=False).returncode == 0


def test_truncation_by_name_beside_a_reader(mount: OverlayMount) -> None:
    path = mount.path / "file"
    with path.open("rb") as reader:
        reader.read(1)
        os.truncate(path, 3)
        assert path.read_bytes() == OLD[:3]
        assert path.stat().st_size == 3
        with path.open("ab") as writer:
            writer.write(b"x")
        assert path.read_bytes() == OLD[:3] + b"x"
        assert path.stat().st_size == 4


def test_a_mapping_beside_a_writer(mount: OverlayMount) -> None:
    path = mount.path / "file"
    with path.open("rb") as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[:3] == b"old"
        with path.open("r+b") as writer:
            writer.write(NEW)
        # The whole old or the whole new, as far as it has been looked at.
        assert mapping[-3:] in (b"old", b"new")
        assert path.read_bytes() == NEW


def test_many_readers_and_writers_at_once(mount: OverlayMount) -> None:
    """Whatever the order is, each reader sees one version, and nobody an error."""
    names = [mount.path / f"file{number}" for number in range(20)]
    for name in names:
        (mount.layers.lowers[0] / name.name).write_bytes(OLD)
    seen: list[bytes] = []
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def run(writes: bool) -> None:
        try:
            start.wait(30)
            for name in names:
                if writes:
                    descriptor = os.open(name, os.O_WRONLY)
                    try:
                        os.pwrite(descriptor, NEW[:10], 0)
                    finally:
                        os.close(descriptor)
                else:
                    with name.open("rb") as file:
                        seen.append(file.read(10))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert set(seen) <= {OLD[:10], NEW[:10]}
    for name in names:
        assert name.read_bytes() == NEW[:10] + OLD[10:]


def test_a_name_that_is_gone(mount: OverlayMount) -> None:
    """What has no name any more can still be changed by whoever has it open."""
    path = mount.path / "file"
    reader = os.open(path, os.O_RDONLY)
    try:
        path.unlink()
        os.fchmod(reader, 0o600)
        assert os.fstat(reader).st_mode & 0o7777 == 0o600
        assert os.pread(reader, 3, 0) == b"old"
    finally:
        os.close(reader)
    assert os.listdir(mount.path) == ["directory"]
    assert not Path(mount.layers.upper / "file").is_file()


def test_opening_for_writing_through_a_descriptor(mount: OverlayMount) -> None:
    """By /proc/self/fd no name is looked up again: where the kernel has the lower file, ESTALE."""
    path = mount.path / "file"
    reader = os.open(path, os.O_RDONLY)
    try:
        if goes_on_with_the_lower_file(mount):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                os.open(f"/proc/self/fd/{reader}", os.O_WRONLY)
            assert caught.value.errno == errno.ESTALE
        else:
            os.close(os.open(f"/proc/self/fd/{reader}", os.O_WRONLY))
    finally:
        os.close(reader)
    with path.open("r+b") as writer:
        writer.write(NEW)
    assert path.read_bytes() == NEW


def test_flags_of_a_directory_that_was_opened_before(mount: OverlayMount) -> None:
    """They are those of the upper layer's, also where the lower layer's is being listed."""
    opened = os.open(mount.path / "directory", os.O_RDONLY)
    try:
        os.listdir(opened)
        before = flags_of(mount.path / "directory")
        rawcalls.set_flags(opened, before | rawcalls.FS_NODUMP)
        assert flags_of(mount.path / "directory") == before | rawcalls.FS_NODUMP
    finally:
        os.close(opened)
    assert flags_of(mount.layers.lowers[0] / "directory") == before, "layers below are not changed"
    assert flags_of(mount.layers.upper / "directory") == before | rawcalls.FS_NODUMP


def test_a_file_that_was_open_shortly_before(mount: OverlayMount) -> None:
    """The kernel may still have the lower file: what is read is the copy, and then what it is."""
    path = mount.path / "file"
    assert path.read_bytes() == path.read_bytes() == OLD
    with path.open("ab") as writer:
        writer.write(b"more")
    assert path.read_bytes() == OLD + b"more"
    path.write_bytes(NEW)
    assert path.read_bytes() == path.read_bytes() == NEW
    path.unlink()
    path.write_bytes(b"another")
    assert path.read_bytes() == b"another"


def test_files_that_were_open_shortly_before_are_given_back(mount: OverlayMount) -> None:
    lower = mount.layers.lowers[0] / "directory"
    for number in range(2 * LIMIT):
        (lower / f"{number}").write_text(f"{number}")
    for _ in range(2):
        for number in range(2 * LIMIT):
            assert (mount.path / "directory" / f"{number}").read_text() == f"{number}"
    assert mount.stats()["backing_ids"] <= LIMIT
    (mount.path / "directory" / f"{2 * LIMIT - 1}").unlink()
    assert not (mount.path / "directory" / f"{2 * LIMIT - 1}").exists()


def flags_of(path: Path) -> int:
    opened = os.open(path, os.O_RDONLY)
    try:
        return rawcalls.get_flags(opened)
    finally:
        os.close(opened)
