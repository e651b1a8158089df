"""One mistake in one line: what was expected, what was found, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from inopt.policy.text.problems import shown
from inopt.policy.text.schema import JSON, resolved

if TYPE_CHECKING:
    from jsonschema import ValidationError

_LONGEST_WORD: Final = 40  # nothing longer is looked up: it would take long
_MOST_LISTED: Final = 12
_NOUNS: Final = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "object": "a mapping",
    "string": "a text",
}
_OWNERS: Final = {"inopt policy": "of a policy", "Rule": "of a rule"}


def message(error: ValidationError, written: str | None) -> str:
    """What *error* means; *written* is how a scalar stands in the file."""
    schema: Any = error.schema
    limit: Any = error.validator_value
    found: Any = error.instance
    match error.validator:
        case "type" | "anyOf":
            return _wrong_type(schema, found, written)
        case "enum":
            return _unknown_word(schema, found)
        case "required":
            missing = [field for field in limit if field not in found]
            return f"'{missing[0]}' is missing: begin the policy with 'version: 1'"
        case "pattern":
            return f"expected {_expected(schema)}, found {shown(found)}"
        case "minLength":
            return "an empty text: write what is meant, or remove it"
        case "maxLength":
            return f"{len(found)} characters, where {limit} are the most: shorten {shown(found)}"
        case "minItems":
            return "an empty list: write what is meant, or remove the key"
        case "minimum":
            return f"expected a number of at least {limit}, found {shown_number(found)}"
        case "exclusiveMaximum":
            return f"expected a number below {limit}, found {shown_number(found)}"
    return error.message.splitlines()[0][:200]


def unknown_field(field: str, owner: JSON) -> str:
    """That *owner*, a schema, has no such *field*, and what it has."""
    fields = owner["properties"]
    where = _OWNERS.get(owner.get("title", ""), "here")
    told = f"{shown(field)} is no field {where}"
    for name, part in fields.items():
        if field in resolved(part).get("properties", ()):
            return f"{told}: it belongs into '{name}' (fields: {', '.join(fields)})"
    nearest = _nearest(field, fields)
    if nearest:
        return f"{told}: did you mean '{nearest}'? (fields: {', '.join(fields)})"
    return f"{told}: remove it, or use one of {_listed(fields)}"


def shown_number(number: float) -> str:
    """A number, or the beginning of a long one."""
    return str(number)[:24]


def _unknown_word(schema: JSON, found: Any) -> str:
    words: list[Any] = schema["enum"]
    if not isinstance(found, str) or not isinstance(words[0], str):
        told = f"expected {_listed(words)}, found {_found(found, None)}"
        return f"{told}: this inopt reads no other" if len(words) == 1 else told
    noun = {"Operation": "operation", "Errno": "errno of a policy"}.get(schema.get("title", ""))
    told = f"{shown(found)} is no {noun}" if noun else f"{shown(found)} is none of the words here"
    nearest = _nearest(found, words)
    many = len(words) > _MOST_LISTED
    listed = "docs/policy.md lists them all" if many else f"use {_listed(words)}"
    return f"{told}: did you mean '{nearest}'? ({listed})" if nearest else f"{told}: {listed}"


def _wrong_type(schema: JSON, found: Any, written: str | None) -> str:
    told = f"expected {_expected(schema)}, found {_found(found, written)}"
    branches = [resolved(each) for each in schema.get("anyOf", [schema])]
    kinds = {each.get("type") for each in branches}
    free_text = any(
        each.get("type") == "string" and not each.keys() & {"enum", "pattern"} for each in branches
    )
    if free_text and written is not None and isinstance(found, bool | int | float):
        return f"{told}: put it in quotes if it is a name: '{written[:24]}'"
    if "object" in kinds and "properties" in schema:
        return f"{told}: its fields are {', '.join(schema['properties'])}"
    if kinds == {"array"}:
        return f"{told}: begin each item with '- '"
    if "array" in kinds and isinstance(found, dict):
        return f"{told}: write [one, another]"
    return told


def _expected(schema: JSON) -> str:
    if "anyOf" in schema:
        parts = dict.fromkeys(_expected(resolved(each)) for each in schema["anyOf"])
        return " or ".join(parts)
    if "pattern" in schema:
        description = str(schema.get("description", "a text of another form")).rstrip(".")
        return description[:1].lower() + description[1:]
    if "enum" in schema:
        words = schema["enum"]
        return "a word" if len(words) > _MOST_LISTED else _listed(words)
    kind = schema.get("type")
    return _NOUNS[kind] if isinstance(kind, str) else "something else"


def _found(found: Any, written: str | None) -> str:
    if found is None:
        return "nothing"
    if isinstance(found, bool):
        value = "true" if found else "false"
        return value if written in {None, value} else f"{value} (which '{written}' means in YAML)"
    if isinstance(found, int | float):
        return f"a number ({(written or str(found))[:24]})"
    if isinstance(found, str):
        return f"a text ({shown(found)})"
    return "a list" if isinstance(found, list) else "a mapping"


def _nearest(found: str, words: Iterable[str]) -> str | None:
    if len(found) > _LONGEST_WORD:
        return None
    by_lower = {word.lower(): word for word in words}
    close = get_close_matches(found.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def _listed(words: Iterable[Any]) -> str:
    quoted = [f"'{word}'" if isinstance(word, str) else str(word) for word in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
