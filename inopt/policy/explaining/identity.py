"""A caller whom a person names, and what rules say of such a one.

Nobody knows which program such a caller will run, so what rules say of programs and control
groups stays open.
"""

from __future__ import annotations

import grp
import os
import pwd

import msgspec

from inopt.exceptions import UsageError
from inopt.policy.callers import CallerTest


class Identity(msgspec.Struct, frozen=True):
    """Who asks, as the user database has it; *groups* has *gid*, too."""

    uid: int
    gid: int
    groups: frozenset[int]


def parse_identity(text: str) -> Identity:
    """The caller for ``USER`` or ``USER:GROUP``, by name or number. Raises `UsageError`."""
    user, colon, group = text.partition(":")
    entry = _user(text, user)
    gid = _group(text, group) if colon else None
    if entry is None:
        if gid is None:
            raise UsageError(
                f"caller '{text}': no user has this number: say the group, too ('{user}:GROUP')"
            )
        return Identity(int(user), gid, frozenset({gid}))
    gid = entry.pw_gid if gid is None else gid
    return Identity(entry.pw_uid, gid, frozenset({gid, *os.getgrouplist(entry.pw_name, gid)}))


def _user(text: str, user: str) -> pwd.struct_passwd | None:
    """The entry of a user; None for a number that nobody has."""
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        pass
    if not _is_id(user):
        raise UsageError(f"caller '{text}': no user '{user}' on this machine: name one, or a uid")
    try:
        return pwd.getpwuid(int(user))
    except KeyError:
        return None


def _group(text: str, group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        pass
    if not _is_id(group):
        raise UsageError(f"caller '{text}': no group '{group}' on this machine: name one, or a gid")
    return int(group)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < 1 << 32


def holds(test: CallerTest, caller: Identity | None) -> bool | None:
    """Whether all that a rule says is true of *caller*; None if that cannot be told."""
    if caller is None:
        return None
    if not test.holds_of_ids(caller):
        return False
    return None if test.exe or test.not_exe or test.cgroup or test.not_cgroup else True
