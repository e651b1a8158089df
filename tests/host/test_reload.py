"""Another policy for a live mount: checked first, swapped at once, nothing gets round it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients import Client, Clients, Errno, clients
from support.mounting import Mount, in_place, inopt, mounted
from support.waiting import within

pytestmark = pytest.mark.host

_OPEN = "version: 1\n"
_CLOSED = """
version: 1
rules:
  - match: {path: "**/secret*", type: file}
    deny: [open]
  - match: {path: "**/*.log"}
    deny: {overwrite: EPERM, truncate: EPERM, unlink: EPERM, rename: EPERM}
  - match: {path: ".*"}
    visible: false
  - match: {path: "/sealed/**"}
    deny: {namespace: EROFS, write: EROFS, setattr: EROFS}
"""


@pytest.fixture(params=["none", "rw"])
def mount(host: None, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount under a policy file of its own, with names cached for long."""
    with in_place("reload") as place:
        back = place / "back"
        (back / "sealed" / "deep").mkdir(parents=True)
        for name in ("secret", "plain", "a.log", ".hidden", "sealed/deep/file"):
            (back / name).write_text("before")
        policy = place / "policy.yaml"
        policy.write_text(_OPEN + "cache: {entry: 1h, attributes: 1h}\n")
        with mounted(back, place / "mnt", "--tier", request.param, policy=policy) as made:
            yield made


@pytest.fixture
def person() -> Iterator[Client]:
    with clients() as people:
        yield _root(people)


def _root(people: Clients) -> Client:
    return people.get("root")


def policy_of(mount: Mount) -> Path:
    return mount.path.parent / "policy.yaml"


def path_of(mount: Mount, name: str) -> bytes:
    return os.fsencode(mount.path / name)


def content(mount: Mount, name: str) -> str:
    done = subprocess.run(["cat", mount.path / name], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr.rsplit(": ", 1)[1].strip()


def reload(mount: Mount, *arguments: str) -> dict[str, object]:
    done = inopt("reload", str(mount.path), "--json", *arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


def visit(mount: Mount) -> None:
    """Let the kernel remember every name and attribute."""
    subprocess.run(["ls", "-lRa", mount.path], check=True, capture_output=True)
    for name in ("secret", "plain", "a.log", ".hidden", "sealed/deep/file"):
        assert content(mount, name) == "before"


def test_a_stricter_policy_holds_at_once(mount: Mount) -> None:
    visit(mount)
    policy_of(mount).write_text(_CLOSED)
    report = reload(mount)
    assert report["on_old_plan"] == 0
    assert content(mount, "secret") == "Permission denied"
    assert content(mount, "plain") == "before"
    assert content(mount, ".hidden") == "No such file or directory"
    assert ".hidden" not in os.listdir(mount.path)
    with pytest.raises(PermissionError):
        (mount.path / "a.log").write_text("over")
    with pytest.raises(OSError, match="Read-only file system"):
        (mount.path / "sealed/deep/new").write_text("new")
    with (mount.path / "a.log").open("a") as log:
        log.write(" and after")
    assert content(mount, "a.log") == "before and after"


def test_a_looser_policy_holds_at_once(mount: Mount) -> None:
    policy_of(mount).write_text(_CLOSED)
    reload(mount)
    assert content(mount, "secret") == "Permission denied"
    policy_of(mount).write_text(_OPEN)
    reload(mount)
    visit(mount)


def test_a_directory_somebody_is_in_follows(mount: Mount, person: Client) -> None:
    """Names are looked up in it without passing its own name again."""
    person.open("directory", path_of(mount, "sealed/deep"), os.O_PATH)
    policy_of(mount).write_text(_CLOSED)
    reload(mount)
    directory = f"/proc/{person._process.pid}/fd"
    held = next(
        Path(directory, name)
        for name in os.listdir(directory)
        if os.readlink(Path(directory, name)) == str(mount.path / "sealed/deep")
    )
    with pytest.raises(OSError, match="Read-only file system"):
        (held / "new").write_text("new")
    assert not (mount.source / "sealed/deep/new").exists()


def test_open_files_keep_what_they_were_opened_under(mount: Mount, person: Client) -> None:
    """The kernel does not take an open file back; but no further open may go round the rule."""
    person.open("writer", path_of(mount, "a.log"), os.O_RDWR)
    assert person.pwrite("writer", b"BEFORE", 0) == 6
    policy_of(mount).write_text(_CLOSED)
    report = reload(mount)
    bypasses = mount.stats()["tier"] == "rw"
    assert report["open_inodes"] == 1
    assert report["on_old_plan"] == (1 if bypasses else 0)
    if bypasses:
        inode = os.stat(mount.source / "a.log").st_ino
        assert report["on_old_plan_inodes"] == [inode]
        assert person.pwrite("writer", b"b", 0) == 1
    else:
        assert person.pwrite("writer", b"b", 0) == Errno("EPERM")
    with pytest.raises(OSError, match=r"busy|not permitted"):
        (mount.path / "a.log").write_text("over")
    assert content(mount, "a.log") in ("bEFORE", "BEFORE")
    person.close("writer")
    with pytest.raises(PermissionError):
        (mount.path / "a.log").write_text("over")


def test_reading_goes_on_beside_an_earlier_writer(mount: Mount, person: Client) -> None:
    """Never EIO: who only reads may share the bypass of those that came before."""
    person.open("writer", path_of(mount, "a.log"), os.O_RDWR)
    policy_of(mount).write_text(_CLOSED)
    reload(mount)
    assert content(mount, "a.log") == "before"


BROKEN = {
    "a typing mistake": "version: 1\nrules: [{deny: [opne]}]\n",
    "no YAML": "version: [1\n",
    "a handler that is not there": "version: 1\nhandlers: nowhere.at:All\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_policy_that_is_not_in_order_changes_nothing(mount: Mount, text: str) -> None:
    policy_of(mount).write_text(_CLOSED)
    reload(mount)
    policy_of(mount).write_text(text)
    done = inopt("reload", str(mount.path))
    assert done.returncode == 2
    assert done.stderr.startswith("inopt: ")
    assert "Traceback" not in done.stderr
    assert content(mount, "secret") == "Permission denied"
    assert content(mount, "plain") == "before"


def test_a_tier_that_the_mount_lacks_is_refused(mount: Mount) -> None:
    policy_of(mount).write_text("version: 1\nrequire: inode\n")
    done = inopt("reload", str(mount.path))
    assert done.returncode == 2
    assert "requires tier 'inode'" in done.stderr


def test_another_file_and_a_shipped_policy(mount: Mount, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(_CLOSED)
    done = inopt("reload", str(mount.path), "other.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(mount, "secret") == "Permission denied"
    assert mount.stats()["policy"] == str(other)
    assert "now under" in inopt("reload", str(mount.path), "mirror").stdout
    assert content(mount, "secret") == "before"


def test_sighup_reads_the_policy_again(mount: Mount) -> None:
    assert content(mount, "secret") == "before"
    policy_of(mount).write_text(_CLOSED)
    os.kill(mount.pid, signal.SIGHUP)
    assert within(lambda: content(mount, "secret") == "Permission denied")
    policy_of(mount).write_text("version: 2\n")
    os.kill(mount.pid, signal.SIGHUP)
    assert within(lambda: "policy not replaced" in mount.log.read_text())
    assert content(mount, "secret") == "Permission denied"


def test_reloading_under_load_fails_nobody(mount: Mount) -> None:
    """Who works on what no rule is about does not notice."""
    script = (
        "import os, sys, time\n"
        "os.chdir(sys.argv[1]); end = time.monotonic() + 3\n"
        "while time.monotonic() < end:\n"
        "    os.makedirs('w/x', exist_ok=True)\n"
        "    with open('w/x/f', 'w') as f: f.write('text')\n"
        "    with open('w/x/f') as f: assert f.read() == 'text'\n"
        "    os.rename('w/x/f', 'w/g'); os.stat('w/g'); os.listdir('w'); os.unlink('w/g')\n"
        "print('fine')\n"
    )
    with subprocess.Popen(
        ["python3", "-c", script, mount.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        while worker.poll() is None:
            policy_of(mount).write_text(_CLOSED)
            reload(mount)
            policy_of(mount).write_text(_OPEN)
            reload(mount)
        assert worker.stdout is not None
        assert worker.stderr is not None
        assert worker.stdout.read() == b"fine\n", worker.stderr.read().decode()
