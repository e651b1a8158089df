"""The policy language as types: what these decode is what the YAML may say.

For now every opcode of every file bypasses: there are no rules yet.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the kernel may believe what it was told, as durations (``1s``, ``500ms``).

    ``entry``: that a name leads to an inode. ``attributes``: of an inode. ``negative``: that a
    name does not exist.
    """

    entry: str = "1s"
    attributes: str = "1s"
    negative: str = "0s"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One policy file.

    ``require``: refuse to mount below this tier. ``otherwise``: what happens with what no rule
    matches.
    """

    version: Literal[1]
    description: str = ""
    require: Literal["none", "rw", "inode"] = "none"
    otherwise: Literal["bypass"] = "bypass"
    cache: Cache = Cache()


def seconds(duration: str) -> float:
    """The seconds of a duration. Raises `ValueError` that says what was expected."""
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ValueError(f"expected a duration such as 1s, 500ms or 5m, found {duration!r}")
    return float(found[1]) * _UNITS[found[2]]
