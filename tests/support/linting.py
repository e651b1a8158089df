"""Policies under the linter, from their text."""

from __future__ import annotations

from textwrap import dedent

from inopt.ops import Op
from inopt.policy.linting.findings import Finding
from inopt.policy.linting.linter import lint
from inopt.policy.load import parse_policy
from inopt.policy.rules import Rules, compile_rules

ALL_OPCODES = frozenset(Op)


def rules_of(text: str, path: str = "policy.yaml") -> Rules:
    return compile_rules(parse_policy(with_version(text).encode(), path))


def with_version(text: str) -> str:
    """The policy's text, begun with its version, which takes the first line."""
    return "version: 1\n" + dedent(text).lstrip("\n")


def findings_of(text: str, handled_by: frozenset[int] | None = ALL_OPCODES) -> list[Finding]:
    return lint(rules_of(text), handled_by)


def lines_of(text: str, code: str, handled_by: frozenset[int] | None = ALL_OPCODES) -> list[int]:
    """The lines at which a code is found."""
    return [each.place.line for each in findings_of(text, handled_by) if each.code == code]


def marked_lines(text: str, code: str) -> list[int]:
    """The lines of a policy that end with the code in a comment."""
    lines = with_version(text).splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith(f"# {code}")]
