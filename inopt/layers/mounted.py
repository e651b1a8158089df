"""What the mounts of this moment are made of, as the mount table tells.

Source: proc(5) (mountinfo), fs/overlayfs/params.c of Linux 6.18 (how options are shown).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from inopt.kernel.mounts import unescaped
from inopt.layers.options import split_lowers

_OPTION: Final = re.compile(r"(upperdir|workdir|lowerdir\+?|datadir\+)=((?:\\.|[^,\\])*)")
_ESCAPED: Final = re.compile(r"\\(.)")


class LayerMount(NamedTuple):
    """One line of the mount table; ``written`` and ``lowers``: the layers it is made of."""

    point: str
    device: str
    kind: str
    written: list[str]
    lowers: list[str]

    def has(self, device: int, number: int, *, lower: bool = False) -> bool:
        """Whether the directory of that inode is a layer of it; *lower*: also one only read."""
        return any(_leads_to(path, device, number) for path in self.written + self.lowers * lower)


def layer_mounts() -> Iterator[LayerMount]:
    """All mounts, in the order in which they were made."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.rstrip("\n").partition(" - ")
            words = before.split(" ")
            kind, source, options = after.split(" ", 2)
            written, lowers = [], []
            if kind == "fuse.inopt":
                written = [unescaped(source)]
            elif kind == "overlay":
                for key, value in _OPTION.findall(unescaped(options)):
                    if key == "lowerdir":
                        lowers += split_lowers(value.replace("::", ":"))
                    elif key in ("upperdir", "workdir"):
                        written.append(_ESCAPED.sub(r"\1", value))
                    else:
                        lowers.append(_ESCAPED.sub(r"\1", value))
            yield LayerMount(unescaped(words[4]), words[2], kind, written, lowers)


def _leads_to(path: str, device: int, number: int) -> bool:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (device, number)
