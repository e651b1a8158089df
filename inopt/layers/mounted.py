"""What the mounts of this moment are made of, as the mount table tells.

Source: proc(5) (mountinfo), fs/overlayfs/params.c of Linux 6.18 (how options are shown).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from inopt.kernel.mounts import Mounted, is_inopt, mount_table
from inopt.layers.options import split_lowers

_OPTION: Final = re.compile(r"(upperdir|workdir|lowerdir\+?|datadir\+)=((?:\\.|[^,\\])*)")
_ESCAPED: Final = re.compile(r"\\(.)")


class LayerMount(NamedTuple):
    """A mount made of other directories: ``written``, of inopt its source, and ``lowers``."""

    point: str
    device: int
    is_overlay: bool
    written: list[str]
    lowers: list[str]

    def has(self, device: int, number: int, *, lower: bool = False) -> bool:
        """Whether the directory of that inode is a layer of it; *lower*: also one only read."""
        return any(_leads_to(path, device, number) for path in self.written + self.lowers * lower)


def layer_mounts() -> Iterator[LayerMount]:
    """All mounts of overlayfs and of inopt, in the order in which they were made."""
    for mounted in mount_table():
        device = os.makedev(mounted.device_major, mounted.device_minor)
        if is_inopt(mounted):
            yield LayerMount(mounted.mountpoint, device, False, [mounted.source], [])
        elif mounted.kind == "overlay":
            yield LayerMount(mounted.mountpoint, device, True, *_layers_of(mounted))


def _layers_of(mounted: Mounted) -> tuple[list[str], list[str]]:
    written, lowers = [], []
    for key, value in _OPTION.findall(mounted.options):
        if key == "lowerdir":
            lowers += split_lowers(value.replace("::", ":"))
        elif key in ("upperdir", "workdir"):
            written.append(_ESCAPED.sub(r"\1", value))
        else:
            lowers.append(_ESCAPED.sub(r"\1", value))
    return written, lowers


def _leads_to(path: str, device: int, number: int) -> bool:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (device, number)
