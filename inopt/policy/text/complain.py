"""Plain values to a `PolicyFile`, or everything that is wrong with them, in good words.

msgspec decides and is fast, but stops at the first mistake. Only then does jsonschema look for
all of them, in the parts where msgspec found one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from inopt.policy.model import PolicyFile, Rule
from inopt.policy.text.document import Document
from inopt.policy.text.problems import Problems
from inopt.policy.text.schema import validator
from inopt.policy.text.wording import message, unknown_field

if TYPE_CHECKING:
    from jsonschema import ValidationError

_Steps: TypeAlias = tuple[str | int, ...]
_Kind = TypeVar("_Kind")
_LONGEST: Final = 1000
_MSGSPEC_PATH: Final = re.compile(r" - at (?:`key` in )?`(\$[^`]*)`$")
_MSGSPEC_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def checked(document: Document) -> PolicyFile:
    """What *document* says. Raises `PolicyError` with all its mistakes, by place."""
    policy, refusal = _convert(document.content, PolicyFile)
    if policy is not None and not document.problems:
        return policy
    problems = Problems()
    problems.update(document.problems)
    content = document.content
    rules = content.get("rules") if isinstance(content, dict) else None
    if isinstance(rules, list):
        content = {**content, "rules": []}
        _complain_of_rules(document, rules, problems)
    if isinstance(content, dict):
        content = {key: _cut(value) for key, value in content.items()}
    _complain(document, problems, validator().iter_errors(content), ())
    if not problems:
        _repeat(document, problems, refusal, ())
    raise problems.error()


def _convert(content: Any, kind: type[_Kind]) -> tuple[_Kind | None, str]:
    try:
        return msgspec.convert(content, kind), ""
    except msgspec.ValidationError as error:
        return None, str(error)


def _complain_of_rules(document: Document, rules: list[Any], problems: Problems) -> None:
    for index, rule in enumerate(rules):
        right, refusal = _convert(rule, Rule)
        if right is not None:
            continue
        if problems.is_full:
            problems.count_another()
            continue
        errors = list(validator("Rule").iter_errors(_cut(rule)))
        _complain(document, problems, errors, ("rules", index))
        if not errors:
            _repeat(document, problems, refusal, ("rules", index))


def _cut(value: Any) -> Any:
    """*value* without the ends of long lists and mappings: a thousand mistakes are enough."""
    if isinstance(value, list):
        return [_cut(each) for each in value[:_LONGEST]]
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in islice(value.items(), _LONGEST)}
    return value


def _complain(
    document: Document, problems: Problems, errors: Iterable[ValidationError], above: _Steps
) -> None:
    for error in errors:
        for leaf in _relevant(error):
            steps = (*above, *leaf.absolute_path)
            label = _label(document.content, steps)
            found: Any = leaf.instance
            if leaf.validator == "additionalProperties":
                owner: Any = leaf.schema
                for field in found.keys() - owner["properties"].keys():
                    if problems.is_full:
                        problems.count_another()
                        continue
                    place = document.place(*steps, field, key=True)
                    problems.add(place, label + unknown_field(field, owner))
            elif "propertyNames" in leaf.absolute_schema_path:
                place = document.place(*steps, found, key=True)
                problems.add(place, label + message(leaf, None))
            else:
                written = document.written(*steps)
                problems.add(document.place(*steps), label + message(leaf, written))


def _relevant(error: ValidationError) -> list[ValidationError]:
    """The errors that matter of one: those of the alternative that was probably meant."""
    if error.validator != "anyOf":
        return [error]
    branches: dict[Any, list[ValidationError]] = {}
    for each in error.context or ():
        branches.setdefault(each.relative_schema_path[0], []).append(each)
    for branch in branches.values():
        leaves = [leaf for each in branch for leaf in _relevant(each)]
        if not any(
            leaf.validator in {"type", "anyOf"} and leaf.absolute_path == error.absolute_path
            for leaf in leaves
        ):
            return leaves
    return [error]


def _label(content: Any, steps: _Steps) -> str:
    """What the value at *steps* belongs to, as a message begins: ``rule 2 ('logs'): deny: ``."""
    label = ""
    if len(steps) >= 2 and steps[0] == "rules":
        rule = content["rules"][steps[1]]
        name = rule.get("name") if isinstance(rule, dict) else None
        label = f"rule {int(steps[1]) + 1}"
        label += f" ({name!r}): " if isinstance(name, str) and 0 < len(name) <= 40 else ": "
        steps = steps[2:]
    fields = ".".join(step for step in steps if isinstance(step, str) and step.isidentifier())
    return f"{label}{fields}: " if fields else label


def _repeat(document: Document, problems: Problems, refusal: str, above: _Steps) -> None:
    """Complain in msgspec's words: better than to let pass what it refused."""
    found = _MSGSPEC_PATH.search(refusal)
    steps: list[str | int] = [
        step[1] or int(step[2]) for step in _MSGSPEC_STEP.finditer(found[1] if found else "")
    ]
    problems.add(
        document.place(*above, *steps),
        _label(document.content, above) + _MSGSPEC_PATH.sub("", refusal),
    )
