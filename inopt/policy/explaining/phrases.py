"""What rules ask about, in words: as short as in the policy, for people who read reports."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from inopt.policy.callers import CallerTest
from inopt.policy.explaining.branches import Test
from inopt.policy.facts import (
    Condition,
    ModeCondition,
    OwnerCondition,
    SizeCondition,
    XattrCondition,
)
from inopt.policy.model import Caller, Match, Owner, SizeBounds, listed
from inopt.policy.rules import CompiledRule, Decision, Kind

_CALLER_FIELDS: Final = {
    "user": "user", "group": "group", "exe": "program", "cgroup": "control group",
}  # fmt: skip
_TOPICS: Final[dict[type, str]] = {
    OwnerCondition: "the file's owner",
    ModeCondition: "the file's mode",
    XattrCondition: "the file's extended attributes",
    SizeCondition: "the file's size",
    CallerTest: "the caller",
}


class Phrase(NamedTuple):
    """One test in words: what must hold, and what must not."""

    needs: tuple[str, ...]
    unless: tuple[str, ...] = ()


def topics(tests: Iterable[Test]) -> str:
    """What tests are about: ``the file's mode and the caller``."""
    found = {type(test) for test in tests}
    return " and ".join(text for kind, text in _TOPICS.items() if kind in found)


def phrases_of(rule: CompiledRule, match: Match) -> Iterator[tuple[Test, Phrase]]:
    """The tests of a rule in words, as its *match* has them."""
    for condition in rule.conditions:
        yield condition, Phrase((_condition(condition, match),))
    if rule.caller is not None and match.caller is not None:
        yield rule.caller, _caller(match.caller)


def when(tests: Iterable[Test], phrases: Mapping[Test, Phrase]) -> str:
    """When all *tests* hold: ``if mode setuid and group dev, unless user ci``; empty for none."""
    found = [phrases[test] for test in tests]
    needs = " and ".join(need for phrase in found for need in phrase.needs)
    unless = " or ".join(exception for phrase in found for exception in phrase.unless)
    return ", ".join(
        part for part in (needs and f"if {needs}", unless and f"unless {unless}") if part
    )


def _condition(condition: Condition, match: Match) -> str:
    if isinstance(condition, OwnerCondition):
        return _owner(match.owner or Owner())
    if isinstance(condition, ModeCondition):
        return f"mode {' and '.join(map(str, listed(match.mode)))}"
    if isinstance(condition, SizeCondition):
        return _size(match.size or SizeBounds())
    if condition.value is False:
        return f"no xattr {condition.name}"
    if condition.value is True:
        return f"xattr {condition.name}"
    return f"xattr {condition.name}={bytes(condition.value).decode(errors='backslashreplace')}"


def _owner(owner: Owner) -> str:
    fields = (("owner", owner.user), ("owning group", owner.group))
    return " and ".join(f"{name} {_any(who)}" for name, who in fields if who is not None)


def _size(size: SizeBounds) -> str:
    bounds = (("at least", size.min), ("at most", size.max))
    return "size " + " and ".join(f"{name} {n}" for name, n in bounds if n is not None)


def _caller(caller: Caller) -> Phrase:
    def said(prefix: str) -> tuple[str, ...]:
        return tuple(
            f"{name} {_any(given)}"
            for field, name in _CALLER_FIELDS.items()
            if (given := getattr(caller, prefix + field)) is not None
        )

    return Phrase(said(""), said("not_"))


def _any(given: Any) -> str:
    return " or ".join(str(one) for one in listed(given))


def decision_text(decision: Decision) -> str:
    """``bypass``, ``handle`` or ``deny EROFS``."""
    if decision.kind is Kind.DENY:
        return f"deny {errno_name(decision.errno)}"
    return decision.kind.name.lower()


def errno_name(number: int) -> str:
    """The name of an errno."""
    return errno.errorcode.get(number, str(number))


def match_text(rule: CompiledRule, match: Match) -> str:
    """What a rule is about, in short: ``/etc/**, file, unless user ci``."""
    parts = [_any(match.path)] if match.path is not None else []
    if match.type is not None:
        parts.append(_any(match.type))
    found = [phrase for _, phrase in phrases_of(rule, match)]
    parts += [need for phrase in found for need in phrase.needs]
    unless = " or ".join(exception for phrase in found for exception in phrase.unless)
    parts += [f"unless {unless}"] if unless else []
    return ", ".join(parts) or "everything"
