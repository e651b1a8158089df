"""The policy of one mount: made ready before anything is mounted, applied, and replaced."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from inopt.exceptions import UsageError
from inopt.handlers.gate import Gate, gates
from inopt.handlers.load import HandlerClass, load_handlers
from inopt.handlers.serve import Context, Serve, operations
from inopt.kernel.dialects import Tier
from inopt.kernel.negotiate import Terms
from inopt.ops import OPCODE_LIMIT, OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.linting.findings import Finding, Level
from inopt.policy.linting.linter import lint
from inopt.policy.load import Loaded
from inopt.policy.rules import Rules, compile_rules

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Prepared(msgspec.Struct, frozen=True):
    """A policy that is known to be enforceable, with the class that serves what is handled.

    ``findings``: the warnings and notes of the linter.
    """

    loaded: Loaded
    rules: Rules
    handler_class: HandlerClass | None
    findings: tuple[Finding, ...] = ()

    def log_findings(self) -> None:
        """Tell of them, once the policy is in force."""
        for finding in self.findings:
            # Notes tell what any reader of docs/policy.md knows: they are for those who ask.
            tell = _log.warning if finding.level is Level.WARNING else _log.debug
            tell(str(finding))


def prepare(loaded: Loaded) -> Prepared:
    """Make a policy ready for a mount. Raises `UsageError` for one that cannot be enforced."""
    reference = loaded.policy.handlers
    handler_class = load_handlers(reference) if reference else None
    rules = compile_rules(loaded)
    findings = lint(rules, handler_class.opcodes if handler_class is not None else None)
    errors = [str(finding) for finding in findings if finding.level is Level.ERROR]
    if errors:
        raise UsageError("\n".join(errors))
    return Prepared(loaded, rules, handler_class, tuple(findings))


def compile_for(prepared: Prepared, terms: Terms) -> CompiledPolicy:
    """The policy for what kernel and daemon have agreed on."""
    return CompiledPolicy(prepared.rules, reads_and_writes=terms.tier >= Tier.RW, kernel=OpsMask())


class Policing:
    """What a session asks for each request: `table` by opcode, and before it `gates`."""

    def __init__(self, context: Context, prepared: Prepared) -> None:
        self._context = context
        self.table: list[Serve | None] = operations(context)
        self.prepared = prepared
        self.gates: list[Gate | None] = gates(context, self.table, self._handlers(prepared))

    def _handlers(self, prepared: Prepared) -> list[Serve | None]:
        if prepared.handler_class is None:
            return [None] * OPCODE_LIMIT
        return prepared.handler_class(self._context, self.table).table()

    def replace(self, prepared: Prepared, policy: CompiledPolicy) -> list[Gate | None]:
        """Go by another policy from now on; returns its gates. If this fails, nothing changes."""
        handlers = self._handlers(prepared)
        self._context.placement.adopt(policy)
        self.gates = gates(self._context, self.table, handlers)
        self.prepared = prepared
        return self.gates
