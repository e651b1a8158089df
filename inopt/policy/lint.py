"""The linter: it proves that a policy is enforceable, or says exactly why it is not."""

from __future__ import annotations

from typing import Final

from inopt.ops import Op
from inopt.policy import (
    lint_asking,
    lint_doubts,
    lint_handlers,
    lint_mixtures,
    lint_notes,
    lint_reach,
)
from inopt.policy.findings import Finding, in_order
from inopt.policy.lint_context import LintContext
from inopt.policy.rules import Rules

_CHECKS: Final = (
    *lint_asking.CHECKS,
    *lint_mixtures.CHECKS,
    *lint_handlers.CHECKS,
    *lint_reach.CHECKS,
    *lint_doubts.CHECKS,
    *lint_notes.CHECKS,
)


def lint(rules: Rules, handled_by: frozenset[Op] | None) -> list[Finding]:
    """All that is to be said about a policy, by place.

    *handled_by* are the opcodes that the handler class can serve; None: there is no class.
    """
    context = LintContext(rules, handled_by)
    for check in _CHECKS:
        check(context)
    return in_order(context.findings, rules.loaded.files)
