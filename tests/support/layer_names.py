"""Names for random operations: mostly of something that is there when the step is done.

What that is, is only known then: until then it is a `There`, and `settle` finds the name.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.layer_trees import NAMES

Step = tuple[str, str, tuple[Any, ...]]
"""A client's kind, an operation's name and its arguments."""

_DIRECTORIES: Final = (b".", b"d", b"d/e", b"d/e/f", b"m", b"m/m", b"p", b"p/q")
_ALL: Final = (*NAMES, *NAMES, b"n", b"d/n", b"m/n", b"p/n", b"d/e/n", b"p/q/n")
_NEW: Final = (b"n", b"a", b"b", b"e", b"o")


@dataclass(frozen=True)
class There:
    """A name of something that is there, chosen by *at*, from 0 to 1.

    *what*: ``any``, ``file`` (all but a directory) or ``directory``; *child*: not that, but this
    name in it.
    """

    at: float
    what: str
    child: bytes = b""


def name_of_some(chance: random.Random) -> Any:
    """A name, mostly of something."""
    if chance.random() < 0.2:
        return chance.choice(_ALL)
    return There(chance.random(), chance.choice(("any", "file", "file")))


def file_name(chance: random.Random) -> Any:
    """A name, mostly of a file."""
    if chance.random() < 0.2:
        return name_of_some(chance)
    return There(chance.random(), "file")


def somewhere(chance: random.Random) -> Any:
    """A name, mostly of a directory."""
    if chance.random() < 0.3:
        return chance.choice(_DIRECTORIES[1:])
    return There(chance.random(), "directory")


def new_name(chance: random.Random) -> Any:
    """A name, mostly of nothing, but in something."""
    if chance.random() < 0.4:
        return name_of_some(chance)
    return There(chance.random(), "directory", child=chance.choice(_NEW))


def settle(group: list[Step], top: Path) -> list[Step]:
    """The steps with names of what is below *top* now."""
    home = os.fsencode(top)
    known: dict[str, list[bytes]] = {"any": [], "file": [], "directory": []}
    for folder, folders, files in os.walk(home):
        for what, some in (("directory", folders), ("file", files)):
            found = [os.path.relpath(os.path.join(folder, name), home) for name in some]
            known[what] += found
            known["any"] += found
    for some in known.values():
        some.sort()

    def settled(argument: Any) -> Any:
        if not isinstance(argument, There):
            return argument
        some = known[argument.what]
        name = some[int(argument.at * len(some))] if some else b"."
        return os.path.normpath(os.path.join(name, argument.child)) if argument.child else name

    return [(who, step, tuple(map(settled, arguments))) for who, step, arguments in group]
