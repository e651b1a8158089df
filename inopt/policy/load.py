"""YAML to `Policy`, with errors that name file, line and column."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from inopt.exceptions import UsageError
from inopt.policy.model import Policy, seconds

_LARGEST_FILE: Final = 1 << 20
_PATH: Final = re.compile(r" - at `(\$[^`]*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def shipped_policies() -> dict[str, Path]:
    """The policies that come with inopt, by name."""
    package = Path(str(resources.files("inopt")))
    for folder in (package / "shipped_policies", package.parent / "policies"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load_policy(name: str) -> tuple[Policy, str]:
    """Load a policy file, or a shipped policy by its name; returns it and its path.

    Raises `UsageError`, with file, line and column where the file is at fault.
    """
    path = Path(name)
    if not path.exists() and os.sep not in name:
        shipped = shipped_policies()
        if name not in shipped:
            raise UsageError(
                f"policy '{name}': neither a file nor a shipped policy: "
                f"shipped are {', '.join(shipped) or 'none'}"
            )
        path = shipped[name]
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"policy '{name}': cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"policy '{name}': larger than {_LARGEST_FILE} bytes: not a policy")
    return parse_policy(data, str(path)), str(path)


def parse_policy(data: bytes, path: str) -> Policy:
    """Parse the bytes of a policy. *path* is for messages. Raises `UsageError`."""
    try:
        tree = yaml.compose(data, Loader=yaml.SafeLoader)
        content = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise UsageError(f"{path}:{line}:{column}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise UsageError(f"{path}:1:1: not YAML: {reason}") from error
    _refuse_duplicates(tree, path)
    try:
        policy = msgspec.convert(content, Policy)
    except msgspec.ValidationError as error:
        message = str(error)
        found = _PATH.search(message)
        where = found[1] if found else "$"
        key = _UNKNOWN.search(message)
        line, column = _place(tree, where, key[1] if key else None)
        raise UsageError(f"{path}:{line}:{column}: {_PATH.sub('', message)}") from error
    for field in ("entry", "attributes", "negative"):
        try:
            seconds(getattr(policy.cache, field))
        except ValueError as error:
            line, column = _place(tree, f"$.cache.{field}", None)
            raise UsageError(f"{path}:{line}:{column}: {field}: {error}") from error
    return policy


def _refuse_duplicates(node: Any, path: str) -> None:
    """Raise `UsageError` for a key that stands twice in one mapping: YAML would take the last."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[Any, int] = {}
    for key, value in node.value:
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise UsageError(
                f"{path}:{line}:{column}: '{key.value}' stands twice, first in line "
                f"{seen[key.value]}: remove one of them"
            )
        if isinstance(key, yaml.ScalarNode):
            seen[key.value] = line
        _refuse_duplicates(value, path)


def _place(node: Any, where: str, key: str | None) -> tuple[int, int]:
    """Line and column (from 1) of a path like ``$.cache.entry``, or of *key* in it."""
    if node is None:
        return 1, 1
    for step in _STEP.finditer(where):
        node = _child(node, step[1], step[2]) or node
    if key is not None and isinstance(node, yaml.MappingNode):
        for name, _ in node.value:
            if name.value == key:
                node = name
                break
    return node.start_mark.line + 1, node.start_mark.column + 1


def _child(node: Any, key: str | None, index: str | None) -> Any:
    if isinstance(node, yaml.MappingNode) and key is not None:
        for name, value in node.value:
            if name.value == key:
                return value
    if isinstance(node, yaml.SequenceNode) and index is not None:
        return node.value[int(index)]
    return None
