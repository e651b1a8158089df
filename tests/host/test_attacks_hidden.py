"""hidden-dotfiles: no answer tells whether a hidden name is there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from support.attacks import Camp, camp
from support.clients import Client
from support.mounting import mounted

pytestmark = pytest.mark.host


@pytest.fixture(scope="module", params=("none", "rw"))
def hiding(host: None, request: pytest.FixtureRequest) -> Iterator[Camp]:
    with camp(request.param, "hidden-dotfiles") as made:
        yield made


def tree(hiding: Camp) -> bytes:
    """A directory with a hidden file and a hidden directory, and things that show."""
    home = hiding.mount.source / f"d{next(hiding.numbers)}"
    home.mkdir()
    for name in (".dir", "shown", "empty"):
        (home / name).mkdir()
    for name in (".file", ".dir/inside", "shown/plain", "plain"):
        (home / name).write_bytes(b"content")
    for path in (home, *home.rglob("*")):
        path.chmod(0o777)
    return os.fsencode(home.name)


def answers(client: Client, home: bytes, name: bytes) -> list[Any]:
    """All that can be asked about a name."""
    path, plain, empty = home + b"/" + name, home + b"/plain", home + b"/empty"
    new = home + b"/new"
    return [
        client.lstat(path), client.stat(path + b"/"), client.stat(path + b"/inside"),
        client.stat(path + b"/../plain"), client.access(path, os.F_OK), client.readlink(path),
        client.open("f", path, os.O_RDONLY), client.open("f", path, os.O_PATH | os.O_NOFOLLOW),
        client.open("f", path, os.O_CREAT | os.O_WRONLY),
        client.open("f", path, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        client.open("f", path, os.O_WRONLY | os.O_TRUNC),
        client.open("f", path, os.O_RDONLY | os.O_DIRECTORY),
        client.open("f", path, os.O_TMPFILE | os.O_RDWR),
        client.mkdir(path), client.mkdir(path + b"/"), client.mkdir(path + b"/below"),
        client.mknod(path, stat.S_IFREG | 0o600), client.mknod(path, stat.S_IFIFO | 0o600),
        client.symlink(b"target", path), client.link(plain, path), client.link(path, new),
        client.rename(plain, path), client.rename(empty, path), client.rename(path, new),
        client.rename(path, plain), client.rename(plain, path, 1), client.rename(plain, path, 2),
        client.rename(path, plain, 2), client.rename(empty, path, 2),
        client.unlink(path), client.rmdir(path), client.truncate(path, 0),
        client.chmod(path, 0o700), client.chown(path, -1, -1),
        client.set_times(path, (1, 0), (1, 0)),
        client.getxattr(path, "user.x"), client.setxattr(path, "user.x", b""),
        client.removexattr(path, "user.x"), client.listxattr(path), client.listdir(path),
        client.run(path), client.enter(path), client.handle(path),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["root", "user"])
def test_no_answer_tells(hiding: Camp, name: str) -> None:
    client = hiding.people.get(name)
    home = tree(hiding)
    client.reset()
    client.enter(os.fsencode(hiding.mount.path))
    nothing = answers(client, home, b".nothing")
    assert all(isinstance(answer, str) for answer in nothing)
    for there in (b".file", b".dir"):
        assert answers(client, home, there) == nothing
    source = hiding.mount.source / os.fsdecode(home)
    assert sorted(os.listdir(source)) == [".dir", ".file", "empty", "plain", "shown"]
    assert (source / ".file").read_bytes() == (source / "plain").read_bytes() == b"content"
    client.reset()


def test_no_listing_tells(hiding: Camp) -> None:
    client = hiding.people.get("user")
    home = tree(hiding)
    client.reset()
    client.enter(os.fsencode(hiding.mount.path))
    for number in range(300):
        (hiding.mount.source / os.fsdecode(home) / f".many-{number}").touch()
        (hiding.mount.source / os.fsdecode(home) / f"some-{number}").touch()
    expected = sorted(
        [b"empty", b"plain", b"shown", *(b"some-%d" % number for number in range(300))]
    )
    assert client.listdir(home) == expected
    assert client.listdir(home) == expected  # by READDIR after READDIRPLUS
    entries = client.listing(home)
    assert [entry[0] for entry in entries] == sorted([b".", b"..", *expected])
    client.open_stream("s", home)
    for _ in range(3):
        assert client.stream_seeks_back("s", 7) == (7, True)
        client.stream_rewind("s")
        assert client.stream_names("s") == sorted([b".", b"..", *expected])
        client.stream_rewind("s")
    assert client.listdir(home + b"/shown/..") == expected
    client.reset()


def test_what_is_beneath_is_hidden_as_well(hiding: Camp) -> None:
    client = hiding.people.get("user")
    home = tree(hiding)
    client.reset()
    client.enter(os.fsencode(hiding.mount.path))
    (hiding.mount.source / os.fsdecode(home) / "way").symlink_to(".dir/inside")
    (hiding.mount.source / os.fsdecode(home) / "loop").symlink_to(".dir")
    assert client.read_file(home + b"/way") == "ENOENT"
    assert client.listdir(home + b"/loop") == "ENOENT"
    assert client.rename(home + b"/shown", home + b"/.shown") == "EACCES"
    assert client.rename(home + b"/shown", home + b"/.dir/shown") == "ENOENT"
    client.reset()


def test_that_something_is_there_can_be_concluded(hiding: Camp) -> None:
    """Documented: a directory that seems empty cannot be removed, and its links are counted."""
    client = hiding.people.get("user")
    home = tree(hiding)
    client.reset()
    client.enter(os.fsencode(hiding.mount.path))
    (hiding.mount.source / os.fsdecode(home) / "empty" / ".keep").mkdir()
    assert client.listdir(home + b"/empty") == []
    assert client.rmdir(home + b"/empty") == "ENOTEMPTY"
    assert client.lstat(home + b"/empty")["nlink"] == 3
    client.reset()


def test_a_handle_from_before_leads_nowhere(hiding: Camp, tmp_path: Any) -> None:
    """What was hidden by a label since its handle was taken, and forgotten, is not found by it."""
    client = hiding.people.get("root")
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nrules: [{match: {xattr: user.hide}, visible: false}]\n")
    place = hiding.mount.path.parent / f"labels-{next(hiding.numbers)}"
    place.mkdir()
    with mounted(place / "back", place / "mnt", "--tier", hiding.tier, policy=str(policy)) as mount:
        (mount.source / "f").write_bytes(b"content")
        path = os.fsencode(mount.path)
        client.reset()
        handle = client.handle(path + b"/f")
        assert client.open_handle("f", path, handle, os.O_RDONLY) is None
        client.discard("f")
        os.setxattr(mount.source / "f", "user.hide", b"")
        assert client.lstat(path + b"/f") == "ENOENT"
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
            drop.write("2")
        assert client.open_handle("f", path, handle, os.O_RDONLY) == "ESTALE"
        client.reset()
