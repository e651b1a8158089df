"""YAML text to plain values, each with its place."""

from __future__ import annotations

from typing import Any, Final

import yaml

from inopt.policy.text.nodes import Builder, Node
from inopt.policy.text.problems import Place, PolicyError, Problem, Problems
from inopt.policy.text.yaml_errors import position

LARGEST_FILE: Final = 8 << 20
"""Bytes of the longest policy: 10,000 rules take about a fifth of it."""

_UNPRINTABLE: Final = yaml.reader.Reader.NON_PRINTABLE


class Document:
    """One YAML document: plain values, and the place of each."""

    def __init__(self, data: bytes, path: str) -> None:
        """Parse *data*. Raises `PolicyError` if it is no YAML, or not of the kind policies are.

        What is wrong but can be read past is in `problems`.
        """
        self.path: Final = path
        self.problems: Final = Problems()
        """Keys that stand twice or are no text, tags, values left out."""
        builder = Builder(_decoded(data, path), path, self.problems)
        self.content: Final[Any] = builder.value
        """What it says, as dict, list, str, int, float, bool and None. Not to be changed."""
        self._root: Final = builder.node

    def place(self, *steps: str | int, key: bool = False) -> Place:
        """The place of a value, or with *key* of the key that leads to it.

        *steps* are keys, indices, or a word of a list by itself. Where one is missing, the place
        of the deepest that exists.
        """
        node, complete = self._walk(steps)
        if key and complete and node.key is not None:
            return Place(self.path, *node.key)
        return Place(self.path, node.line, node.column)

    def written(self, *steps: str | int) -> str | None:
        """The text of a scalar as it is written; None of anything else."""
        node, complete = self._walk(steps)
        return node.text if complete else None

    def _walk(self, steps: tuple[str | int, ...]) -> tuple[Node, bool]:
        node = self._root
        for step in steps:
            found = node.child(step)
            if found is None:
                return node, False
            node = found
        return node, True


def _decoded(data: bytes, path: str) -> str:
    if len(data) > LARGEST_FILE:
        place = Place(path, 1, 1)
        raise PolicyError([Problem(place, f"larger than {LARGEST_FILE >> 20} MiB: not a policy")])
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = Place(path, *position(data[: error.start].decode()))
        reason = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise PolicyError([Problem(place, f"not YAML: {reason}")]) from error
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        place = Place(path, *position(text[: unprintable.start()]))
        reason = f"the control character {unprintable[0]!r} is not allowed: remove it"
        raise PolicyError([Problem(place, f"not YAML: {reason}")])
    return text
