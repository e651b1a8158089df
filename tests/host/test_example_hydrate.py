"""The example `hydrate`: first opens fetch, once; later ones bypass; waiting can be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mounting import Mount, in_place, mounted
from support.waiting import within

pytestmark = pytest.mark.host
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hydrate"
PLACEHOLDER = "user.inopt.placeholder"
MEBI = 1 << 20
DELAY = 0.2


class Slow:
    """A mount, and the store behind it."""

    def __init__(self, mount: Mount, store: Path) -> None:
        self.mount = mount
        self.store = store

    def placeholder(self, name: str, size: int) -> bytes:
        """Make a file that is in the store only; returns its content."""
        content = os.urandom(size)
        self.hollow(name, size)
        (self.store / f"id-{name}").write_bytes(content)
        return content

    def hollow(self, name: str, size: int, object_id: str | None = None) -> None:
        path = self.mount.source / name
        path.touch()
        os.truncate(path, size)
        os.setxattr(path, PLACEHOLDER, (object_id or f"id-{name}").encode())
        os.utime(path, (1_000_000_000, 1_000_000_000))

    def records(self, event: str, name: str) -> list[dict[str, Any]]:
        lines = self.mount.log.read_text().splitlines()
        return [
            record
            for record in map(json.loads, lines)
            if record["event"] == event and record.get("id") == f"id-{name}"
        ]

    def reader(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["cat", self.mount.path / name], stdout=subprocess.PIPE)

    def waits(self, name: str) -> subprocess.Popen[bytes]:
        """A reader that waits for the fetch."""
        waiting = self.reader(name)
        assert within(lambda: bool(self.records("fetching", name)))
        time.sleep(DELAY / 2)
        return waiting


@pytest.fixture(scope="module")
def slow(host: None) -> Iterator[Slow]:
    with in_place("hydrate") as place, pytest.MonkeyPatch.context() as patch:
        store = place / "store"
        store.mkdir()
        patch.setenv("HYDRATE_STORE", str(store))
        patch.setenv("HYDRATE_DELAY", str(DELAY))
        with mounted(place / "back", place / "mnt", policy=EXAMPLE / "hydrate.yaml") as mount:
            yield Slow(mount, store)


def test_first_open_fetches_and_then_it_bypasses(slow: Slow) -> None:
    content = slow.placeholder("a", 3 * MEBI + 5)
    path = slow.mount.path / "a"
    assert path.stat().st_size == len(content)
    assert path.stat().st_blocks == 0
    before = slow.mount.stats()
    assert path.read_bytes() == content
    status = (slow.mount.source / "a").stat()
    assert (status.st_mtime, status.st_size) == (1_000_000_000, len(content))
    assert os.listxattr(slow.mount.source / "a") == []
    assert [record["percent"] for record in slow.records("fetched", "a")] == [30, 60, 90, 100]
    assert path.read_bytes() == content
    with path.open("r+b") as file:
        file.write(b"new")
    after = slow.mount.stats()
    assert before["READ"] == after["READ"]
    assert before["WRITE"] == after["WRITE"]
    assert after["OPEN"]["handler"] - before["OPEN"]["handler"] == 1
    assert after["OPEN"]["daemon"] - before["OPEN"]["daemon"] == 2
    assert (slow.mount.source / "a").read_bytes() == b"new" + content[3:]


def test_many_openers_one_fetch(slow: Slow) -> None:
    content = slow.placeholder("b", 2 * MEBI)
    readers = [slow.reader("b") for _ in range(6)]
    assert all(reader.communicate()[0] == content for reader in readers)
    assert len(slow.records("fetching", "b")) == 1


def test_many_fetches_at_once(slow: Slow) -> None:
    names = [f"many-{number}" for number in range(10)]
    contents = {name: slow.placeholder(name, MEBI) for name in names[1:]}
    contents[names[0]] = slow.placeholder(names[0], 8 * MEBI)
    readers = {names[0]: slow.waits(names[0])}
    readers |= {name: slow.reader(name) for name in names[1:]}
    slow.mount.path.joinpath(names[0]).stat()  # others are served meanwhile
    assert not slow.records("hydrated", names[0])
    for name, reader in readers.items():
        assert reader.communicate()[0] == contents[name]
    told = [
        (record["event"], record.get("id"))
        for record in map(json.loads, slow.mount.log.read_text().splitlines())
    ]
    meanwhile = told[: told.index(("hydrated", f"id-{names[0]}"))]
    assert sum(event == "fetching" for event, _ in meanwhile) > 1


def test_failing_is_eio_and_the_next_tries_again(slow: Slow) -> None:
    content = slow.placeholder("c", MEBI)
    os.rename(slow.store / "id-c", slow.store / "away")
    path = slow.mount.path / "c"
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            path.open("rb")
    (slow.store / "id-c").write_bytes(content[:-1])
    with pytest.raises(OSError, match="Input/output"):
        path.open("rb")
    (slow.store / "id-c").write_bytes(content + b"x" * MEBI)
    with pytest.raises(OSError, match="Input/output"):
        path.open("rb")
    assert len(slow.records("not fetched", "c")) == 4
    os.rename(slow.store / "away", slow.store / "id-c")
    assert path.read_bytes() == content


def test_ids_lead_nowhere_else(slow: Slow) -> None:
    (slow.store.parent / "secret").write_bytes(b"s" * 10)
    for number, name in enumerate(("../secret", str(slow.store.parent / "secret"), "..")):
        slow.hollow(f"bad-{number}", 10, name)
        with pytest.raises(OSError, match="Input/output"):
            (slow.mount.path / f"bad-{number}").open("rb")


def test_interrupt_ends_the_waiting_of_one(slow: Slow) -> None:
    content = slow.placeholder("d", 8 * MEBI)
    waiting, other = slow.waits("d"), slow.reader("d")
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(240) == -signal.SIGINT
    assert not slow.records("hydrated", "d")
    assert other.communicate()[0] == content
    assert len(slow.records("fetching", "d")) == 1
    assert waiting.stdout is not None
    waiting.stdout.close()


def test_truncating(slow: Slow) -> None:
    slow.placeholder("e", MEBI)
    (slow.mount.path / "e").write_bytes(b"mine")
    assert slow.records("fetching", "e") == []
    assert (slow.mount.path / "e").read_bytes() == b"mine"
    assert os.listxattr(slow.mount.source / "e") == []
    content = slow.placeholder("f", MEBI)
    os.truncate(slow.mount.path / "f", 100)
    assert (slow.mount.path / "f").read_bytes() == content[:100]


def test_users_cannot_make_placeholders(slow: Slow) -> None:
    slow.placeholder("g", MEBI)
    path = slow.mount.path / "g"
    with pytest.raises(PermissionError):
        os.setxattr(path, PLACEHOLDER, b"id-a")
    with pytest.raises(PermissionError):
        os.removexattr(path, PLACEHOLDER)
    os.setxattr(path, "user.other", b"x")
    assert os.getxattr(path, "user.other") == b"x"
    os.removexattr(path, "user.other")


def test_unmounting_amid_a_fetch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRATE_STORE", str(place))
    monkeypatch.setenv("HYDRATE_DELAY", "60")
    with mounted(place / "back", place / "mnt", policy=EXAMPLE / "hydrate.yaml") as mount:
        slow = Slow(mount, place)
        slow.placeholder("h", MEBI)
        waiting = slow.waits("h")
        waiting.kill()
        waiting.communicate()
        assert mount.complaints() == []
    assert os.listxattr(place / "back" / "h") == [PLACEHOLDER]
