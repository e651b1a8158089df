"""The JSON Schema of policies, made from the types in `inopt.policy.model`.

It is draft 7, which editors know (the YAML language server among them).
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from inopt.policy import model

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

JSON: TypeAlias = dict[str, Any]

# What stands in many places, by name; each may contain earlier ones.
_SHARED: Final[dict[str, tuple[Any, str]]] = {
    "Operation": (model.Word, "An operation, or a group of them; see docs/policy.md."),
    "Operations": (model.Words, "Operations: one, or a list."),
    "Errno": (model.Errno, "The error that a denied operation ends with."),
    "Duration": (model.Duration, ""),
    "Size": (model.Size, ""),
    "FileType": (model.FileType, "A kind of file."),
    "ModeBit": (model.ModeBit, "A property that the mode of a file gives."),
    "Names": (model.Many, "One, or a list."),
    "Who": (model.Who, "A name or an id."),
    "ManyWho": (model.ManyWho, "Names or ids: one, or a list."),
}
_REFERENCE: Final = "#/definitions/"
_FIELD: Final = re.compile(r"``(\w+)``: ")
_TYPE_NAMES: Final[dict[type, str]] = {bool: "boolean", int: "integer", str: "string"}


def schema() -> JSON:
    """The schema of a policy file; the caller may change it."""
    raw = msgspec.json.schema(model.PolicyFile)
    definitions = _shared_definitions()
    shared = dict(definitions)
    for name, definition in raw["$defs"].items():
        described = _described(definition, getattr(model, name))
        definitions[name] = _shortened(_cleaned(described), shared)
    # msgspec leaves out what the keys of a mapping are.
    deny = definitions["Rule"]["properties"]["deny"]["anyOf"]
    for branch in deny:
        if branch.get("type") == "object":
            branch["propertyNames"] = {"$ref": f"{_REFERENCE}Operation"}
    whole = definitions.pop("PolicyFile")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **whole,
        "title": "inopt policy",
        "definitions": dict(sorted(definitions.items())),
    }


@cache
def validator(definition: str | None = None) -> Draft7Validator:
    """What checks plain values by the schema, or by one of its definitions.

    Unlike JSON, a policy tells 1 from 1.0.
    """
    # Only a policy with mistakes needs it, and it takes long to import.
    from jsonschema import Draft7Validator  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    whole = schema()
    if definition is not None:
        reference = {"$ref": f"{_REFERENCE}{definition}"}
        whole = {"definitions": whole["definitions"], "allOf": [reference]}
    checker = Draft7Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    made: Draft7Validator = extend(Draft7Validator, type_checker=checker)(whole)  # type: ignore[no-untyped-call]
    return made


@cache
def definitions() -> JSON:
    """What ``$ref`` in the schema may name. Not to be changed."""
    found: JSON = schema()["definitions"]
    return found


def resolved(part: JSON) -> JSON:
    """A part of the schema, or what it refers to."""
    reference: str | None = part.get("$ref")
    return definitions()[reference.removeprefix(_REFERENCE)] if reference else part


def _shared_definitions() -> JSON:
    found: JSON = {}
    for name, (kind, description) in _SHARED.items():
        definition = _shortened(_cleaned(msgspec.json.schema(kind)), found)
        found[name] = {"title": name} | ({"description": description} if description else {})
        found[name] |= definition
    return found


def _cleaned(part: Any) -> Any:
    """Without null, which policies have no use for; with types for words; references renamed."""
    if isinstance(part, list):
        return [_cleaned(each) for each in part]
    if not isinstance(part, dict):
        return part
    part = {key: _cleaned(value) for key, value in part.items()}
    if "$ref" in part:
        part["$ref"] = part["$ref"].replace("#/$defs/", _REFERENCE)
    if isinstance(part.get("enum"), list):
        part = {"type": _TYPE_NAMES[type(part["enum"][0])], **part}
    if part.get("default", 0) in (None, "", [], {}):
        del part["default"]
    branches = [each for each in part.get("anyOf", ()) if each != {"type": "null"}]
    if branches:
        part["anyOf"] = branches
    if len(branches) == 1:
        del part["anyOf"]
        part = branches[0] | part
    return part


def _shortened(part: Any, shared: JSON) -> Any:
    """*part* with references to what is shared instead of copies."""
    if isinstance(part, list):
        return [_shortened(each, shared) for each in part]
    if not isinstance(part, dict):
        return part
    part = {key: _shortened(value, shared) for key, value in part.items()}
    for name, definition in shared.items():
        if _bare(part) == _bare(definition):
            kept = {key: part[key] for key in ("description", "default") if key in part}
            if kept.get("description") == definition.get("description"):
                kept.pop("description", None)
            return {"$ref": f"{_REFERENCE}{name}"} | kept
    return part


def _bare(part: JSON) -> JSON:
    return {
        key: value for key, value in part.items() if key not in {"title", "description", "default"}
    }


def _described(definition: JSON, kind: type) -> JSON:
    """*definition* with the texts of the docstring of *kind*, which may tell of its fields."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    general, *fields = _FIELD.split(text)
    properties = {name: dict(value) for name, value in definition["properties"].items()}
    for name, description in zip(fields[::2], fields[1::2], strict=True):
        properties[name]["description"] = _sentence(description)
    return definition | {"description": _sentence(general), "properties": properties}


def _sentence(text: str) -> str:
    text = text.strip().replace("``", "`")
    return text[:1].upper() + text[1:]
