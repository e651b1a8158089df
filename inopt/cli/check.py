"""``inopt check``: whether policies are enforceable, before anything is mounted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import pyfuse3

from inopt.exceptions import UsageError
from inopt.handlers.load import load_handlers
from inopt.handlers.running import methods_of, served_by
from inopt.ops import Op
from inopt.policy.linting.against import against
from inopt.policy.linting.findings import Finding, Level, counted, in_order, level_of
from inopt.policy.linting.linter import lint
from inopt.policy.load import Loaded, load_policy, shipped_policies
from inopt.policy.rules import compile_rules
from inopt.policy.text.problems import Place, PolicyError

_COLORS: Final = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "cyan"}


class _Checked(msgspec.Struct):
    """One policy: how many rules it has (-1: it cannot be read), and what is to be said of it."""

    policy: str
    rules: int
    findings: list[Finding]

    def is_ok(self, *, strict: bool) -> bool:
        """Whether it can be mounted; with *strict*, without warnings as well."""
        bad = (Level.ERROR, Level.WARNING) if strict else (Level.ERROR,)
        return not any(finding.level in bad for finding in self.findings)


def _complete_policy(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    return [name for name in shipped_policies() if name.startswith(incomplete)]


@click.command(epilog="Example: inopt check site.yaml --against /srv/data --strict")
@click.argument(
    "policies", metavar="POLICY...", nargs=-1, required=True, shell_complete=_complete_policy
)
@click.option(
    "--against",
    "tree",
    type=click.Path(),
    metavar="TREE",
    help="Tell which paths match nothing in TREE, and which files there have names in two places.",
)
@click.option(
    "--handlers",
    metavar="MODULE:CLASS",
    help="Check with this handler class instead of the policy's own.",
)
@click.option("--json", "as_json", is_flag=True, help="As a JSON list, one object for each policy.")
@click.option("--strict", is_flag=True, help="Exit with 2 on warnings, too.")
@click.pass_context
def check(
    context: click.Context,
    policies: tuple[str, ...],
    tree: str | None,
    handlers: str | None,
    as_json: bool,
    strict: bool,
) -> None:
    """Tell whether each POLICY can be enforced, and where not, why.

    docs/policy.md explains each code. Exits with 2 if there are errors.
    """
    checked = [_check(name, tree, handlers) for name in policies]
    if as_json:
        click.echo(msgspec.json.encode([_plain(each, strict=strict) for each in checked]))
    else:
        for each in checked:
            _show(each)
    if not all(each.is_ok(strict=strict) for each in checked):
        context.exit(2)


def _check(name: str, tree: str | None, handlers: str | None) -> _Checked:
    try:
        loaded = load_policy(name)
    except PolicyError as error:
        return _Checked(name, -1, _problems("INO001", error))
    except UsageError as error:
        return _Checked(name, -1, [_finding("INO001", Place(name, 1, 1), str(error))])
    count = len(loaded.policy.rules)
    try:
        rules = compile_rules(loaded)
    except PolicyError as error:
        return _Checked(name, count, _problems("INO002", error))
    findings: list[Finding] = []
    handler_class = _handler_class(loaded, handlers, findings)
    if handler_class is not None:
        findings += lint(rules, served_by(handler_class), methods_of(handler_class))
    else:
        # If it could not be loaded, nothing more is said of handlers.
        findings += lint(rules, frozenset(Op) if findings else None)
    if tree is not None:
        findings += against(rules, Path(tree))
    return _Checked(name, count, in_order(findings, loaded.files))


def _handler_class(
    loaded: Loaded, handlers: str | None, findings: list[Finding]
) -> type[pyfuse3.Operations] | None:
    """The handler class, if there is one. That it cannot be loaded is a finding."""
    reference = handlers or loaded.policy.handlers
    if reference is None:
        return None
    folders = (os.getcwd(), os.path.dirname(os.path.abspath(loaded.path)))
    try:
        return load_handlers(reference, folders)
    except UsageError as error:
        if handlers:
            raise
        findings.append(_finding("INO003", loaded.place("handlers"), str(error)))
        return None


def _problems(code: str, error: PolicyError) -> list[Finding]:
    found = [_finding(code, problem.place, problem.message) for problem in error.problems]
    if error.more:
        place = Place(error.problems[-1].place.path, 1, 1)
        found.append(_finding(code, place, f"and {error.more} more mistakes"))
    return found


def _finding(code: str, place: Place, message: str) -> Finding:
    return Finding(code, level_of(code), place, "", message, "")


def _show(checked: _Checked) -> None:
    for finding in checked.findings:
        level = click.style(finding.level.value, fg=_COLORS[finding.level], bold=True)
        fix = f": {finding.fix}" if finding.fix else ""
        click.echo(f"{finding.place}: {finding.code} {level}: {finding.message}{fix}")
    parts = []
    if checked.is_ok(strict=False):
        parts = ["ok", f"{checked.rules} rule{'' if checked.rules == 1 else 's'}"]
    click.echo(f"{checked.policy}: " + ", ".join(filter(None, [*parts, counted(checked.findings)])))


def _plain(checked: _Checked, *, strict: bool) -> dict[str, Any]:
    return {
        "policy": checked.policy,
        "ok": checked.is_ok(strict=strict),
        "findings": [
            {
                "code": finding.code,
                "level": finding.level.value,
                "file": finding.place.path,
                "line": finding.place.line,
                "column": finding.place.column,
                "rule": finding.rule,
                "message": finding.message,
                "fix": finding.fix,
            }
            for finding in checked.findings
        ],
    }
