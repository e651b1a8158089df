"""What the linter can say: a finding, how bad it is, and the table of all codes.

Codes are stable: docs/policy.md has a section for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from inopt.policy.text.problems import Place


class Level(Enum):
    """How bad a finding is: an error refuses the mount."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """One thing that the linter says, about one place.

    ``rule``: the rule's name, or its number in its file; empty for what is about no rule.
    ``message``: what is the matter, in one line; ``fix``: what to write instead.
    """

    code: str
    level: Level
    place: Place
    rule: str
    message: str
    fix: str

    def __str__(self) -> str:
        fix = f": {self.fix}" if self.fix else ""
        return f"{self.place}: {self.code} {self.level.value}: {self.message}{fix}"


CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "INO001": "the policy cannot be read",
        "INO002": "a pattern, a user or a group is wrong",
        "INO003": "the handler class cannot be loaded",
        "INO101": "what the kernel answers from its cache depends on who asks",
        "INO102": "who asks decides what is visible",
        "INO103": "a handler for some callers only",
        "INO104": "the size guards what changes the size",
        "INO105": "a bypass under a condition that can change",
        "INO106": "reading handled, writing bypassed, or the other way round",
        "INO107": "one part of setattr bypassed, another not",
        "INO108": "overwrite or mmap denied, and the same file bypassed",
        "INO109": "denied, but nobody can deny it",
        "INO110": "handled, but no handler can serve it",
        "INO111": "handled, but there is no handler class",
        "INO112": "handled, but the class does not serve it",
        "INO113": "mmap with another errno than ENODEV",
        "INO114": "one of several ways to the same effect",
        "INO201": "never reached",
        "INO202": "decides nothing",
        "INO203": "lookup or getattr denied",
        "INO204": "granted where nobody can get to",
        "INO205": "two rules of one name",
        "INO206": "open denied, so nothing is read or written",
        "INO207": "an operation that files of this type do not have",
        "INO208": "a size that no file has",
        "INO209": "mmap denied to some is denied to all",
        "INO210": "a tier is required that nothing uses",
        "INO211": "a path that matches nothing",
        "INO212": "names of one file are treated differently",
        "INO213": "overridden, but never routed",
        "INO301": "moving between places answers EXDEV",
        "INO302": "files with several names",
        "INO303": "decided when the file is opened",
        "INO304": "no kernel can bypass it",
        "INO305": "reading and writing bypass together",
        "INO306": "setattr is one request",
        "INO307": "the daemon has to be asked",
        "INO308": "who may change the file may change the decision",
        "INO309": "the class serves a part of it",
        "INO310": "a directory that cannot be read",
    }
)
"""Every code, with what it is about in a few words."""

_LEVELS: Final = {"0": Level.ERROR, "1": Level.ERROR, "2": Level.WARNING, "3": Level.NOTE}


def level_of(code: str) -> Level:
    """How bad the findings of a code are."""
    return _LEVELS[code[3]]


def in_order(findings: Iterable[Finding], files: Sequence[str]) -> list[Finding]:
    """Findings by place; *files* are the paths of a policy's files, the main one first."""
    numbers = {path: number for number, path in enumerate(files)}
    return sorted(
        findings, key=lambda each: (numbers.get(each.place.path, 0), each.place, each.code)
    )


def counted(findings: list[Finding]) -> str:
    """How many findings there are of each level, as in ``1 error, 2 warnings``; may be empty."""
    parts: list[str] = []
    for level in Level:
        number = sum(finding.level is level for finding in findings)
        if number:
            parts.append(f"{number} {level.value}{'s' if number > 1 else ''}")
    return ", ".join(parts)
