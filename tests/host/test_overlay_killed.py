"""SIGKILL at every step of a copy-up, a rename, a removal: what was done stays, nothing is half.

What each operation leads to is what it does on the kernel's overlayfs. After the daemon has died,
a new mount must show what all operations that were answered led to, or those and the one under way;
its work directory must be empty, and the kernel's overlayfs must show the same.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from support.crashing import Fuse, run_with
from support.layer_snapshots import Tree, apart, shown
from support.layer_trees import ACCESS_ACL, ACLS, LONG_AGO
from support.mounting import detach, in_place, mounts_below
from support.overlays import FEATURES_OFF, Layers, left_in_work, mounted_by_kernel, mounted_by_us
from support.rawcalls import RENAME_EXCHANGE, linkat, renameat2
from support.sizing import STRESS
from support.waiting import within

pytestmark = pytest.mark.host

# In the usual run each scenario dies at some of its steps, other ones in each tier.
_MOST: Final = 1000 if STRESS else 7
_DATA: Final = b"0123456789abcdef" * 5000

Operation = Callable[[Path], object]


def _fill(layers: Layers) -> None:
    """Two lower layers and an upper one, with all that copying and removing can meet."""
    bottom, top = layers.lowers[1], layers.lowers[0]
    for layer in (bottom, top):
        (layer / "d" / "e").mkdir(parents=True)
        (layer / "empty").mkdir()
        (layer / "file").write_bytes(_DATA)
        (layer / "d" / "e" / "deep").write_bytes(_DATA)
        (layer / "d" / "other").write_text("other")
        (layer / "gone").write_text("under a whiteout")
        (layer / "gone.d").mkdir()
    (bottom / "d" / "only below").write_text("below")
    (top / "link").symlink_to("file")
    os.mkfifo(top / "fifo")
    os.link(top / "file", top / "hard")
    os.setxattr(top / "file", "user.color", b"red")
    os.setxattr(top / "file", ACCESS_ACL, ACLS[0])
    os.chown(top / "file", 1001, 1001)
    os.chmod(top / "file", 0o4755)
    with (top / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 20)
        sparse.seek(700_000)
        sparse.write(b"island")
    for name in ("gone", "gone.d"):
        os.mknod(layers.upper / name, stat.S_IFCHR, 0)
    (layers.upper / "own.d").mkdir()
    (layers.upper / "own.d" / "inside").write_text("mine")
    (layers.upper / "own").write_text("mine")
    (layers.upper / "d").mkdir()
    os.mknod(layers.upper / "d" / "only below", stat.S_IFCHR, 0)
    for layer in layers.all:
        for folder, _, files in os.walk(layer, topdown=False):
            for name in (*files, "."):
                with suppress(OSError):
                    path = os.path.join(folder, name)
                    os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def _write(name: str, data: bytes, flags: int = os.O_RDWR) -> Operation:
    def write(root: Path) -> None:
        descriptor = os.open(root / name, flags, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    return write


def _nameless(root: Path) -> None:
    descriptor = os.open(root / "d", os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        linkat(descriptor, os.fsencode(root / "d" / "named"))
    finally:
        os.close(descriptor)


def _renamed(old: str, new: str, flags: int = 0) -> Operation:
    return lambda root: renameat2(os.fsencode(root / old), os.fsencode(root / new), flags)


SCENARIOS: Final[dict[str, list[Operation]]] = {
    "copying": [
        lambda root: os.chmod(root / "d/e/deep", 0o600),
        lambda root: os.chown(root / "file", 1002, -1),
        lambda root: os.utime(root / "sparse", (1, 2)),
        lambda root: os.lchown(root / "link", 1002, 1002),
        lambda root: os.chmod(root / "fifo", 0o600),
        lambda root: os.setxattr(root / "hard", "user.a", b"1"),
        lambda root: os.chmod(root / "empty", 0o700),
    ],
    "truncating": [
        lambda root: os.truncate(root / "file", 10),
        lambda root: os.close(os.open(root / "d/e/deep", os.O_WRONLY | os.O_TRUNC)),
    ],
    "renaming": [
        _renamed("file", "d/e/moved"),
        _renamed("d/other", "d/e/deep"),
        _renamed("sparse", "gone"),
        _renamed("own.d", "empty"),
        _renamed("link", "fifo", RENAME_EXCHANGE),
        _renamed("own", "own.d"),
    ],
    "removing": [
        lambda root: os.unlink(root / "file"),
        lambda root: os.unlink(root / "d/other"),
        lambda root: os.unlink(root / "d/e/deep"),
        lambda root: os.rmdir(root / "d/e"),
        lambda root: os.rmdir(root / "d"),
        lambda root: os.rmdir(root / "empty"),
        lambda root: os.unlink(root / "own"),
    ],
    "making": [
        lambda root: os.mkdir(root / "gone.d"),
        _write("gone", b"", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        _write("gone", b"again"),
        lambda root: os.link(root / "file", root / "d" / "only below"),
        lambda root: os.symlink("file", root / "d" / "symbolic"),
        _nameless,
    ],
}


def _seen(path: Path) -> Tree:
    """What a mount shows, but for what tells whether something has been copied up.

    That may be done although what it was done for is not.
    """
    taken = shown(path)
    for entry in taken.values():
        del entry["nlink"]
        # A file opened to be emptied is copied up empty, and then has its new time.
        if stat.S_ISDIR(entry["mode"]) or not entry["size"]:
            del entry["mtime"]
    return taken


def _expected(layers: Layers, path: Path, operations: list[Operation]) -> list[Tree]:
    """What the kernel's overlayfs shows before the operations, and after each of them."""
    with mounted_by_kernel(layers, path):
        states = [_seen(path)]
        for operation in operations:
            operation(path)
            states.append(_seen(path))
    return states


class Crash:
    """Mounts, does the operations until the daemon dies, and looks at what there is."""

    def __init__(self, place: Path, tier: str, states: list[Tree]) -> None:
        self._place = place
        self._tier = tier
        self._states = states

    def run(self, step: int, operations: list[Operation]) -> tuple[Fuse, int]:
        """Die before *step* (0: never); the fuse, and how many operations were answered."""
        with in_place("crash") as place:
            layers = Layers.made(place / "layers", 2)
            _fill(layers)
            mnt = place / "mnt"
            mnt.mkdir()
            fuse = Fuse(place / "fuse")
            arguments = ["mount", "overlay", str(mnt), *layers.arguments(), "--tier", self._tier]
            run_with(fuse, *arguments, "--log-file", str(place / "log"))
            done = 0
            try:
                fuse.arm(step)
                with suppress(OSError):
                    for operation in operations:
                        operation(mnt)
                        done += 1
                fuse.disarm()
            finally:
                for point in mounts_below(mnt):
                    detach(point)
            self._check(layers, mnt, done, f"dead before step {step}")
            return fuse, done

    def _check(self, layers: Layers, mnt: Path, done: int, label: str) -> None:
        possible = self._states[done : done + 2]
        problems: list[str] = []

        def again() -> bool:
            with mounted_by_us(layers, mnt, "--tier", self._tier) as mount:
                ours = _seen(mnt)
                apartness = [apart(state, ours, ("wanted", "ours")) for state in possible]
                if all(apartness):
                    problems.extend([f"{done} answered:", *apartness[0]])
                problems.extend(f"left in work: {name}" for name in left_in_work(layers))
                problems.extend(mount.complaints())
            with mounted_by_kernel(layers, mnt, FEATURES_OFF):
                problems.extend(apart(ours, _seen(mnt), ("ours", "the kernel")))
            return True

        # The work directory is in use until the dead one is gone altogether.
        assert within(again)
        assert not problems, "\n".join([label, *problems])


def _steps(count: int, key: str) -> list[int]:
    """Some of the steps, spread out; all of them if there is time."""
    if count <= _MOST:
        return list(range(1, count + 1))
    start = zlib.crc32(key.encode()) % (count // _MOST)
    return [1 + start + number * (count - start) // _MOST for number in range(_MOST)]


@pytest.mark.timeout(3600 if STRESS else 300)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("tier", ["none", "rw"])
def test_dying_at_every_step(place: Path, tier: str, scenario: str) -> None:
    operations = SCENARIOS[scenario]
    layers = Layers.made(place / "kernel", 2)
    _fill(layers)
    (place / "mnt").mkdir()
    crash = Crash(place, tier, _expected(layers, place / "mnt", operations))
    fuse, done = crash.run(0, operations)
    assert done == len(operations)
    assert fuse.steps > 3 * len(operations), fuse.names
    for step in _steps(fuse.steps, f"{scenario} {tier}"):
        crash.run(step, operations)
