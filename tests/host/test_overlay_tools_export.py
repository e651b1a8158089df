"""``inopt overlay export``: archives that others read, compressed or not, or not at all."""

from __future__ import annotations

import gzip
import io
import os
import pty
import select
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
import zstandard
from support.kernel_layers import Layers, unlike, view
from support.mounting import inopt, inopt_program
from support.programs import sh

from inopt.layers.tools import tar

pytestmark = pytest.mark.host


@pytest.fixture
def layers(place: Path) -> Layers:
    made = Layers(place)
    lower = made.lowers[0]
    (lower / "gone").touch()
    (lower / "opaque").mkdir()
    with made.mounted() as merged:
        (merged / "gone").unlink()
        (merged / "opaque").rmdir()
        (merged / "opaque").mkdir()
        (merged / "opaque" / "in").write_text("in")
        (merged / ("n" * 90)).mkdir()
        (merged / ("n" * 90) / "ä long one").write_text("deep")
        (merged / "file").write_bytes(os.urandom(100_000))
        (merged / "link").hardlink_to(merged / "file")
        (merged / "alias").symlink_to("t" * 150)
        os.setxattr(merged / "file", "user.binary", b"\0=\n\xff")
        os.chown(merged / "file", 3_000_000, 1001)
        os.utime(merged / "file", ns=(0, -1_500_000_001))
    return made


def test_order_and_names(layers: Layers) -> None:
    archive = layers.place / "layer.tar"
    assert inopt("overlay", "export", str(layers.upper), str(archive)).returncode == 0
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    long = "n" * 90
    assert [member.name for member in members] == [
        ".", ".wh.gone", "alias", "file", "link", long, f"{long}/ä long one", "opaque",
        "opaque/.wh..wh..opq", "opaque/in",
    ]  # fmt: skip
    by_name = {member.name: member for member in members}
    assert by_name["link"].islnk()
    assert by_name["link"].linkname == "file"
    assert (by_name["file"].uid, by_name["file"].gid) == (3_000_000, 1001)
    assert by_name["file"].pax_headers["mtime"] == "-1.500000001"
    assert by_name["alias"].linkname == "t" * 150


def test_gnu_tar_reads_it(layers: Layers) -> None:
    archive = layers.place / "layer.tar"
    assert inopt("overlay", "export", str(layers.upper), str(archive)).returncode == 0
    out = layers.place / "out"
    out.mkdir()
    done = sh(
        "tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", str(archive), "-C",
        str(out),
    )  # fmt: skip
    assert "Ignoring" not in done.stderr
    with layers.mounted() as merged:
        expected = view(merged)
    found = view(out)
    for name in (b".wh.gone", b"opaque/.wh..wh..opq"):
        assert found.pop(name)["size"] == 0
    assert unlike(expected, found) == []


def test_compressed_by_name_or_wish(layers: Layers) -> None:
    plain, packed = layers.place / "layer.tar", layers.place / "layer.tar.gz"
    words = ["overlay", "export", str(layers.upper)]
    for path in (plain, packed, layers.place / "layer.tgz", layers.place / "layer.tar.zst"):
        assert inopt(*words, str(path)).returncode == 0
    raw = plain.read_bytes()
    assert gzip.decompress(packed.read_bytes()) == raw
    assert packed.read_bytes() == (layers.place / "layer.tgz").read_bytes()
    with open(layers.place / "layer.tar.zst", "rb") as file:
        assert zstandard.ZstdDecompressor().stream_reader(file).read() == raw
    assert inopt(*words, str(packed), "--compression", "none").returncode == 0
    assert packed.read_bytes() == raw
    done = subprocess.run([inopt_program(), *words, "-"], capture_output=True, check=True)
    assert done.stdout == raw
    assert sorted(os.listdir(layers.place)) == [
        "layer.tar", "layer.tar.gz", "layer.tar.zst", "layer.tgz", "lower0", "merged", "upper",
        "work",
    ]  # fmt: skip


def test_a_file_that_cannot_be_written_stays_as_it_was(layers: Layers) -> None:
    small = layers.place / "small"
    small.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small))
    try:
        (small / "layer.tar").write_text("as before")
        done = inopt("overlay", "export", str(layers.upper), str(small / "layer.tar"))
        assert done.returncode == 1
        assert "cannot be written: No space left on device" in done.stderr
        assert os.listdir(small) == ["layer.tar"]
        assert (small / "layer.tar").read_text() == "as before"
        done = inopt("overlay", "export", str(layers.upper), "/dev/full")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
    finally:
        sh("umount", str(small))


def test_names_that_no_layer_can_have(layers: Layers) -> None:
    (layers.upper / "opaque" / ".wh.in").touch()
    done = inopt("overlay", "export", str(layers.upper), str(layers.place / "x.tar"))
    assert (done.returncode, "opaque/.wh.in" in done.stderr) == (2, True)
    assert not (layers.place / "x.tar").exists()


def test_progress_is_for_a_terminal(place: Path) -> None:
    layers = Layers(place)
    (layers.upper / "large").write_bytes(os.urandom(40 << 20))
    # Whoever reads takes a while over each piece: short work shows nothing.
    pipe = place / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=_read_slowly, args=(pipe, 4 << 20, 0.3))
    reader.start()
    ours, theirs = pty.openpty()
    words = [inopt_program(), "overlay", "export", str(layers.upper), str(pipe)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    reader.join()
    assert process.returncode == 0
    assert b"packing" in shown
    assert b"MiB" in shown
    done = inopt("overlay", "export", str(layers.upper), "/dev/null")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _read_slowly(pipe: Path, size: int, seconds: float) -> None:
    with pipe.open("rb") as file:
        while file.read(size):
            time.sleep(seconds)


def test_large_numbers_fit() -> None:
    """What no ustar header can hold is in the PAX records."""
    out = io.BytesIO()
    archive = tar.Archive(out.write)
    member = tar.Member(
        b"x" * 300, tar.DIRECTORY, uid=1 << 31, gid=1 << 30, mtime_ns=(1 << 34) * 10**9 + 7
    )
    archive.add(member)
    for number in range(70):  # lengths around which a record's length has one digit more
        attribute = ("user.a", b"v" * (60 + number))
        archive.add(tar.Member(b"%d" % number, tar.FILE, attributes=(attribute,)))
    archive.close()
    assert len(out.getvalue()) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as opened:
        first, *others = opened.getmembers()
    assert (first.name, first.uid, first.gid) == ("x" * 300, 1 << 31, 1 << 30)
    assert first.pax_headers["mtime"] == f"{1 << 34}.000000007"
    assert [len(m.pax_headers["SCHILY.xattr.user.a"]) for m in others] == list(range(60, 130))
