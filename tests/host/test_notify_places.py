"""Where ``coherence: notify`` can be had, by what, and where not; with `inopt reload`, too."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from support.mounting import Mount, inopt, mounted
from support.notifying import (
    NO_FANOTIFY,
    POLICY,
    environment,
    mode,
    policy_in,
    reload,
    requests,
    shows,
)
from support.programs import overlay_in, sh
from support.waiting import within

pytestmark = pytest.mark.host


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
        assert mount.stats()["watch_budget"] > 100


def watching(mount: Mount) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in mount.log.read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == "changes underneath are watched"]


def test_without_file_handles(place: Path) -> None:
    source = overlay_in(place)
    (source / "dir").mkdir()
    (source / "dir" / "file").write_text("old")
    with mounted(source, place / "mnt", policy=policy_in(place)) as mount:
        assert mount.stats()["coherence"] == "inotify"
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
            assert within(lambda: mode(path) == 0o611)
            (place / "other" / "file").unlink()
            assert within(lambda: not path.exists())
    finally:
        sh("umount", str(place / "src" / "inner"))


@pytest.mark.parametrize("kind", ["fanotify", "inotify"])
def test_reload_switches_it(place: Path, kind: str) -> None:
    policy = policy_in(place, "version: 1\n")
    with mounted(
        place / "src", place / "mnt", policy=policy, environment=environment(kind)
    ) as mount:
        (mount.source / "file").touch()
        descriptors = mount.stats()["fds"]
        for turn in range(2):
            assert mount.stats()["coherence"] == "timeout"
            mode(mount.path / "file")
            policy.write_text(POLICY)
            reload(mount)
            assert mount.stats()["coherence"] == kind
            for _ in range(2):
                mode(mount.path / "file")
            assert believed(mount, mount.path / "file")
            (mount.source / "file").chmod(0o600 + turn)
            shows(lambda: mode(mount.path / "file") == 0o600 + turn)  # noqa: B023
            reload(mount)
            assert mount.stats()["coherence"] == kind, "it stays"
            for _ in range(2):
                mode(mount.path / "file")
            policy.write_text("version: 1\n")
            reload(mount)
            assert mount.stats()["coherence"] == "timeout"
            mode(mount.path / "file")
            assert not believed(mount, mount.path / "file")
            assert within(lambda: mount.stats()["fds"] <= descriptors + 1)
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
