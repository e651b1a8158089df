"""With ``coherence: notify``, names and attributes are believed for an hour, and yet right.

Changes underneath show within a tenth of a second.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import stat
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from support.clients import TESTS
from support.mounting import Mount, in_place, inopt, mounted
from support.programs import error_of, overlay_in, sh, socket_of, start_client, within

from inopt.session import asking

pytestmark = pytest.mark.host

POLICY: Final = "version: 1\ncache: {coherence: notify, negative: 1h}\n"
NO_FANOTIFY: Final = {"INOPT_NO_FANOTIFY": "1"}
LATEST: Final = 3.0  # seconds: how long a loaded machine may take
TYPICAL: Final = 0.1


def policy_in(place: Path, text: str = POLICY) -> Path:
    (place / "policy.yaml").write_text(text)
    return place / "policy.yaml"


def environment(kind: str) -> dict[str, str]:
    return {} if kind == "fanotify" else NO_FANOTIFY


@pytest.fixture(scope="module", params=["none-fanotify", "rw-fanotify", "rw-inotify"])
def mount(host: None, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One mount for many tests: each has a directory of its own."""
    tier, kind = request.param.split("-")
    with (
        in_place("notify") as place,
        mounted(
            place / "src",
            place / "mnt",
            "--tier",
            tier,
            policy=policy_in(place),
            environment=environment(kind),
        ) as made,
    ):
        assert stats(made)["coherence"] == kind
        yield made
        assert made.complaints() == []


@pytest.fixture
def below(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """This test's directory in the source."""
    name = re.sub(r"\W", "_", request.node.name)
    (mount.source / name).mkdir()
    assert within(LATEST, (mount.path / name).is_dir)
    return mount.source / name


@pytest.fixture
def above(mount: Mount, below: Path) -> Path:
    """The same directory in the mount."""
    return mount.path / below.name


def stats(mount: Mount) -> dict[str, Any]:
    """What ``inopt stats`` says, without a process for it."""
    return asking.ask(str(socket_of(mount)), "stats")


def reload(mount: Mount) -> None:
    """Have the policy read again."""
    asking.ask(str(socket_of(mount)), "reload", 60)


def requests(mount: Mount) -> int:
    """How many lookups and questions for attributes have reached the daemon."""
    told = stats(mount)
    return sum(told[name]["daemon"] for name in ("LOOKUP", "GETATTR", "READDIRPLUS"))


def shows(check: Callable[[], bool]) -> float:
    """The seconds until *check* comes true."""
    began = time.monotonic()
    while time.monotonic() - began < LATEST:
        with suppress(OSError):
            if check():
                return time.monotonic() - began
        time.sleep(0.001)
    raise AssertionError(f"not seen after {LATEST} seconds")


def test_every_kind_of_change_shows_at_once(below: Path, above: Path) -> None:
    for name in ("mode", "longer", "same", "short", "times", "gone", "old", "target", "type"):
        (below / name).write_text("content")
        os.utime(below / name, (5, 7))
    (below / "dir" / "deep").mkdir(parents=True)
    (below / "dir" / "deep" / "file").write_text("deep")
    (below / "link").symlink_to("before")
    number = (below / "old").stat().st_ino
    steps: list[tuple[Callable[[], object], Callable[[], bool]]] = [
        (lambda: (below / "mode").chmod(0o751), lambda: mode(above / "mode") == 0o751),
        (lambda: (below / "mode").chmod(0o640), lambda: mode(above / "mode") == 0o640),
        (
            lambda: (below / "longer").write_text("longer text"),
            lambda: size(above / "longer") == 11,
        ),
        (lambda: os.truncate(below / "short", 3), lambda: size(above / "short") == 3),
        (lambda: os.utime(below / "times", (9, 9)), lambda: mtime(above / "times") == 9),
        (lambda: os.chown(below / "times", 7, 8), lambda: (above / "times").stat().st_gid == 8),
        ((below / "new").touch, (above / "new").exists),
        ((below / "gone").unlink, lambda: not (above / "gone").exists()),
        ((below / "gone").mkdir, (above / "gone").is_dir),
        ((below / "gone").rmdir, lambda: not (above / "gone").exists()),
        (
            lambda: (below / "old").rename(below / "renamed"),
            lambda: (above / "renamed").exists() and not (above / "old").exists(),
        ),
        (
            lambda: (below / "renamed").rename(below / "target"),
            lambda: (above / "target").stat().st_ino == number,
        ),
        (
            lambda: (below / "dir" / "deep").rename(below / "moved"),
            (above / "moved" / "file").exists,
        ),
        (
            lambda: os.rename(below / "moved", below / "dir" / "deeper"),
            lambda: not (above / "moved").exists() and (above / "dir" / "deeper" / "file").exists(),
        ),
        (lambda: swap(below / "type"), (above / "type" / "inner").is_dir),
        (lambda: relink(below / "link"), lambda: os.readlink(above / "link") == "after"),
        ((below / "dir" / "x").touch, lambda: "x" in os.listdir(above / "dir")),
        ((below / "dir" / "y").mkdir, lambda: (above / "dir").stat().st_nlink == 4),
        (lambda: os.link(below / "mode", below / "hard"), lambda: links(above / "mode") == 2),
        ((below / "hard").unlink, lambda: links(above / "mode") == 1),
    ]
    taken = []
    for act, check in steps:
        remember(above)
        assert not check()
        act()
        taken.append(shows(check))
    assert statistics.median(taken) < TYPICAL, taken


def remember(above: Path) -> None:
    """Let the kernel know every name and attribute, and some names that are not there."""
    for folder, folders, files in os.walk(above):
        for name in (*folders, *files, "new", "old", "renamed", "moved", "gone", "hard"):
            with suppress(OSError):
                os.lstat(os.path.join(folder, name))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def size(path: Path) -> int:
    return path.stat().st_size


def mtime(path: Path) -> float:
    return path.stat().st_mtime


def links(path: Path) -> int:
    return path.stat().st_nlink


def swap(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("after")


def test_what_is_known_is_not_asked_again(mount: Mount, below: Path, above: Path) -> None:
    for number in range(50):
        (below / f"dir{number % 5}").mkdir(exist_ok=True)
        (below / f"dir{number % 5}" / f"file{number}").touch()
    time.sleep(0.3)
    for _ in range(2):  # watching by directory begins with the first look
        remember(above)
    time.sleep(1.5)
    remember(above)
    before = requests(mount)
    for _ in range(3):
        time.sleep(1.2)
        for number in range(50):
            os.stat(above / f"dir{number % 5}" / f"file{number}")
            assert error_of(lambda: os.stat(above / "missing")) in (0, errno.ENOENT)
    assert requests(mount) - before <= 1, "only the name that is not there was new"


def test_content_of_an_open_file(mount: Mount, below: Path, above: Path) -> None:
    (below / "file").write_text("old" * 5000)
    with (above / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 3, 9000) == b"old"
        with (below / "file").open("r+b", buffering=0) as under:
            os.pwrite(under.fileno(), b"new", 9000)
            taken = [shows(lambda: os.pread(file.fileno(), 3, 9000) == b"new")]
            os.pwrite(under.fileno(), b"more", 15_000)
            taken.append(shows(lambda: os.fstat(file.fileno()).st_size == 15_004))
            assert os.pread(file.fileno(), 9, 15_000) == b"more"
        os.truncate(below / "file", 6)
        taken.append(shows(lambda: os.fstat(file.fileno()).st_size == 6))
        assert os.pread(file.fileno(), 100, 0) == b"oldold"
        assert max(taken) < LATEST
        (below / "file").unlink()
        shows(lambda: not (above / "file").exists())
        shows(lambda: os.fstat(file.fileno()).st_nlink == 0)
        assert os.pread(file.fileno(), 100, 0) == b"oldold"


def test_the_same_size_and_time(below: Path, above: Path) -> None:
    """Nothing but the content differs: attributes alone would not tell."""
    (below / "file").write_bytes(b"old")
    with (above / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 3, 0) == b"old"
        moment = (below / "file").stat()
        with (below / "file").open("r+b", buffering=0) as under:
            under.write(b"new")
            os.utime(under.fileno(), ns=(moment.st_atime_ns, moment.st_mtime_ns))
        shows(lambda: os.pread(file.fileno(), 3, 0) == b"new")


def test_a_mapping_sees_changes(below: Path, above: Path) -> None:
    """By timeouts alone, a mapping of a file that the daemon serves never would."""
    (below / "file").write_bytes(b"old" * 5000)
    with (
        (above / "file").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        (below / "file").open("r+b", buffering=0) as under,
    ):
        assert mapped[9000:9003] == b"old"
        os.pwrite(under.fileno(), b"new", 9000)
        shows(lambda: mapped[9000:9003] == b"new")


def test_stores_into_a_mapping_underneath(below: Path, above: Path) -> None:
    """The kernel tells of them when the mapped file is closed."""
    (below / "file").write_bytes(b"old" * 5000)
    os.utime(below / "file", (5, 7))
    with (above / "file").open("rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 3, 0) == b"old"
        with (below / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:3] = b"new"
            mapped.flush()
        shows(lambda: mtime(above / "file") != 7)
        shows(lambda: os.pread(reader.fileno(), 3, 0) == b"new")


def test_stores_into_a_mapping_through_the_mount(below: Path, above: Path) -> None:
    (below / "file").write_bytes(b"old" * 5000)
    os.utime(below / "file", (5, 7))
    assert mtime(above / "file") == 7
    with (above / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert os.fstat(file.fileno()).st_mtime == 7
        mapped[:3] = b"new"
        mapped.flush()
    shows(lambda: mtime(above / "file") == mtime(below / "file") != 7)


def test_files_without_a_name(below: Path, above: Path) -> None:
    (below / "file").write_text("content")
    with (above / "file").open("rb") as file, (below / "file").open("r+b") as under:
        (below / "file").unlink()
        shows(lambda: os.fstat(file.fileno()).st_nlink == 0)
        os.fchmod(under.fileno(), 0o600)
        shows(lambda: stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600)


def test_links_made_where_nobody_has_looked(mount: Mount, below: Path, above: Path) -> None:
    if stats(mount)["coherence"] == "inotify":
        pytest.skip("what is done in directories that nobody has looked at is not told there")
    (below / "unseen").mkdir()
    (below / "file").write_text("content")
    assert links(above / "file") == 1
    os.link(below / "file", below / "unseen" / "another")
    shows(lambda: links(above / "file") == 2)
    (below / "unseen" / "another").write_text("by its other name")
    shows(lambda: (above / "file").read_text() == "by its other name")
    shows(lambda: size(above / "file") == 17)


def test_set_id_files_are_asked_for_each_time(mount: Mount, below: Path, above: Path) -> None:
    (below / "file").write_text("content")
    (below / "file").chmod(0o4755)
    assert stat.S_IMODE((above / "file").stat().st_mode) == 0o4755
    before = stats(mount)["GETATTR"]["daemon"]
    for _ in range(5):
        (above / "file").stat()
    assert stats(mount)["GETATTR"]["daemon"] >= before + 5


def test_what_is_made_through_the_mount_is_known(mount: Mount, below: Path, above: Path) -> None:
    """The daemon's own changes are nothing new to the kernel: nothing is told, nothing asked."""
    kind, tier = (stats(mount)[name] for name in ("coherence", "tier"))
    if kind == "inotify":
        pytest.skip("inotify does not tell who has changed something")
    time.sleep(0.3)
    before = stats(mount)
    for number in range(1000):
        path = above / f"file{number}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        path.chmod(0o640)
        if number % 4 == 0:
            path.rename(above / f"renamed{number}")
        if number % 4 == 1:
            path.unlink()
        if number % 4 == 2:
            (above / f"dir{number}").mkdir()
    time.sleep(0.3)
    after = stats(mount)
    assert after["own_events"] - before["own_events"] >= 1000
    told = after["invalidated_inodes"] - before["invalidated_inodes"]
    # Who bypasses closes the backing file in its own name.
    assert told <= (5 if tier == "none" else 1005)
    assert after["invalidated_names"] == before["invalidated_names"]
    assert after["watch_overflows"] == 0
    asked = requests(mount)
    for number in range(0, 1000, 4):
        assert mode(above / f"renamed{number}") == 0o640
        assert not (above / f"file{number + 1}").exists()
        assert (above / f"dir{number + 2}").is_dir()
    if tier == "none":
        assert requests(mount) - asked <= 750, "renamed and removed ones are looked up once"


def test_writing_through_the_mount(mount: Mount, below: Path, above: Path) -> None:
    """Many small writes are told as few times as they are read in bunches."""
    before = stats(mount)["invalidated_inodes"]
    began = time.monotonic()
    with (above / "file").open("wb", buffering=0) as file:
        for _ in range(20_000):
            file.write(b"x" * 100)
    bunches = (time.monotonic() - began) / 0.01
    assert stats(mount)["invalidated_inodes"] - before <= 2 * bunches + 10
    assert size(above / "file") == size(below / "file") == 2_000_000


def test_ten_thousand_quick_changes(below: Path, above: Path) -> None:
    for number in range(1000):
        (below / f"file{number}").touch()
    remember(above)
    for turn in range(10):
        for number in range(1000):
            os.chmod(below / f"file{number}", 0o600 + turn)
    taken = shows(lambda: mode(above / "file999") == 0o611)
    assert [mode(above / f"file{number}") for number in range(1000)] == [0o611] * 1000
    assert taken < LATEST


# --- where it cannot be had, and where it is told -----------------------------------------------


def mount_of(place: Path, source: Path, text: str, *arguments: str) -> tuple[int, list[str]]:
    (place / "refused").mkdir(exist_ok=True)
    policy = policy_in(place, text)
    done = inopt("mount", str(policy), str(source), str(place / "refused"), *arguments)
    return done.returncode, done.stderr.strip().splitlines()


def test_refused_where_changes_escape_notice(place: Path) -> None:
    (place / "src").mkdir()
    with mounted(place / "src", place / "mnt") as lower:
        code, lines = mount_of(place, lower.path, POLICY)
        assert (code, len(lines)) == (2, 1), lines
        assert re.search(
            r"policy\.yaml:2:\d+: coherence 'notify': source '.*/mnt' cannot be watched: it is on "
            r"fuse, where others .*: use 'coherence: timeout'$",
            lines[0],
        )
    code, lines = mount_of(place, place / "src", POLICY, "--transport", "pyfuse3")
    assert (code, len(lines)) == (2, 1), lines
    assert re.search(r"policy\.yaml:2:\d+: coherence 'notify': not with stock pyfuse3", lines[0])


def test_the_log_says_who_watches(place: Path) -> None:
    policy = policy_in(place)
    with mounted(place / "src", place / "mnt", policy=policy) as mount:
        told = watching(mount)
        assert [line["by"] for line in told] == ["fanotify"]
    with mounted(place / "src", place / "mnt", policy=policy, environment=NO_FANOTIFY) as mount:
        (line,) = watching(mount)[1:]
        assert (line["by"], line["because"]) == (
            "inotify",
            "no fanotify: INOPT_NO_FANOTIFY is set",
        )
        assert stats(mount)["watch_budget"] > 100


def watching(mount: Mount) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in mount.log.read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == "changes underneath are watched"]


def test_without_file_handles(place: Path) -> None:
    source = overlay_in(place)
    (source / "dir").mkdir()
    (source / "dir" / "file").write_text("old")
    with mounted(source, place / "mnt", policy=policy_in(place)) as mount:
        assert stats(mount)["coherence"] == "inotify"
        for _ in range(2):
            assert (mount.path / "dir" / "file").read_text() == "old"
        (source / "dir" / "file").write_text("newer")
        (source / "dir" / "file").chmod(0o600)
        shows(lambda: mode(mount.path / "dir" / "file") == 0o600)
        assert (mount.path / "dir" / "file").read_text() == "newer"
        (source / "dir" / "file").rename(source / "dir" / "other")
        shows(lambda: not (mount.path / "dir" / "file").exists())
        shows((mount.path / "dir" / "other").exists)


def test_a_mount_below_the_root(place: Path) -> None:
    """What is on another filesystem is not watched: it is believed for a second, as ever."""
    (place / "src" / "inner").mkdir(parents=True)
    (place / "other").mkdir()
    (place / "other" / "file").touch()
    sh("mount", "--bind", str(place / "other"), str(place / "src" / "inner"))
    try:
        with mounted(place / "src", place / "mnt", policy=policy_in(place)) as mount:
            path = mount.path / "inner" / "file"
            path.stat()
            (place / "other" / "file").chmod(0o611)
            assert within(2.5, lambda: mode(path) == 0o611)
            (place / "other" / "file").unlink()
            assert within(2.5, lambda: not path.exists())
    finally:
        sh("umount", str(place / "src" / "inner"))


# --- reload ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fanotify", "inotify"])
def test_reload_switches_it(place: Path, kind: str) -> None:
    policy = policy_in(place, "version: 1\n")
    with mounted(
        place / "src", place / "mnt", policy=policy, environment=environment(kind)
    ) as mount:
        (mount.source / "file").touch()
        descriptors = stats(mount)["fds"]
        for turn in range(2):
            assert stats(mount)["coherence"] == "timeout"
            mode(mount.path / "file")
            policy.write_text(POLICY)
            reload(mount)
            assert stats(mount)["coherence"] == kind
            for _ in range(2):
                mode(mount.path / "file")
            assert believed(mount, mount.path / "file")
            (mount.source / "file").chmod(0o600 + turn)
            assert shows(lambda: mode(mount.path / "file") == 0o600 + turn) < LATEST  # noqa: B023
            reload(mount)
            assert stats(mount)["coherence"] == kind, "it stays"
            for _ in range(2):
                mode(mount.path / "file")
            policy.write_text("version: 1\n")
            reload(mount)
            assert stats(mount)["coherence"] == "timeout"
            mode(mount.path / "file")
            assert not believed(mount, mount.path / "file")
            assert within(3, lambda: stats(mount)["fds"] <= descriptors + 1)
        assert threads(mount) & {"inopt-coherenc", "inopt-teller-0"} == set()
        assert mount.complaints() == []


def threads(mount: Mount) -> set[str]:
    """The names of the daemon's threads, as far as the kernel keeps them."""
    folder = Path(f"/proc/{mount.pid}/task")
    return {(each / "comm").read_text().strip()[:14] for each in folder.iterdir()}


def believed(mount: Mount, path: Path) -> bool:
    """Whether the kernel asks for nothing although a second has passed."""
    before = requests(mount)
    time.sleep(1.3)
    path.stat()
    return requests(mount) == before


# --- policies -----------------------------------------------------------------------------------

SEALED: Final = (
    POLICY
    + """
rules:
- match: {path: /sealed/**}
  deny: [open, overwrite]
"""
)
STAYS: Final = """
import os, sys
held = os.open(sys.argv[1], os.O_RDONLY)
print("ready")
sys.stdin.read()
"""


def test_a_directory_moved_under_other_rules(place: Path) -> None:
    """Names that are still believed, deep in it and in use, come under those rules, too."""
    with mounted(place / "src", place / "mnt", policy=policy_in(place, SEALED)) as mount:
        (mount.source / "open" / "dir" / "deep").mkdir(parents=True)
        (mount.source / "sealed").mkdir()
        (mount.source / "open" / "dir" / "deep" / "file").write_text("content")
        path = mount.path / "open" / "dir" / "deep"
        assert (path / "file").read_text() == "content"
        keeper = start_client(STAYS, str(path))
        try:
            (mount.source / "open" / "dir").rename(mount.source / "sealed" / "dir")
            moved = mount.path / "sealed" / "dir" / "deep" / "file"
            shows(lambda: error_of(moved.read_text) == errno.EACCES)
            (mount.source / "sealed" / "dir").rename(mount.source / "open" / "again")
            again = mount.path / "open" / "again" / "deep" / "file"
            shows(lambda: again.read_text() == "content")
        finally:
            keeper.communicate(timeout=10)


def test_a_slow_handler_holds_up_nothing_else(place: Path) -> None:
    """The kernel drops no name while a lookup in that directory is being served."""
    text = POLICY + "handlers: support.troubled:SlowLookup\nrules: [{handle: [lookup]}]\n"
    (place / "src" / "slow").mkdir(parents=True)
    (place / "src" / "calm").mkdir()
    for name in ("slow/gone", "calm/gone", "calm/file"):
        (place / "src" / name).write_text(name)
    with mounted(
        place / "src",
        place / "mnt",
        policy=policy_in(place, text),
        environment={"PYTHONPATH": str(TESTS)},
    ) as mount:
        for name in ("slow/gone", "calm/gone", "calm/file"):
            assert (mount.path / name).read_text() == name
        code = "import os, sys; print('ready'); os.path.exists(sys.argv[1])"
        waits = [start_client(code, str(mount.path / "slow" / "take-your-time")) for _ in range(2)]
        time.sleep(0.3)
        began = time.monotonic()
        (mount.source / "slow" / "gone").unlink()
        (mount.source / "calm" / "gone").unlink()
        (mount.source / "calm" / "file").chmod(0o611)
        shows(lambda: mode(mount.path / "calm" / "file") == 0o611)
        shows(lambda: not (mount.path / "calm" / "gone").exists())
        assert time.monotonic() - began < 2
        for process in waits:
            process.communicate(timeout=30)
        shows(lambda: not (mount.path / "slow" / "gone").exists())
        assert mount.complaints() == []
