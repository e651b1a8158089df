"""What is told about one path: its lines, the facts behind them, and what to keep in mind."""

from __future__ import annotations

import grp
import pwd
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import msgspec

from inopt.ops import Op
from inopt.policy.compiled import CompiledPolicy, Joint
from inopt.policy.explaining.explain import explain
from inopt.policy.explaining.identity import Identity
from inopt.policy.explaining.lines import Line
from inopt.policy.explaining.subjects import Subject, path_text
from inopt.policy.facts import TYPES
from inopt.policy.words import slot_name

_TYPE_NAMES: Final = {format_: name for name, format_ in TYPES.items()}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One path under a policy.

    ``facts`` are ``mode`` (octal), ``owner``, ``group``, ``size`` and ``links`` of a file that
    is there, else None. ``live`` is what a mount holds of it (`inopt.session.explain`), else None.
    """

    path: str
    type: str
    facts: dict[str, Any] | None
    notes: list[str]
    lines: list[Line]
    live: dict[str, Any] | None = None


def report_on(
    policy: CompiledPolicy,
    subjects: Sequence[Subject],
    caller: Identity | None,
    handled: Collection[int] | None,
) -> Report:
    """Everything about the last of *subjects*; the arguments are those of `explain`."""
    subject = subjects[-1]
    lines = explain(policy, subjects, caller, handled)
    return Report(
        path=path_text([each.name for each in subjects[1:]]),
        type=_TYPE_NAMES[subject.format],
        facts=_facts(subject),
        notes=list(_notes(subject, lines)),
        lines=lines,
    )


def _facts(subject: Subject) -> dict[str, Any] | None:
    attributes = subject.attributes
    if attributes is None:
        return None
    return {
        "mode": f"{stat.S_IMODE(attributes.mode):04o}",
        "owner": _name(lambda: pwd.getpwuid(attributes.uid).pw_name, attributes.uid),
        "group": _name(lambda: grp.getgrgid(attributes.gid).gr_name, attributes.gid),
        "size": attributes.size,
        "links": attributes.links,
    }


def _name(look_up: Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except KeyError:
        return str(number)


def _notes(subject: Subject, lines: Sequence[Line]) -> Iterator[str]:
    bypassing = (slot_name(Op.READ), slot_name(Op.WRITE))
    routes = {
        route
        for line in lines
        if line.operation in bypassing
        for route in (line.route, *(each.route for each in line.alternatives))
    }
    bypasses = "kernel" in routes
    if bypasses:
        yield (
            "opens with O_APPEND send their reads and writes to the daemon, so that fcntl(2) can "
            "clear the flag"
        )
    attributes = subject.attributes
    if attributes is None:
        return
    if bypasses and attributes.mode & (stat.S_ISUID | stat.S_ISGID):
        yield (
            "a set-id file that is first opened for writing is served by the daemon until all "
            "have closed it: who writes decides whether the bits stay"
        )
    if isinstance(subject.position, Joint):
        yield (
            f"it is known by names in {len(subject.position.states)} places that rules tell "
            "apart: the strictest decision counts for what is done to the inode"
        )
    elif subject.is_linked:
        yield "it has several names (hard links); only this one has been looked at"
