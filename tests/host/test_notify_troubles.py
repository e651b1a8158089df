"""With ``coherence: notify``: races, floods, watches that fail, and the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support import underneath
from support.mounting import Mount, in_place, mounted
from support.notifying import notified, policy_in
from support.programs import events, filesystem_in, python_program, sh
from support.sizing import STRESS
from support.waiting import state_of, within

pytestmark = pytest.mark.host

QUEUE: Final = Path("/proc/sys/fs/fanotify/max_queued_events")


@contextmanager
def walking(path: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that look at everything below *path* without end."""
    program = [python_program(), "-I", "-S", underneath.__file__, str(path)]
    walkers = [
        subprocess.Popen([*program, str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(count)
    ]
    try:
        for walker in walkers:
            assert walker.stdout is not None
            assert walker.stdout.readline() == "ready\n"
        yield walkers
    finally:
        for walker in walkers:
            walker.kill()
            walker.wait()


@pytest.mark.parametrize("way", ["none-fanotify", "rw-fanotify", "rw-inotify"])
def test_random_changes_while_others_look(place: Path, way: str) -> None:
    """After a moment the mount is what the tree is, to the nanosecond, whatever was cached."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    with notified(place, way) as mount, walking(mount.path, 2) as walkers:
        for turn in range(40 if STRESS else 8):
            for _ in range(chance.randrange(5, 60)):
                top = mount.source if chance.random() < 0.8 else mount.path
                underneath.change(str(top), chance, links="fanotify" in way)
                if chance.random() < 0.2:
                    time.sleep(chance.random() * 0.01)
            for walker in walkers:
                walker.send_signal(signal.SIGSTOP)
            assert within(lambda: {state_of(walker.pid) for walker in walkers} == {"T"})
            assert within(lambda: not differences(mount)), (seed, turn, differences(mount))
            for walker in walkers:
                walker.send_signal(signal.SIGCONT)
        told = mount.stats()
        assert told["invalidated_names"] > 10
        assert told["watch_overflows"] == 0
        assert mount.complaints() == []


def differences(mount: Mount) -> object:
    """Between what the mount shows and what is underneath."""
    seen, there = underneath.tree(str(mount.path)), underneath.tree(str(mount.source))
    return underneath.differences(seen, there)


@pytest.mark.parametrize("kind", ["fanotify", "inotify"])
def test_more_changes_than_can_be_noticed(place: Path, kind: str) -> None:
    """A daemon that sleeps meanwhile has them lost; then everything is asked for again."""
    with notified(place, f"auto-{kind}") as mount:
        for number in range(200):
            (mount.source / f"file{number}").touch()
        (mount.source / "gone").touch()
        for _ in range(2):
            underneath.tree(str(mount.path))
        queued = int(QUEUE.read_text())
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            for number in range(queued + 1000):  # each one another event
                os.close(os.open(mount.source / f"flood{number}", os.O_CREAT | os.O_WRONLY))
            for number in range(200):
                (mount.source / f"file{number}").chmod(0o611)
            (mount.source / "gone").unlink()
            (mount.source / "a").write_text("was not there")
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        assert within(lambda: mount.stats()["watch_overflows"] >= 1)

        def is_as_underneath() -> bool:
            modes = {(mount.path / f"file{number}").stat().st_mode & 0o777 for number in range(200)}
            there = (mount.path / "a").exists() and (mount.path / "a").read_text()
            gone = not (mount.path / "gone").exists()
            return modes == {0o611} and gone and there == "was not there"

        assert within(is_as_underneath)
        (complaint,) = mount.complaints()
        assert "more changes underneath than could be noticed" in complaint
        # It goes on as before.
        (mount.source / "file0").chmod(0o600)
        assert within(lambda: (mount.path / "file0").stat().st_mode & 0o777 == 0o600)


def test_the_end_of_a_mount(place: Path) -> None:
    """Whatever the watch is about to tell, unmounting takes no longer, and leaves nothing."""
    (place / "own").mkdir()
    with filesystem_in(place / "own") as source:
        for name in ("first", "second"):
            (place / name).mkdir()
            mount = Mount(source, place / name, policy=str(policy_in(place)))
            (source / "file").touch()
            os.stat(mount.path / "file")
            flood = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", FLOOD, str(source)], stdout=subprocess.PIPE
            )
            time.sleep(0.5)
            mount.close()
            flood.kill()
            flood.wait()
            assert "unmounted" in events(mount)
        sh("umount", str(source))
        sh("mount", "-o", "loop", str(place / "own" / "back.image"), str(source))


FLOOD: Final = """
import os, sys
number = 0
while True:
    number += 1
    path = os.path.join(sys.argv[1], f"flood{number % 50}")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
"""

EMBEDDED: Final = """
import json, os, subprocess, sys, threading
import trio
import inopt
from inopt.backing.watch.fanotify import Fanotify

source, mountpoint, policy, what = sys.argv[1:]
descriptors = lambda: sorted(os.listdir("/proc/self/fd"), key=int)
threads = lambda: sorted(thread.name for thread in threading.enumerate())

def mode():
    return subprocess.check_output(["stat", "-c", "%a", f"{mountpoint}/file"], text=True).strip()

async def look():
    return await trio.to_thread.run_sync(mode)

async def shows(wanted):
    with trio.move_on_after(60):
        while await look() != wanted:
            await trio.sleep(0.02)
    return await look()

read = Fanotify.read
def broken(self, own):
    raise OSError(5, "Input/output error")

async def main():
    before = descriptors()
    report = {}
    async with inopt.mount(mountpoint, source=source, policy=policy) as session:
        await look()
        report["during"] = threads()
        os.chmod(f"{source}/file", 0o611)   # by this process, but not for the mount
        report["by itself"] = await shows("611")
        if what == "fails":
            Fanotify.read = broken
            os.chmod(f"{source}/file", 0o644)
            report["after failing"] = await shows("644")
            report["coherence"] = session.stats()["coherence"]
            os.chmod(f"{source}/file", 0o600)
            report["by timeout"] = await shows("600")
            Fanotify.read = read
            await session.reload()
            report["again"] = session.stats()["coherence"]
            await look()
            os.chmod(f"{source}/file", 0o640)
            report["noticed again"] = await shows("640")
    with trio.move_on_after(60):  # the watch over the readers ends with its next look
        while any(name.startswith("inopt") for name in threads()):
            await trio.sleep(0.02)
    report["threads"] = [name for name in threads() if name.startswith("inopt")]
    report["descriptors"] = len(descriptors()) - len(before)
    print(json.dumps(report))

trio.run(main)
"""


def embedded(place: Path, what: str) -> tuple[dict[str, Any], str]:
    """What a program saw that has a mount of its own."""
    for name in ("src", "mnt"):
        (place / name).mkdir()
    (place / "src" / "file").touch()
    policy_in(place)
    places = [str(place / name) for name in ("src", "mnt", "policy.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, *places, what],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report, done.stdout + done.stderr


def test_nothing_is_left_in_the_program(place: Path) -> None:
    report, _ = embedded(place, "works")
    assert "inopt-coherence" in report["during"]
    assert report["by itself"] == "611", "what the program does itself is noticed, too"
    assert report["threads"] == []
    assert report["descriptors"] <= 1  # trio's own


def test_a_watch_that_fails(place: Path) -> None:
    """Rather than believing what is old, the kernel asks for everything again."""
    report, said = embedded(place, "fails")
    assert "changes underneath are not noticed any more" in said
    assert report["coherence"] == "timeout (the watch has failed)"
    assert report["after failing"] == "644"
    assert report["by timeout"] == "600"
    assert (report["again"], report["noticed again"]) == ("fanotify", "640")
    assert report["threads"] == []
    assert report["descriptors"] <= 1


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_other_filesystems(host: None, kind: str) -> None:
    with in_place("other") as place, filesystem_of(place, kind) as source:
        (source / "file").write_text("old")
        with mounted(source, place / "mnt", policy=policy_in(place)) as mount:
            assert mount.stats()["coherence"] == "fanotify"
            assert (mount.path / "file").read_text() == "old"
            (source / "file").write_text("newer")
            (source / "other").touch()
            assert within(lambda: (mount.path / "file").stat().st_size == 5)
            assert within((mount.path / "other").exists)
            (source / "file").unlink()
            assert within(lambda: not (mount.path / "file").exists())
            assert mount.complaints() == []


@contextmanager
def filesystem_of(place: Path, kind: str) -> Iterator[Path]:
    if kind == "ext4":
        with filesystem_in(place) as path:
            yield path
        return
    path = place / "back"
    path.mkdir()
    sh("mount", "-t", kind, kind, str(path))
    try:
        yield path
    finally:
        sh("umount", str(path))
