"""Who has mounted what the tools are given: nothing may change under a mount.

Source: proc(5) (mountinfo), fs/overlayfs/params.c of Linux 6.18 (how options are shown).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from inopt.exceptions import UsageError
from inopt.layers.options import split_lowers
from inopt.layers.tools.places import Directory

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_OPTION: Final = re.compile(r"(upperdir|workdir|lowerdir\+?|datadir\+)=((?:\\.|[^,\\])*)")
_ESCAPED: Final = re.compile(r"\\(.)")
_VIEWS: Final = ("overlay", "fuse.inopt")


class _Mount(NamedTuple):
    """One line of the mount table; ``written`` and ``lowers``: the layers it is made of."""

    point: str
    device: str
    kind: str
    written: list[str]
    lowers: list[str]

    def has(self, place: Directory, *, lower: bool) -> bool:
        """Whether *place* is a layer of it, *lower*: also if one that is only read."""
        return any(_leads_to(path, place) for path in self.written + self.lowers * lower)


def users_of(place: Directory, *, lower: bool = False) -> list[str]:
    """The mountpoints that *place* is the upper or work directory of; *lower*: or a lower layer."""
    return [mount.point for mount in _mounts() if mount.has(place, lower=lower)]


def require_unused(place: Directory, why: str, *, lower: bool = False) -> None:
    """Raise `UsageError` if a mount uses *place*; *why*: what must not be done meanwhile."""
    users = users_of(place, lower=lower)
    if users:
        raise UsageError(f"'{place.path}': in use by the mount at '{users[0]}': {why}: unmount it")


def require_no_view(place: Directory, layers: tuple[Directory, ...]) -> None:
    """Raise `UsageError` if *place* is seen through a mount of *layers*, or is a part of one.

    Nor may anything be mounted inside it.
    """
    require_unused(place, "nothing can be changed under it", lower=True)
    inside = place.real.rstrip("/") + "/"
    own = f"{os.major(place.device)}:{os.minor(place.device)}"
    for mount in _mounts():
        if mount.point.startswith(inside):
            raise UsageError(
                f"'{place.path}': '{mount.point}' is mounted inside it: unmount that, or name "
                "another directory"
            )
        at_it = mount.point == place.real or any(mount.has(one, lower=True) for one in layers)
        if mount.kind in _VIEWS and mount.device == own and at_it:
            raise UsageError(
                f"'{place.path}': is seen through the mount at '{mount.point}': name a directory "
                "that is a copy"
            )


def _mounts() -> Iterator[_Mount]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.rstrip("\n").partition(" - ")
            words = before.split(" ")
            kind, source, options = after.split(" ", 2)
            written, lowers = [], []
            if kind == "fuse.inopt":
                written = [_plain(source)]
            elif kind == "overlay":
                for key, value in _OPTION.findall(_plain(options)):
                    if key == "lowerdir":
                        lowers += split_lowers(value.replace("::", ":"))
                    elif key in ("upperdir", "workdir"):
                        written.append(_ESCAPED.sub(r"\1", value))
                    else:
                        lowers.append(_ESCAPED.sub(r"\1", value))
            yield _Mount(_plain(words[4]), words[2], kind, written, lowers)


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _leads_to(path: str, place: Directory) -> bool:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (place.device, place.number)
