"""The policy language as types: what these decode is what the YAML may say.

One `PolicyFile` is one file. `inopt.policy.load` reads it with all that it includes, and
`inopt.policy.compile` makes of it what a mount runs on.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from inopt.policy.words import WORDS

# Python's `$` also matches before a newline at the end, which YAML texts may have.
DURATION: Final = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)(?!\n)$"
SIZE: Final = r"^([0-9]{1,15}(?:\.[0-9]{1,9})?)(B|K|KiB|kB|M|MiB|MB|G|GiB|GB|T|TiB|TB)?(?!\n)$"
# What the kernel may believe if the policy says nothing, and if changes are noticed besides.
_SHORT: Final = "1s"
_LONG: Final = "1h"
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "": 1, "B": 1, "K": 1 << 10, "KiB": 1 << 10, "kB": 10**3, "M": 1 << 20, "MiB": 1 << 20,
    "MB": 10**6, "G": 1 << 30, "GiB": 1 << 30, "GB": 10**9, "T": 1 << 40, "TiB": 1 << 40,
    "TB": 10**12,
}  # fmt: skip

if TYPE_CHECKING:
    Word: TypeAlias = str
else:
    Word = Literal[tuple(sorted(WORDS))]
FileType: TypeAlias = Literal[
    "file", "directory", "symlink", "fifo", "socket", "block", "character"
]
ModeBit: TypeAlias = Literal[
    "setuid", "setgid", "sticky", "executable", "group_writable", "world_readable",
    "world_writable",
]  # fmt: skip
Errno: TypeAlias = Literal[
    "EACCES", "EAGAIN", "EBUSY", "EDQUOT", "EEXIST", "EFBIG", "EINVAL", "EIO", "EISDIR",
    "ELOOP", "EMLINK", "ENODATA", "ENODEV", "ENOENT", "ENOMEM", "ENOSPC", "ENOTDIR", "ENOTEMPTY",
    "ENOTSUP", "ENXIO", "EPERM", "EROFS", "ETXTBSY", "EXDEV",
]  # fmt: skip
Duration: TypeAlias = Annotated[
    str, Meta(pattern=DURATION, description="A duration, such as 1s, 500ms, 5m, 1h or 1d.")
]
Size: TypeAlias = Annotated[
    str, Meta(pattern=SIZE, description="A size in bytes, such as 4096, 10MiB or 1GB.")
]
Who: TypeAlias = Annotated[str, Meta(min_length=1)] | Annotated[int, Meta(ge=0, lt=1 << 32)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]
Many: TypeAlias = Name | Annotated[list[Name], Meta(min_length=1)]
ManyWho: TypeAlias = Who | Annotated[list[Who], Meta(min_length=1)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all parts of a policy share: a field that is not known is a mistake."""


class Cache(_Strict, frozen=True):
    """How long the kernel may believe what it was told, and whether it is told of changes.

    ``entry``: that a name leads to an inode; 1s if not given, with ``coherence: notify`` 1h.
    ``attributes``: of an inode; the same. ``negative``: that a name does not exist.
    ``directory_attributes``: by ``bypass`` the kernel reads those of directories itself where it
    can, at each step of a path; by ``cached`` it believes them as long as ``attributes`` says.
    ``coherence``: by ``timeout``, changes underneath show when these times are over; by
    ``notify``, the backing filesystem is watched, and they show at once.
    """

    entry: Duration | None = None
    attributes: Duration | None = None
    negative: Duration = "0s"
    directory_attributes: Literal["bypass", "cached"] = "bypass"
    coherence: Literal["timeout", "notify"] = "timeout"


class Owner(_Strict, frozen=True):
    """Whose a file is: names or ids; both must hold if both are given."""

    user: ManyWho | None = None
    group: ManyWho | None = None


class SizeBounds(_Strict, frozen=True):
    """How long a file is: ``min`` and ``max`` are still within."""

    min: Size | Annotated[int, Meta(ge=0)] | None = None
    max: Size | Annotated[int, Meta(ge=0)] | None = None


class Caller(_Strict, frozen=True):
    """Who asks; all that is given must hold.

    ``exe`` and ``cgroup`` are gitignore-style patterns of the program's path and of the control
    group's path. ``group`` counts supplementary groups, too.
    """

    user: ManyWho | None = None
    group: ManyWho | None = None
    exe: Many | None = None
    cgroup: Many | None = None
    not_user: ManyWho | None = None
    not_group: ManyWho | None = None
    not_exe: Many | None = None
    not_cgroup: Many | None = None


class Match(_Strict, frozen=True):
    """Which files a rule is about; all that is given must hold, nothing given is every file.

    ``path``: gitignore-style patterns, seen from the source's root; the last one that matches
    decides, ``!`` negates. ``mode``: bits of which all must be set. ``xattr``: names that must
    be present, or names with the value that they must have.
    """

    path: Many | None = None
    type: FileType | Annotated[list[FileType], Meta(min_length=1)] | None = None
    owner: Owner | None = None
    mode: ModeBit | Annotated[list[ModeBit], Meta(min_length=1)] | None = None
    xattr: Many | dict[Name, str | bool] | None = None
    size: SizeBounds | None = None
    caller: Caller | None = None


Words: TypeAlias = Word | list[Word]


class Rule(_Strict, frozen=True):
    """What happens with some operations on some files. The first rule that names one decides.

    ``deny`` is a list, or a mapping to errnos by name. A list means ``EACCES``, and ``EROFS`` for
    what changes the tree in a rule that is about every file. ``visible: false`` hides the files:
    lookups answer ``ENOENT`` and listings leave them out. ``layer``: of an overlay's lower layers,
    the one that is looked at first; 1 is the topmost.
    """

    name: Annotated[str, Meta(max_length=200)] = ""
    match: Match = Match()
    bypass: Words = []
    handle: Words = []
    deny: Words | dict[Word, Errno] = []
    visible: bool | None = None
    layer: Annotated[int, Meta(ge=1, le=500)] | None = None


class Overlay(_Strict, frozen=True):
    """The layers that are mounted in place of a source, paths relative to the policy file.

    ``lower``: the topmost first; ``upper`` and ``work``: where changes go; without them the mount
    is read-only. ``userxattr``: marks are ``user.overlay.*``. ``volatile``: copies are not brought
    to stable storage before they show. ``temporary``: an upper layer is made for the mount, and
    removed with it.
    """

    lower: Name | list[Name] = []
    upper: Name | None = None
    work: Name | None = None
    userxattr: bool = False
    volatile: bool = False
    temporary: bool = False


class PolicyFile(_Strict, frozen=True):
    """One policy file.

    ``require``: refuse to mount below this tier. ``otherwise``: what happens with what no rule
    names. ``handlers``: the class that serves what is handled, as ``package.module:Class``.
    ``overlay``: the layers to mount.
    ``include``: other files, relative to this one; what comes later wins over what comes earlier,
    and this file over all that it includes.
    """

    version: Literal[1]
    description: str = ""
    include: Name | list[Name] = []
    require: Literal["none", "rw", "inode"] = "none"
    otherwise: Literal["bypass", "handle", "deny"] = "bypass"
    cache: Cache = Cache()
    overlay: Overlay | None = None
    handlers: Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*(?!\n)$")] | None = None
    rules: list[Rule] = []


def listed(given: object) -> list[object]:
    """What was given as one value or as several, as a list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def seconds(duration: str) -> float:
    """The seconds of a duration. Raises `ValueError` that says what was expected."""
    found = re.fullmatch(DURATION, duration)
    if found is None:
        raise ValueError(f"expected a duration such as 1s, 500ms or 5m, found {duration!r}")
    return float(found[1]) * _SECONDS[found[2]]


def lifetimes(cache: Cache, *, watched: bool = False) -> tuple[float, float]:
    """For how many seconds the kernel may believe a name, and attributes.

    *watched*: it is told of changes.
    """
    default = _LONG if watched else _SHORT
    return seconds(cache.entry or default), seconds(cache.attributes or default)


def size_in_bytes(size: str | int) -> int:
    """The bytes of a size. Raises `ValueError` that says what was expected."""
    if isinstance(size, int):
        return size
    found = re.fullmatch(SIZE, size)
    if found is None:
        raise ValueError(f"expected a size such as 4096, 10MiB or 1GB, found {size!r}")
    return int(Fraction(found[1]) * _BYTES[found[2] or ""])
