"""Mount options as users write them (``-o ro,nosuid,…``), checked by name."""

from __future__ import annotations

import difflib
import os
from typing import Final

import msgspec

from inopt.exceptions import UsageError

# Numbers of mount(2).
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_DIRSYNC: Final = 128
MS_NOATIME: Final = 1024
MS_NODIRATIME: Final = 2048
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24
MS_LAZYTIME: Final = 1 << 25

_SET: Final = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "dirsync": MS_DIRSYNC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
    "lazytime": MS_LAZYTIME,
}
_CLEAR: Final = {
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
    "dev": MS_NODEV,
    "exec": MS_NOEXEC,
    "async": MS_SYNCHRONOUS,
    "atime": MS_NOATIME,
    "diratime": MS_NODIRATIME,
    "norelatime": MS_RELATIME,
    "nostrictatime": MS_STRICTATIME,
    "nolazytime": MS_LAZYTIME,
}
# Always on for root's mounts, or meant for other programs (mount(8), systemd.mount(5)).
_IGNORED: Final = frozenset(
    {
        "allow_other",
        "default_permissions",
        "defaults",
        "auto",
        "noauto",
        "nofail",
        "_netdev",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
    }
)
_VALUED: Final = ("max_read", "max_stack_depth", "fsname", "subtype")
_OWN: Final = ("acl", "posix_acl", "noacl", "writeback_cache")
_SMALLEST_READ: Final = 4096
_LARGEST_READ: Final = 0xFFFFFFFF
_MOST_DIGITS: Final = 10


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``-o`` says.

    ``flags`` are mount(2)'s. ``max_read`` is the largest READ request in bytes, None for the
    kernel's own. ``acl`` None: enforce POSIX ACLs if the source has them. ``source_name`` is
    what the mount table shows as the source.
    """

    flags: int = 0
    max_read: int | None = None
    acl: bool | None = None
    writeback_cache: bool = False
    max_stack_depth: int = 1
    source_name: str | None = None
    subtype: str = "inopt"

    @property
    def noatime(self) -> bool:
        """Whether access times stay as they are."""
        return bool(self.flags & MS_NOATIME)

    def words(self) -> list[str]:
        """The flags as words, for who mounts by words: ``suid`` and ``dev`` are said, too."""
        words = [word for word, flag in _SET.items() if self.flags & flag]
        return words + [word for word in ("suid", "dev") if not self.flags & _CLEAR[word]]

    @property
    def open_flags(self) -> int:
        """The flags of open(2) that do for the backing files what the options ask for."""
        flags = os.O_NOATIME if self.noatime else 0
        return flags | (os.O_SYNC if self.flags & MS_SYNCHRONOUS else 0)


def parse_options(texts: tuple[str, ...] | list[str]) -> MountOptions:
    """Parse the values of all ``-o``; later ones win. Raises `UsageError` for an unknown one."""
    flags = 0
    values: dict[str, str] = {}
    acl: bool | None = None
    writeback_cache = False
    for option in (word for text in texts for word in text.split(",") if word):
        name, equals, value = option.partition("=")
        if not equals and name in _SET:
            flags |= _SET[name]
        elif not equals and name in _CLEAR:
            flags &= ~_CLEAR[name]
        elif name in _VALUED and value:
            values[name] = value
        elif not equals and name in _OWN:
            if name == "writeback_cache":
                writeback_cache = True
            else:
                acl = name != "noacl"
        elif name in _IGNORED or name.startswith(("x-", "X-", "comment")):
            continue
        else:
            raise UsageError(_unknown(option, name))
    return MountOptions(
        flags=flags,
        max_read=_number(values, "max_read", _SMALLEST_READ, _LARGEST_READ),
        acl=acl,
        writeback_cache=writeback_cache,
        max_stack_depth=_number(values, "max_stack_depth", 1, 9) or 1,
        source_name=values.get("fsname"),
        subtype=values.get("subtype", "inopt"),
    )


def _number(values: dict[str, str], name: str, smallest: int, largest: int) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        number = int(text)
        if smallest <= number <= largest:
            return number
    raise UsageError(f"option {name}={text}: expected a whole number, {smallest} to {largest}")


def _unknown(option: str, name: str) -> str:
    known = sorted({*_SET, *_CLEAR, *_OWN, *_VALUED})
    near = difflib.get_close_matches(name, known, n=1)
    if name in _VALUED:
        return f"option {name}: needs a value, as in {name}=1"
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return f"option '{option}': not supported: {hint}"
