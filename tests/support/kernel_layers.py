"""Layers made by the kernel's own overlayfs: random trees, changed at random through its mount."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from support.mounting import detach
from support.programs import sh
from support.snapshot import snapshot

_NAMES: Final = [
    b"a", b"b", b"c", b"d", b"e", b"ordner", b"f\xff\xfe", b"two\nlines", "grün".encode(),
    b"x" * 200, b"-r", b"[red]", b"sp ace",
]  # fmt: skip
_ATTRIBUTES: Final = ["user.one", "user.two", "trusted.three", "trusted.overlay.nested"]
# linux/posix_acl_xattr.h: version 2; then entries of tag, permissions, id.
_ACL: Final = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in [
        (1, 6, 0xFFFFFFFF), (2, 7, 1001), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    ]
)  # fmt: skip


class Layers:
    """The directories of one overlay below a place; ``lowers`` has the topmost first."""

    def __init__(self, place: Path, lowers: int = 1, options: str = "") -> None:
        self.place = place
        self.options = options
        self.lowers = [place / f"lower{number}" for number in range(lowers)]
        self.upper, self.work = place / "upper", place / "work"
        self.merged = place / "merged"
        for path in [*self.lowers, self.upper, self.work, self.merged]:
            path.mkdir()

    @property
    def lower_text(self) -> str:
        """The lowers as ``--lower`` takes them."""
        return ":".join(str(path) for path in self.lowers)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The kernel's mount of all layers."""
        upper = f"upperdir={self.upper},workdir={self.work}"
        with _overlay(self.merged, f"lowerdir={self.lower_text},{upper}{self.options}"):
            yield self.merged

    @contextmanager
    def below(self) -> Iterator[Path]:
        """The tree that the lowers make without the upper layer, read-only."""
        options = ",userxattr" if "userxattr" in self.options else ""
        nothing = self.place / "nothing"  # there must be two
        nothing.mkdir(exist_ok=True)
        with _overlay(self.merged, f"lowerdir={self.lower_text}:{nothing}{options}"):
            yield self.merged

    def copy_of_lowers(self, name: str = "target") -> Path:
        """A new directory with all that the lowers show."""
        target = self.place / name
        with self.below() as tree:
            sh("cp", "-a", "--no-target-directory", "--", str(tree), str(target))
        return target

    def make_random(self, seed: int, steps: int) -> random.Random:
        """Fill the lowers, each through a mount on the one below, and change the upper."""
        dice = random.Random(seed)
        fill(dice, self.lowers[-1])
        for number in range(len(self.lowers) - 2, -1, -1):
            below = ":".join(str(path) for path in self.lowers[number + 1 :])
            work = self.place / f"work-lower{number}"
            work.mkdir()
            layers = f"lowerdir={below},upperdir={self.lowers[number]},workdir={work}"
            with _overlay(self.merged, layers + self.options):
                change(dice, self.merged, steps)
        with self.mounted():
            change(dice, self.merged, steps)
        return dice


@contextmanager
def _overlay(at: Path, options: str) -> Iterator[None]:
    sh("mount", "-t", "overlay", "overlay", str(at), "-o", options)
    try:
        yield
    finally:
        detach(at)


def fill(dice: random.Random, root: Path) -> None:
    """Make a tree with all kinds of files in an empty directory."""
    top = os.fsencode(root)
    folders = [top]
    for _ in range(8):
        path = _new(dice, folders)
        with suppress(FileExistsError):
            os.mkdir(path)
            folders.append(path)
    for _ in range(40):
        path = _new(dice, folders)
        with suppress(OSError, IndexError):
            _make(dice, path, top)
    for path in paths_below(top):
        if dice.random() < 0.5:
            _dress(dice, path)


def change(dice: random.Random, root: Path, steps: int) -> None:
    """Do *steps* things that programs do; what the kernel refuses is left."""
    top = os.fsencode(root)
    for _ in range(steps):
        every = paths_below(top)
        folders = [top, *(path for path in every if _is_directory(path))]
        path = dice.choice(every) if every and dice.random() < 0.8 else _new(dice, folders)
        with suppress(OSError, IndexError):
            dice.choice(_CHANGES)(dice, path, _new(dice, folders))


def paths_below(top: bytes) -> list[bytes]:
    """All paths below a directory, sorted."""
    return sorted(
        os.path.join(folder, name)
        for folder, directories, files in os.walk(top)
        for name in (*directories, *files)
    )


def _new(dice: random.Random, folders: list[bytes]) -> bytes:
    return os.path.join(dice.choice(folders), dice.choice(_NAMES))


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _make(dice: random.Random, path: bytes, top: bytes) -> None:
    match dice.randrange(9):
        case 0:
            os.symlink(dice.choice(_NAMES), path)
        case 1:
            os.mkfifo(path)
        case 2:
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, dice.randrange(3)))
        case 3:
            _make_socket(path)
        case 4:
            files = [p for p in paths_below(top) if not _is_directory(p)]
            os.link(dice.choice(files), path, follow_symlinks=False)
        case 5:
            with open(path, "xb") as file:
                file.truncate(dice.randrange(1 << 21))
                file.seek(dice.randrange(1 << 21))
                file.write(dice.randbytes(5000))
        case _:
            with open(path, "xb") as file:
                file.write(dice.randbytes(dice.choice([0, 1, 100, 9000])))


def _make_socket(path: bytes) -> None:
    folder = os.open(os.path.dirname(path), os.O_PATH)  # such a name may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(b"/proc/self/fd/%d/" % folder + os.path.basename(path)[-60:])
    finally:
        os.close(folder)


def _dress(dice: random.Random, path: bytes) -> None:
    for _ in range(2):
        with suppress(OSError):
            dice.choice([_mode, _owner, _attribute, _acl, _times])(dice, path, path)


def _mode(dice: random.Random, path: bytes, _new: bytes) -> None:
    if not os.path.islink(path):
        os.chmod(path, dice.choice([0o600, 0o644, 0o755, 0o4755, 0o2775, 0o1777, 0o000]))


def _owner(dice: random.Random, path: bytes, _new: bytes) -> None:
    os.chown(path, dice.choice([0, 1001, 3_000_000]), dice.choice([0, 1001]), follow_symlinks=False)


def _attribute(dice: random.Random, path: bytes, _new: bytes) -> None:
    name = dice.choice(_ATTRIBUTES)
    if dice.random() < 0.3:
        os.removexattr(path, name, follow_symlinks=False)
    else:
        value = dice.choice([b"", b"v", b"\xff\0=\n", dice.randbytes(200)])
        os.setxattr(path, name, value, follow_symlinks=False)


def _acl(dice: random.Random, path: bytes, _new: bytes) -> None:
    kind = "default" if os.path.isdir(path) and dice.random() < 0.5 else "access"
    os.setxattr(path, f"system.posix_acl_{kind}", _ACL, follow_symlinks=False)


def _times(dice: random.Random, path: bytes, _new: bytes) -> None:
    when = dice.choice([1, 1_600_000_000_123_456_789, 10**9, 9_000_000_000_000_000_001])
    os.utime(path, ns=(when, when), follow_symlinks=False)


def _write(dice: random.Random, path: bytes, _new: bytes) -> None:
    if stat.S_ISREG(os.lstat(path).st_mode):
        with open(path, "r+b") as file:
            file.seek(dice.randrange(20_000))
            file.write(dice.randbytes(100))


def _touch_only(_dice: random.Random, path: bytes, _new: bytes) -> None:
    """Copied up, and then as before."""
    if stat.S_ISREG(os.lstat(path).st_mode):
        with open(path, "r+b"):
            pass


def _create(dice: random.Random, _path: bytes, new: bytes) -> None:
    _make(dice, new, os.path.dirname(new))


def _mkdir(_dice: random.Random, _path: bytes, new: bytes) -> None:
    os.mkdir(new)


def _remove(_dice: random.Random, path: bytes, _new: bytes) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _anew(dice: random.Random, path: bytes, _new: bytes) -> None:
    """A directory that is removed and made again is opaque."""
    if _is_directory(path):
        names = os.listdir(path)
        shutil.rmtree(path)
        os.mkdir(path)
        for name in names[: dice.randrange(3)]:
            _make(dice, os.path.join(path, name), path)


def _rename(_dice: random.Random, path: bytes, new: bytes) -> None:
    os.rename(path, new)


def _link(_dice: random.Random, path: bytes, new: bytes) -> None:
    os.link(path, new, follow_symlinks=False)


_CHANGES: Final = [
    _mode, _owner, _attribute, _acl, _times, _write, _write, _touch_only, _create, _create, _mkdir,
    _remove, _anew, _rename, _rename, _link,
]  # fmt: skip


def view(root: Path) -> dict[bytes, dict[str, Any]]:
    """A tree as a value, without what a copy of it need not have.

    Link counts are not the view's: overlayfs shows those that a file has in its layer.
    """
    taken = snapshot(root)
    for entry in taken.values():
        for key in ("ctime", "nlink"):
            del entry[key]
    return taken


def unlike(one: dict[bytes, dict[str, Any]], other: dict[bytes, dict[str, Any]]) -> list[str]:
    """What two views do not agree on, and names that are one file in one of them only."""
    found = [f"{path!r}: only in one" for path in sorted(one.keys() ^ other.keys())]
    for path in sorted(one.keys() & other.keys()):
        found += [
            f"{path!r} {key}: {one[path][key]!r:.200}, {other[path].get(key)!r:.200}"
            for key in one[path]
            if key != "ino" and one[path][key] != other[path].get(key)
        ]
    return found
