"""What layers hold: trees that differ from layer to layer, with all marks made the right way.

`fill` is deterministic in its seed, so that two sets of layers are filled alike. Whiteouts are
devices: those made of attributes confuse the kernel's rmdir(2), see test_overlay_marks.
"""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from support.clients import MEMBER, TEAM, USER
from support.overlays import Layers

DIRECTORIES: Final = ("d", "d/e", "d/e/f", "m", "m/m", "p", "p/q")
FILES: Final = (
    "a", "b", "c", "l", "d/a", "d/b", "d/c", "d/l", "d/e/a", "d/e/b", "d/e/f/a",
    "m/a", "m/b", "m/m/a", "p/a", "p/q/a", "p/q/b",
)  # fmt: skip
NAMES: Final = tuple(name.encode() for name in (*FILES, *DIRECTORIES))
# Long before any test: what keeps its time can be told from what does not.
LONG_AGO: Final = 1_000_000_000
_MODES: Final = (0o644, 0o666, 0o666, 0o777, 0o600, 0o444, 0o4755, 0o2775, 0o6711)
_DIRECTORY_MODES: Final = (0o777, 0o777, 0o777, 0o755, 0o1777, 0o2777, 0o700)
_OWNERS: Final = ((0, 0), (USER, USER), (USER, USER), (USER, TEAM), (MEMBER, MEMBER))
_WORDS: Final = (b"", b"a line\n", b"0123456789" * 500, b"page" * 4096)
_FILE_KINDS: Final = {
    "file": 12, "link": 2, "symlink": 2, "sparse": 1, "fifo": 1, "device": 1, "socket": 1,
    "directory": 1,
}  # fmt: skip

ACCESS_ACL: Final = "system.posix_acl_access"
DEFAULT_ACL: Final = "system.posix_acl_default"
_TAGS: Final = {"u": 1, "U": 2, "g": 4, "G": 8, "m": 16, "o": 32}


def acl(*entries: tuple[str, int, int]) -> bytes:
    """An ACL as the kernel takes it: (tag, permissions, id); U and G are named."""
    packed = [
        struct.pack("<HHI", _TAGS[tag], allowed, who if tag in "UG" else 0xFFFFFFFF)
        for tag, allowed, who in entries
    ]
    return struct.pack("<I", 2) + b"".join(packed)


ACLS: Final = (
    acl(("u", 7, 0), ("U", 6, MEMBER), ("g", 5, 0), ("m", 7, 0), ("o", 5, 0)),
    acl(("u", 7, 0), ("g", 5, 0), ("G", 7, TEAM), ("m", 5, 0), ("o", 4, 0)),
    acl(("u", 6, 0), ("g", 4, 0), ("o", 4, 0)),
)


class _Filler:
    """Fills one subtree of all layers, from the lowest up.

    *seen* is what the layers so far show by path, so that whiteouts are put only over what is
    there, as all that make layers do.
    """

    def __init__(self, layers: Layers, top: str, seed: int) -> None:
        self._layers = layers
        self._top = top
        self._chance = random.Random(f"{seed}")
        self._seen: dict[str, str] = {}
        self._here = Path()
        self._lowest = True

    def fill(self) -> None:
        for layer in self._layers.all:
            self._here = layer / self._top
            self._fill_layer(dense=0.75 if self._lowest else 0.4)
            self._lowest = False

    def _fill_layer(self, dense: float) -> None:
        self._here.mkdir()
        self._here.chmod(0o777)
        for path in sorted((*DIRECTORIES, *FILES)):
            if self._chance.random() < dense and self._is_directory(path.rpartition("/")[0]):
                self._put(path)
        # From below: adding to a directory has changed its time.
        for folder, _, _ in os.walk(self._here, topdown=False):
            self._stamp(Path(folder))

    def _is_directory(self, path: str) -> bool:
        """Whether this layer has it; what the layers below have, it may have as well."""
        here = self._here / path
        if os.path.isdir(here) and not os.path.islink(here):
            return True
        if os.path.lexists(here) or self._seen.get(path) != "directory":
            return False
        if not self._is_directory(path.rpartition("/")[0]):
            return False
        self._put_directory(path)
        return True

    def _put(self, path: str) -> None:
        below = self._seen.get(path)
        if below and self._chance.random() < 0.3:
            self._put_whiteout(path)
        elif path in DIRECTORIES and self._chance.random() < 0.9:
            self._put_directory(path)
        else:
            self._put_file(path)

    def _put_directory(self, path: str) -> None:
        if os.path.lexists(self._here / path):
            return
        os.mkdir(self._here / path)
        below = self._seen.get(path)
        if below and (below != "directory" or self._chance.random() < 0.2):
            os.setxattr(self._here / path, "trusted.overlay.opaque", b"y")
            self._forget(path)
        self._seen[path] = "directory"
        self._dress(self._here / path, _DIRECTORY_MODES)
        if self._chance.random() < 0.15:
            os.setxattr(self._here / path, DEFAULT_ACL, self._chance.choice(ACLS))

    def _put_file(self, path: str) -> None:
        if os.path.lexists(self._here / path):
            return
        self._forget(path)
        kind = self._chance.choices(list(_FILE_KINDS), list(_FILE_KINDS.values()))[0]
        if kind == "directory":
            os.mkdir(self._here / path)
        else:
            self._make(kind, self._here / path)
        self._seen[path] = "directory" if kind == "directory" else "file"

    def _make(self, kind: str, path: Path) -> None:
        if kind == "link":
            others = sorted(
                entry.path for entry in os.scandir(path.parent) if entry.is_file(
                    follow_symlinks=False)
            )  # fmt: skip
            if others:
                os.link(self._chance.choice(others), path)
                return
        if kind == "symlink":
            os.symlink(self._chance.choice(("a", "d", "../a", "nowhere")), path)
            os.lchown(path, *self._chance.choice(_OWNERS))
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
            return
        if kind == "socket":
            with socket.socket(socket.AF_UNIX) as end:
                home = os.open(path.parent, os.O_PATH)
                end.bind(f"/proc/self/fd/{home}/{path.name}")
                os.close(home)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR, os.makedev(1, 3))
        elif kind == "sparse":
            with path.open("wb") as file:
                file.truncate(300_000)
                file.seek(100_000)
                file.write(b"island" * 100)
        else:
            path.write_bytes(self._chance.choice(_WORDS))
        self._dress(path, _MODES)

    def _dress(self, path: Path, modes: tuple[int, ...]) -> None:
        os.chown(path, *self._chance.choice(_OWNERS))
        os.chmod(path, self._chance.choice(modes))
        plain = stat.S_ISREG(path.stat().st_mode) or path.is_dir()
        if plain and self._chance.random() < 0.2:
            os.setxattr(path, "user.color", self._chance.choice((b"red", b"", b"blue" * 20)))
        if self._chance.random() < 0.1:
            os.setxattr(path, "trusted.t", b"trusted")
        if self._chance.random() < 0.1:
            # Of a layer that is itself on an overlay: there it is called trusted.overlay.own.
            os.setxattr(path, "trusted.overlay.overlay.own", b"escaped")
        if self._chance.random() < 0.1:
            os.setxattr(path, ACCESS_ACL, self._chance.choice(ACLS))
        os.utime(path, (LONG_AGO, LONG_AGO + self._chance.randrange(1000)))

    def _put_whiteout(self, path: str) -> None:
        if os.path.lexists(self._here / path):
            return
        self._forget(path)
        os.mknod(self._here / path, stat.S_IFCHR, 0)

    def _forget(self, path: str) -> None:
        for known in [
            known for known in self._seen if known == path or known.startswith(path + "/")
        ]:
            del self._seen[known]

    def _stamp(self, path: Path) -> None:
        os.utime(path, (LONG_AGO, LONG_AGO + self._chance.randrange(1000)))


def fill(layers: Layers, top: str, seed: int) -> None:
    """Make the subtree *top* in every layer."""
    _Filler(layers, top, seed).fill()
