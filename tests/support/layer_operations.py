"""Random operations on overlays, as values: what to do, by whom, with what.

A step is a tuple of a client's kind, an operation's name and its arguments; `generate` makes the
same ones from the same seed; the names of most are found when they are done, see `layer_names`.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from typing import Any, Final

from support.clients import MEMBER, TEAM, USER
from support.layer_names import Step, file_name, name_of_some, new_name, somewhere
from support.layer_trees import ACCESS_ACL, ACLS, DEFAULT_ACL, NAMES
from support.rawcalls import RENAME_EXCHANGE, RENAME_NOREPLACE, UTIME_NOW, UTIME_OMIT

_Steps = list[tuple[str, tuple[Any, ...]]]

SLOTS: Final = ("0", "1", "2")
_ACCESS: Final = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR)
_EXTRA: Final = (
    0, 0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND,
    os.O_NOFOLLOW, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND, os.O_SYNC, os.O_DIRECTORY,
)  # fmt: skip
_MODES: Final = (0o600, 0o644, 0o666, 0o777, 0o400, 0o200, 0o000, 0o4755, 0o2775, 0o6711)
_OFFSETS: Final = (0, 1, 7, 4095, 4096, 5000, 70_000)
_SIZES: Final = (0, 1, 10, 4096, 4097, 9000, 100_000)
_TIMES: Final = ((1, 2), (-5, 999_999_999), (0, UTIME_OMIT), (900_000_000, 0), (0, UTIME_NOW))
_IDS: Final = (0, USER, MEMBER, TEAM, -1)
_ATTRIBUTES: Final = (
    "user.a", "user.color", "user.before", "trusted.t", "trusted.overlay.own",
    "trusted.overlay.opaque", "trusted.overlay.overlay.own", "user.overlay.opaque",
    "trusted.overlay.", "security.note",
)  # fmt: skip
_FIFO, _NULL, _WHITEOUT = stat.S_IFIFO, stat.S_IFCHR, stat.S_IFCHR


def _data(chance: random.Random) -> bytes:
    return chance.choice((b"x", b"yz", b"\0", b"01234")) * chance.choice((0, 1, 3, 1000, 5000))


def _opened(chance: random.Random, slot: str, flags: int = os.O_RDWR) -> _Steps:
    """Sometimes open something before."""
    if chance.random() < 0.4:
        return []
    flags |= os.O_NONBLOCK | chance.choice((0, 0, os.O_APPEND, os.O_CREAT))
    return [("open", (slot, file_name(chance), flags, 0o666))]


def _open(chance: random.Random) -> _Steps:
    slot, name = chance.choice(SLOTS), file_name(chance)
    access, extra = chance.choice(_ACCESS), chance.choice(_EXTRA)
    if access == os.O_RDONLY:
        extra &= ~os.O_TRUNC
    flags = access | extra | os.O_NONBLOCK
    return [("open", (slot, name, flags, chance.choice(_MODES))), ("fstat", (slot,))]


def _temporary(chance: random.Random) -> _Steps:
    slot = chance.choice(SLOTS)
    flags = os.O_TMPFILE | os.O_RDWR
    return [
        ("open", (slot, somewhere(chance), flags, chance.choice(_MODES))),
        ("write", (slot, b"nameless")),
        ("link_open", (slot, new_name(chance))),
    ]


def _write(chance: random.Random) -> _Steps:
    slot = chance.choice(SLOTS)
    before = _opened(chance, slot)
    if chance.random() < 0.5:
        return [*before, ("write", (slot, _data(chance))), ("end_of", (slot,))]
    return [*before, ("pwrite", (slot, _data(chance), chance.choice(_OFFSETS))), ("fstat", (slot,))]


def _read(chance: random.Random) -> _Steps:
    slot, size = chance.choice(SLOTS), chance.choice(_SIZES)
    return [
        *_opened(chance, slot, os.O_RDONLY),
        ("pread", (slot, size, chance.choice(_OFFSETS))),
        ("read", (slot, size)),
    ]


def _mapping(chance: random.Random) -> _Steps:
    slot = chance.choice(SLOTS)
    if chance.random() < 0.5:
        return [*_opened(chance, slot, os.O_RDONLY), ("map_peek", (slot,))]
    return [*_opened(chance, slot), ("map_store", (slot, chance.choice(_OFFSETS), _data(chance)))]


def _allocate(chance: random.Random) -> _Steps:
    slot = chance.choice(SLOTS)
    mode, start = chance.choice((0, 1, 3, 16, 17)), chance.choice(_OFFSETS)
    return [
        *_opened(chance, slot),
        ("fallocate", (slot, mode, start, chance.choice(_SIZES))),
        ("fstat", (slot,)),
    ]


def _copy(chance: random.Random) -> _Steps:
    one, other = chance.choice(SLOTS), chance.choice(SLOTS)
    size, start, to = chance.choice(_SIZES), chance.choice(_OFFSETS), chance.choice(_OFFSETS)
    return [
        *_opened(chance, one),
        *_opened(chance, other),
        ("copy_range", (one, other, size, start, to)),
    ]


def _resize(chance: random.Random) -> _Steps:
    if chance.random() < 0.5:
        return [("truncate", (file_name(chance), chance.choice(_SIZES)))]
    slot = chance.choice(SLOTS)
    return [*_opened(chance, slot), ("ftruncate", (slot, chance.choice(_SIZES)))]


def _make(chance: random.Random) -> _Steps:
    name = new_name(chance)
    match chance.randrange(4):
        case 0:
            return [("symlink", (chance.choice(NAMES), name)), ("readlink", (name,))]
        case 1:
            kind, device = chance.choice(((_FIFO, 0), (_NULL, os.makedev(1, 3)), (_WHITEOUT, 0)))
            return [("mknod", (name, kind | chance.choice(_MODES), device)), ("lstat", (name,))]
        case _:
            return [("mkdir", (name, chance.choice(_MODES) | 0o700)), ("lstat", (name,))]


def _unlink(chance: random.Random) -> _Steps:
    name = file_name(chance)
    return [("unlink", (name,)), ("lstat", (name,))]


def _rmdir(chance: random.Random) -> _Steps:
    name = somewhere(chance)
    if chance.random() < 0.5:
        return [("empty", (name,)), ("rmdir", (name,)), ("lstat", (name,))]
    return [("rmdir", (name,))]


def _rename(chance: random.Random) -> _Steps:
    old, new = name_of_some(chance), new_name(chance)
    if chance.random() < 0.3:
        old, new = somewhere(chance), new_name(chance)
    flags = chance.choice((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
    return [("rename", (old, new, flags)), ("lstat", (new,)), ("lstat", (old,))]


def _link(chance: random.Random) -> _Steps:
    old, new = name_of_some(chance), new_name(chance)
    return [("link", (old, new, chance.random() < 0.2)), ("lstat", (old,)), ("lstat", (new,))]


def _mode(chance: random.Random) -> _Steps:
    if chance.random() < 0.4:
        slot = chance.choice(SLOTS)
        return [
            *_opened(chance, slot, os.O_RDONLY),
            ("fchmod", (slot, chance.choice(_MODES))),
            ("fstat", (slot,)),
        ]
    return [("chmod", (name_of_some(chance), chance.choice(_MODES)))]


def _owner(chance: random.Random) -> _Steps:
    user, group = chance.choice(_IDS), chance.choice(_IDS)
    if (user, group) == (-1, -1):
        group = USER
    if chance.random() < 0.3:
        slot = chance.choice(SLOTS)
        return [
            *_opened(chance, slot, os.O_RDONLY),
            ("fchown", (slot, user, group)),
            ("fstat", (slot,)),
        ]
    return [("chown", (name_of_some(chance), user, group, chance.random() < 0.5))]


def _stamp(chance: random.Random) -> _Steps:
    if chance.random() < 0.3:
        slot = chance.choice(SLOTS)
        return [
            *_opened(chance, slot, os.O_RDONLY),
            ("fset_times", (slot, 5, 7_000_000_000)),
            ("fstat", (slot,)),
        ]
    name = name_of_some(chance)
    follow = chance.randrange(2)
    return [("set_times", (name, chance.choice(_TIMES), chance.choice(_TIMES), follow))]


def _attribute(chance: random.Random) -> _Steps:
    name, attribute = name_of_some(chance), chance.choice(_ATTRIBUTES)
    follow = chance.random() < 0.8
    match chance.randrange(4):
        case 0:
            return [("getxattr", (name, attribute, follow)),
                    ("removexattr", (name, attribute, follow))]  # fmt: skip
        case 1:
            slot = chance.choice(SLOTS)
            return [
                *_opened(chance, slot, os.O_RDONLY),
                ("fsetxattr", (slot, attribute, _data(chance)[:100])),
            ]
        case _:
            set_it = ("setxattr", (name, attribute, _data(chance)[:100], 0, follow))
            return [set_it, ("listxattr", (name, follow))]


def _acl(chance: random.Random) -> _Steps:
    name, attribute = name_of_some(chance), chance.choice((ACCESS_ACL, ACCESS_ACL, DEFAULT_ACL))
    if chance.random() < 0.3:
        return [("removexattr", (name, attribute)), ("lstat", (name,))]
    return [("setxattr", (name, attribute, chance.choice(ACLS))), ("getxattr", (name, attribute)),
            ("lstat", (name,))]  # fmt: skip


def _look(chance: random.Random) -> _Steps:
    name = name_of_some(chance)
    steps: _Steps = [("stat", (name,)), ("access", (name, chance.randrange(8)))]
    if chance.random() < 0.3:
        steps.append(("filesystem", (name,)))
    return [*steps, ("contents", (name,)), ("modified", (name,))]


def _list(chance: random.Random) -> _Steps:
    name = somewhere(chance)
    match chance.randrange(4):
        case 0:
            return [("open_stream", ("s", name)), ("stream_skip", ("s", chance.randrange(4)))]
        case 1:
            return [("stream_rewind", ("s",)), ("stream_names", ("s",))]
        case 2:
            return [("open_stream", ("t", name)), ("stream_seeks_back", ("t", chance.randrange(5))),
                    ("close_stream", ("t",))]  # fmt: skip
        case _:
            return [("listing", (name,))]


def _hold(chance: random.Random) -> _Steps:
    """Have a file open, change it by its name, and look at what is open."""
    slot, name = chance.choice(SLOTS), file_name(chance)
    change: tuple[str, tuple[Any, ...]] = chance.choice((
        ("truncate", (name, 10)), ("set_mode", (name, 0o666)), ("append", (name, b"appended")),
        ("set_times", (name, (3, 0), (4, 0), 1)), ("setxattr", (name, "user.a", b"held")),
        ("rename", (name, new_name(chance), 0)), ("unlink", (name,)),
        ("link", (name, new_name(chance))),
    ))  # fmt: skip
    return [
        ("open", (slot, name, os.O_RDONLY | os.O_NONBLOCK, 0)),
        ("pread", (slot, 100, 0)),
        change,
        ("same_as_open", (slot, name)),
        ("pread", (slot, 6000, 0)),
        ("fstat", (slot,)),
    ]


def _close(chance: random.Random) -> _Steps:
    return [("close", (chance.choice(SLOTS),))]


_KINDS: Final[tuple[tuple[Callable[[random.Random], _Steps], int], ...]] = (
    (_open, 8), (_temporary, 1), (_write, 6), (_read, 4), (_mapping, 3), (_allocate, 2), (_copy, 2),
    (_resize, 3), (_make, 5), (_unlink, 5), (_rmdir, 4), (_rename, 8), (_link, 4), (_mode, 4),
    (_owner, 3), (_stamp, 3), (_attribute, 5), (_acl, 2), (_look, 5), (_list, 5), (_hold, 6),
    (_close, 1),
)  # fmt: skip


def generate(seed: int, count: int) -> list[list[Step]]:
    """*count* groups of steps; the steps of a group belong together."""
    chance = random.Random(f"sequence {seed}")
    kinds, weights = zip(*_KINDS, strict=True)
    groups = []
    for kind in chance.choices(kinds, weights, k=count):
        who = chance.choice(("root", "user"))
        groups.append([(who, name, arguments) for name, arguments in kind(chance)])
    return groups
