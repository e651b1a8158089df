"""What a rule may ask about an inode beside its path: owner, mode bits, attributes, size.

These facts can change while the inode lives, so they are read afresh for each decision that
depends on them. An inode's type cannot change; it is no condition, but part of what a rule is
about.
"""

from __future__ import annotations

import grp
import pwd
import stat
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import msgspec

from inopt.policy.model import Match, Owner, SizeBounds, listed, size_in_bytes

TYPES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "file": stat.S_IFREG,
        "directory": stat.S_IFDIR,
        "symlink": stat.S_IFLNK,
        "fifo": stat.S_IFIFO,
        "socket": stat.S_IFSOCK,
        "block": stat.S_IFBLK,
        "character": stat.S_IFCHR,
    }
)
"""File types by the name that policies use, as the format bits of ``st_mode``."""

# For each bit that a policy can name: one of these must be set.
_MODE_BITS: Final = {
    "setuid": stat.S_ISUID,
    "setgid": stat.S_ISGID,
    "sticky": stat.S_ISVTX,
    "executable": 0o111,
    "group_writable": stat.S_IWGRP,
    "world_readable": stat.S_IROTH,
    "world_writable": stat.S_IWOTH,
}

ReadXattr: TypeAlias = Callable[[str], bytes | None]


class Attributes(Protocol):
    """What conditions look at: ``mode`` with format bits, ids, ``size`` in bytes."""

    mode: int
    uid: int
    gid: int
    size: int


class OwnerCondition(msgspec.Struct, frozen=True):
    """Whose the inode is; None is anybody."""

    users: frozenset[int] | None
    groups: frozenset[int] | None

    def holds(self, attributes: Attributes, _xattr: ReadXattr) -> bool:
        """Whether the owner is among those named."""
        return (self.users is None or attributes.uid in self.users) and (
            self.groups is None or attributes.gid in self.groups
        )


class ModeCondition(msgspec.Struct, frozen=True):
    """Which mode bits are set: at least one of each mask."""

    masks: tuple[int, ...]

    def holds(self, attributes: Attributes, _xattr: ReadXattr) -> bool:
        """Whether all that is asked for is set."""
        return all(attributes.mode & mask for mask in self.masks)


class XattrCondition(msgspec.Struct, frozen=True):
    """An extended attribute: its value, True for any value, False for none."""

    name: str
    value: bytes | bool

    def holds(self, _attributes: Attributes, xattr: ReadXattr) -> bool:
        """Whether the attribute is as asked for."""
        found = xattr(self.name)
        if isinstance(self.value, bool):
            return (found is not None) == self.value
        return found == self.value


class SizeCondition(msgspec.Struct, frozen=True):
    """The size in bytes, both bounds included."""

    smallest: int
    largest: int | None

    def holds(self, attributes: Attributes, _xattr: ReadXattr) -> bool:
        """Whether the size is within."""
        return attributes.size >= self.smallest and (
            self.largest is None or attributes.size <= self.largest
        )


Condition: TypeAlias = OwnerCondition | ModeCondition | XattrCondition | SizeCondition


class UnknownNameError(ValueError):
    """A user or group that this machine does not know. ``kind`` is ``user`` or ``group``."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        super().__init__(f"no {kind} '{name}' on this machine")
        self.kind = kind
        self.name = name
        self.known = known


def user_ids(given: object) -> frozenset[int] | None:
    """The ids of users given by name or id; None for none given. Raises `UnknownNameError`."""
    return None if given is None else frozenset(_user(who) for who in listed(given))


def group_ids(given: object) -> frozenset[int] | None:
    """The ids of groups given by name or id; None for none given. Raises `UnknownNameError`."""
    return None if given is None else frozenset(_group(who) for who in listed(given))


def _user(who: object) -> int:
    if isinstance(who, int):
        return who
    try:
        return pwd.getpwnam(str(who)).pw_uid
    except KeyError:
        raise UnknownNameError("user", str(who), [e.pw_name for e in pwd.getpwall()]) from None


def _group(who: object) -> int:
    if isinstance(who, int):
        return who
    try:
        return grp.getgrnam(str(who)).gr_gid
    except KeyError:
        raise UnknownNameError("group", str(who), [e.gr_name for e in grp.getgrall()]) from None


def types_of(match: Match) -> frozenset[int]:
    """The format bits of the types that a rule is about; all types if it names none."""
    return frozenset(TYPES[str(name)] for name in listed(match.type) or TYPES)


def conditions_of(match: Match) -> tuple[Condition, ...]:
    """The conditions of a rule. Raises `UnknownNameError`."""
    conditions: list[Condition] = []
    if match.owner is not None:
        conditions.append(_owner(match.owner))
    if match.mode is not None:
        masks = (_MODE_BITS[str(bit)] for bit in listed(match.mode))
        conditions.append(ModeCondition(tuple(sorted(set(masks)))))
    conditions += _xattrs(match.xattr)
    if match.size is not None:
        conditions.append(_size(match.size))
    return tuple(conditions)


def _owner(owner: Owner) -> OwnerCondition:
    return OwnerCondition(user_ids(owner.user), group_ids(owner.group))


def _xattrs(given: object) -> list[Condition]:
    if isinstance(given, dict):
        return [
            XattrCondition(name, value if isinstance(value, bool) else value.encode())
            for name, value in sorted(given.items())
        ]
    return [XattrCondition(str(name), True) for name in listed(given)]


def _size(size: SizeBounds) -> SizeCondition:
    return SizeCondition(
        0 if size.min is None else size_in_bytes(size.min),
        None if size.max is None else size_in_bytes(size.max),
    )
