"""Who asks: what rules can say about the caller of a request, and how it is found out."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from inopt.backing.caller import groups_of
from inopt.policy import model
from inopt.policy.facts import group_ids, user_ids
from inopt.policy.model import listed
from inopt.policy.paths.match import Matcher, matches

_UNKNOWN: Final = ""


class Caller:
    """The process behind a request. What proc(5) tells of it is read when a rule asks.

    The process waits for the answer meanwhile, so what is read is its own. *pid* is 0 for one of
    another pid namespace: then program and control group are unknown, and match no pattern.
    """

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, uid: int, gid: int, pid: int) -> None:
        self.uid: int = uid
        self.gid: int = gid
        self.pid: int = pid

    @property
    def groups(self) -> frozenset[int]:
        """Its group and its supplementary groups."""
        return frozenset((self.gid, *groups_of(self.pid)))

    @property
    def exe(self) -> str:
        """The path of its program, empty if unknown."""
        try:
            return os.readlink(f"/proc/{self.pid}/exe") if self.pid else _UNKNOWN
        except OSError:
            return _UNKNOWN

    @property
    def comm(self) -> str:
        """Its command name (proc(5), ``comm``), empty if unknown."""
        try:
            with open(f"/proc/{self.pid}/comm", encoding="utf-8", errors="replace") as line:
                return line.read().rstrip("\n") if self.pid else _UNKNOWN
        except OSError:
            return _UNKNOWN

    @property
    def cgroup(self) -> str:
        """The path of its control group (version 2), empty if unknown."""
        try:
            with open(f"/proc/{self.pid}/cgroup", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith("0::"):
                        return line[3:].rstrip("\n")
        except OSError:
            pass
        return _UNKNOWN


class HasIds(Protocol):
    """Somebody with a user and groups."""

    @property
    def uid(self) -> int:
        """The user."""

    @property
    def groups(self) -> frozenset[int]:
        """All groups."""


class CallerTest(msgspec.Struct, frozen=True):
    """What a rule says about the caller; None and empty are no matter. Patterns are as given."""

    users: frozenset[int] | None = None
    groups: frozenset[int] | None = None
    exe: tuple[str, ...] = ()
    cgroup: tuple[str, ...] = ()
    not_users: frozenset[int] | None = None
    not_groups: frozenset[int] | None = None
    not_exe: tuple[str, ...] = ()
    not_cgroup: tuple[str, ...] = ()

    def holds_of_ids(self, who: HasIds) -> bool:
        """Whether what is said of users and groups is true of *who*."""
        if self.users is not None and who.uid not in self.users:
            return False
        if self.not_users is not None and who.uid in self.not_users:
            return False
        if self.groups is not None and not self.groups & who.groups:
            return False
        return self.not_groups is None or not self.not_groups & who.groups

    def holds(self, caller: Caller) -> bool:
        """Whether all that is said is true of *caller*."""
        if not self.holds_of_ids(caller):
            return False
        if self.exe and not _among(self.exe, caller.exe):
            return False
        if self.not_exe and _among(self.not_exe, caller.exe):
            return False
        if self.cgroup and not _among(self.cgroup, caller.cgroup):
            return False
        return not (self.not_cgroup and _among(self.not_cgroup, caller.cgroup))


def caller_test_of(caller: model.Caller) -> CallerTest:
    """What a rule says about the caller. Raises `UnknownNameError` and `PatternError`."""
    texts = {
        field: tuple(str(pattern) for pattern in listed(getattr(caller, field)))
        for field in ("exe", "cgroup", "not_exe", "not_cgroup")
    }
    for patterns in texts.values():
        if patterns:
            _matcher(patterns)
    return CallerTest(
        users=user_ids(caller.user),
        groups=group_ids(caller.group),
        not_users=user_ids(caller.not_user),
        not_groups=group_ids(caller.not_group),
        **texts,
    )


@lru_cache(maxsize=1024)
def _matcher(patterns: tuple[str, ...]) -> Matcher:
    return Matcher([patterns])


def _among(patterns: tuple[str, ...], path: str) -> bool:
    return bool(path) and bool(matches(_matcher(patterns), path))
