"""What the YAML parser complains about, in words that help whoever writes policies."""

from __future__ import annotations

from typing import Any, Final

import yaml

from inopt.policy.text.problems import Place, Problem

# What the parser says, in part, and what most often helps.
_ADVICE: Final = (
    ("scanning an alias", "put a text that begins with '*' in quotes"),
    ("scanning an anchor", "put a text that begins with '&' in quotes"),
    ("tag", "put a text that begins with '!' in quotes"),
    ("mapping values are not allowed", "indent keys alike, and put a text with ': ' in quotes"),
    ("sequence entries are not allowed", "begin each item with '- ' in a line of its own"),
    ("expected ',' or", "close the bracket, put commas between items"),
    ("expected '-' indicator", "begin each item with '- ', all indented alike"),
    ("could not find expected ':'", "write 'key: value'"),
    ("unexpected end of stream", "close the quotes"),
    ("expected key", "indent keys alike, and put a text with quotes or brackets in quotes"),
    ("expected <block end>", "indent keys alike, and put a text with quotes in quotes"),
    ("unknown escape character", "put the text in single quotes, where '\\' is nothing special"),
)


def not_yaml(error: Exception, text: str, path: str) -> Problem:
    """What the parser met in *text*."""
    if not isinstance(error, yaml.MarkedYAMLError):
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Problem(Place(path, 1, 1), f"not YAML: {reason}")
    mark: Any = error.problem_mark or error.context_mark
    place = place_in(path, mark) if mark else Place(path, 1, 1)
    reason = f"{error.context or ''} {error.problem or ''}".strip()
    since: Any = error.context_mark
    if since is not None and since.line + 1 < place.line:
        reason = f"{error.problem} {error.context} that begins in line {since.line + 1}"
    return Problem(place, f"not YAML: {reason}{_advice(reason, text, place)}")


def _advice(reason: str, text: str, place: Place) -> str:
    if "cannot start any token" in reason:
        character = _character(text, place)
        if character == "\t":
            return ": indent with spaces, not with tabs"
        return f": put a text that begins with {character!r} in quotes"
    for part, advice in _ADVICE:
        if part in reason:
            return f": {advice}"
    return ""


def _character(text: str, place: Place) -> str:
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    return line[place.column - 1 : place.column]


def place_in(path: str, mark: Any) -> Place:
    """The place of a mark of the parser."""
    return Place(path, mark.line + 1, mark.column + 1)


def position(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what stands behind the text *before*."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")
