"""The linter: it proves that a policy is enforceable, or says exactly why it is not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inopt.policy.linting import asking, doubts, handlers, mixtures, notes, reach
from inopt.policy.linting.context import LintContext
from inopt.policy.linting.findings import Finding, in_order
from inopt.policy.rules import Rules

_NO_METHODS: Final[Mapping[str, frozenset[int]]] = MappingProxyType({})
_CHECKS: Final = (
    *asking.CHECKS,
    *mixtures.CHECKS,
    *handlers.CHECKS,
    *reach.CHECKS,
    *doubts.CHECKS,
    *notes.CHECKS,
)


def lint(
    rules: Rules,
    handled_by: frozenset[int] | None,
    methods: Mapping[str, frozenset[int]] = _NO_METHODS,
) -> list[Finding]:
    """All that is to be said about a policy, by place.

    *handled_by* are the slots that the handler class can serve; None: there is no class.
    *methods* are those of the class that are there for this policy, with their slots.
    """
    context = LintContext(rules, handled_by, methods)
    for check in _CHECKS:
        check(context)
    return in_order(context.findings, rules.loaded.files)
