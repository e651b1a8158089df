"""The value of a plain scalar: PyYAML's reading of it, without dates and the like."""

from __future__ import annotations

from typing import Any, Final

import yaml

TEXT_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:str"})
"""Tags of scalars that are text as they stand."""

_LONGEST_NUMBER: Final = 32
_RESOLVERS: Final[dict[str | None, list[Any]]] = yaml.SafeLoader.yaml_implicit_resolvers
_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()
_CONSTRUCTORS: Final = {
    "tag:yaml.org,2002:int": _CONSTRUCTOR.construct_yaml_int,
    "tag:yaml.org,2002:float": _CONSTRUCTOR.construct_yaml_float,
    "tag:yaml.org,2002:bool": _CONSTRUCTOR.construct_yaml_bool,
    "tag:yaml.org,2002:null": _CONSTRUCTOR.construct_yaml_null,
}


def plain_value(text: str) -> str | int | float | bool | None:
    """What *text* without quotes means. Raises `ValueError` for a number nobody can need."""
    for tag, pattern in _RESOLVERS.get(text[:1], ()):
        if not pattern.match(text):
            continue
        construct = _CONSTRUCTORS.get(tag)
        if construct is None:
            return text
        if len(text) > _LONGEST_NUMBER:
            raise ValueError(
                f"a number of {len(text)} characters, where {_LONGEST_NUMBER} are enough: put it "
                "in quotes if it is a text"
            )
        try:
            value: int | float | bool | None = construct(yaml.ScalarNode(tag, text))
        except ValueError:  # '0x_' looks like a number to PyYAML, but is none
            return text
        return value
    return text
