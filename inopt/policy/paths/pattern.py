r"""One gitignore-style pattern: what it says, segment by segment, and what is refused.

The meaning is that of `pathspec` (``GitIgnoreSpecPattern``), on paths seen from the root where a
directory's ends with a slash. A pattern that matches a directory matches all beneath it, so
``/a/*`` covers ``/a/b/c``, as in git (in ``GitIgnoreBasicPattern`` it does not). Whitespace at the
end is cut off unless it is written ``\ ``. What differs:

- A newline in a name is a character like any other; and no wildcard ever matches a slash, while
  there ``[!a]`` and ``[+-9]`` do.
- ``***`` is ``*``: there, ``a/***`` matches the directory ``a`` as well.
- What can never be meant is refused: the empty pattern, ``/``, ``!``, ``#comment``, segments that
  are empty, ``.`` or ``..``, a ``[`` that is not closed, a range that runs backwards, a class like
  ``[[:alpha:]]`` (which there means other characters), a backslash before nothing, and NUL.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple, TypeAlias

EDGE: Final = "\0"
"""Stands for the begin and for the end of a name: no name has it."""

_SPECIAL: Final = re.compile(r"[*?\[\\]")


class PatternError(ValueError):
    """A pattern that can never be meant: *reason* says why, *fix* what to write instead.

    ``list_index`` and ``pattern_index`` tell which one of many it was, -1 if it was alone.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}: {fix}")
        self.reason = reason
        self.fix = fix
        self.list_index = -1
        self.pattern_index = -1


class Wild(Enum):
    """The segments that look at no name."""

    ONE = auto()  # "*": any one name
    MANY = auto()  # "**": any number of names, none as well


class Glob:
    r"""A segment with wildcards among other characters.

    ``source`` is a regular expression that tells it from other globs. ``chunks`` are the literal
    runs that a match contains, in order; `EDGE` marks those at an end of the name. They say
    everything if the only wildcards are stars.
    """

    __slots__ = ("_expression", "chunks", "only_stars", "source")

    def __init__(self, source: str, chunks: tuple[str, ...], *, only_stars: bool) -> None:
        self.source = source
        self.chunks = chunks
        self.only_stars = only_stars
        self._expression: re.Pattern[str] | None = None

    def matches(self, edged: str) -> bool:
        """Whether a name matches; *edged* is the name between two `EDGE`."""
        position = 0
        for chunk in self.chunks:
            position = edged.find(chunk, position)
            if position < 0:
                return False
            position += len(chunk)
        if self.only_stars:
            return True
        expression = self._expression
        if expression is None:
            # Most are never asked: compiling all would take longer than all the rest.
            expression = self._expression = re.compile(self.source, re.DOTALL)
        return expression.fullmatch(edged, 1, len(edged) - 1) is not None


Segment: TypeAlias = str | Glob | Wild


class Pattern(NamedTuple):
    """A pattern, taken apart.

    ``segments`` match the whole path from the root; `Wild.MANY` is never last, nor twice in a row.
    A path beneath a match is matched, too. ``only_directory``: the match itself counts if it is a
    directory.
    """

    negated: bool
    segments: tuple[Segment, ...]
    only_directory: bool


def check_pattern(pattern: str) -> None:
    """Raises `PatternError` for a pattern that can never be meant."""
    parse_pattern(pattern)


def parse_pattern(pattern: str) -> Pattern:
    """Take a pattern apart. Raises `PatternError`."""
    if EDGE in pattern:
        raise PatternError("no name has a NUL in it", "remove it")
    text = pattern if pattern.endswith("\\ ") else pattern.rstrip()
    if not text:
        raise PatternError("the pattern is empty", "write a path, or ** for every path")
    if text.startswith("#"):
        raise PatternError("this is a comment", f"for a name that begins with #, write \\{text}")
    negated = text.startswith("!")
    body = text[1:] if negated else text
    if not body:
        raise PatternError(
            "nothing is negated", r"write a pattern after !, or \! for a name that begins with it"
        )
    if body == "/":
        raise PatternError("no pattern matches the root", "write /** for all that is beneath it")
    parts = body.split("/")
    if not parts[0]:
        del parts[0]
    elif len(parts) == 1 or (len(parts) == 2 and not parts[1]):
        parts.insert(0, "**")
    only_directory = not parts[-1]
    if only_directory:
        parts.pop()
    segments: list[Segment] = []
    for part in parts:
        segment = _parse_segment(part)
        if segment is not Wild.MANY or not segments or segments[-1] is not Wild.MANY:
            segments.append(segment)
    if segments == [Wild.MANY]:
        segments.append(Wild.ONE)
    elif segments[-1] is Wild.MANY:
        # All beneath a directory and, as its path ends with a slash, the directory itself.
        segments.pop()
        only_directory = True
    return Pattern(negated, tuple(segments), only_directory)


def _parse_segment(text: str) -> Segment:
    segment: Segment = text
    if _SPECIAL.search(text) is not None:
        if text == "**":
            return Wild.MANY
        if not text.strip("*"):
            return Wild.ONE
        segment = _parse_glob(text)
    if segment == "":
        raise PatternError("two slashes with no name between them", "remove one of them")
    if segment == ".":
        raise PatternError("a path has no segment '.'", "remove it; a slash at the begin anchors")
    if segment == "..":
        raise PatternError("a path has no segment '..'", "write the path from the root")
    return segment


def _parse_glob(text: str) -> str | Glob:
    """A segment with special characters; a literal if all of them are escaped."""
    fixed = [""]  # what stands between the stars, as regular expressions
    chunks: list[str] = []
    run = EDGE  # the literal that goes on at this place
    only_stars = True
    place, end = 0, len(text)
    while place < end:
        character = text[place]
        place += 1
        if character not in "*?[":
            if character == "\\":
                if place == end:
                    raise PatternError("a backslash with nothing to escape", "write two of them")
                character = text[place]
                place += 1
            run += character
            fixed[-1] += re.escape(character)
            continue
        chunks.append(run)
        run = ""
        if character == "*":
            if fixed[-1] or len(fixed) == 1:
                fixed.append("")
            continue
        only_stars = False
        if character == "?":
            fixed[-1] += "."
        else:
            expression, place = _parse_class(text, place)
            fixed[-1] += expression
    if not chunks:
        return run[1:]
    chunks.append(run + EDGE)
    # Without the atomic groups, a hostile name could make a match take forever.
    middle = "".join(f"(?>.*?{part})" for part in fixed[1:-1])
    last = f".*{fixed[-1]}" if len(fixed) > 1 else ""
    kept = tuple(chunk for chunk in chunks if chunk not in ("", EDGE))
    return Glob(f"{fixed[0]}{middle}{last}", kept, only_stars=only_stars)


def _parse_class(text: str, begin: int) -> tuple[str, int]:
    """The class after a ``[``, as a regular expression, and where the text goes on."""
    negated = text[begin : begin + 1] in ("!", "^")
    place = first = begin + negated
    close = text.find("]", first + 1)
    if close < 0:
        raise PatternError("'[' is not closed", r"close it with ], or write \[ for the character")
    if text.find("[:", first, close - 1) >= 0 and text[close - 1] == ":":
        raise PatternError(
            "classes such as [:alpha:] are not known", "write the characters, as in [a-z]"
        )
    expression = "[^" if negated else "["
    while place < close:
        low = high = text[place]
        place += 1
        if text[place] == "-" and place + 1 < close:
            high = text[place + 1]
            place += 2
        if high < low:
            raise PatternError(
                f"the range {low}-{high} runs backwards", f"write {high}-{low}, or - as the last"
            )
        expression += re.escape(low) if low == high else f"{re.escape(low)}-{re.escape(high)}"
    return f"{expression}]", close + 1
