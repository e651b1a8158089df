"""Which rules come too late: all that they decide has been decided by earlier ones.

Only what can be proved counts. An earlier rule covers a path if one of its patterns matches
whatever a pattern of the later rule matches; rules with conditions, a caller or ``!`` patterns
cover nothing but, for the latter, rules with the same patterns.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Final, TypeAlias

from inopt.ops import Op
from inopt.policy.paths.globs import GlobIndex
from inopt.policy.paths.pattern import EDGE, Glob, Pattern, Segment, Wild, parse_pattern
from inopt.policy.rules import CompiledRule
from inopt.policy.words import Part

VISIBLE: Final = -1
"""Stands for a rule's ``visible`` where a slot is expected."""

_TYPES: Final = (
    stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK,
    stat.S_IFCHR,
)  # fmt: skip
_ALL_TYPES: Final = frozenset(_TYPES)
_FILES: Final = frozenset({stat.S_IFREG})
_DIRECTORIES: Final = frozenset({stat.S_IFDIR})
_SYMLINKS: Final = frozenset({stat.S_IFLNK})
_NO_DIRECTORIES: Final = _ALL_TYPES - _DIRECTORIES

TYPES_OF: Final[Mapping[int, frozenset[int]]] = MappingProxyType(
    dict[int, frozenset[int]]()
    | dict.fromkeys(
        (
            Op.OPEN, Op.READ, Op.WRITE, Op.FLUSH, Op.RELEASE, Op.FSYNC, Op.FALLOCATE, Op.LSEEK,
            Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64, Op.CREATE, Op.TMPFILE, Part.OVERWRITE,
            Part.MMAP, Part.TRUNCATE, Op.GETLK, Op.SETLK, Op.SETLKW, Part.FLOCK, Op.POLL,
        ),
        _FILES,
    )
    | dict.fromkeys(
        (
            Op.OPENDIR, Op.READDIR, Op.READDIRPLUS, Op.FSYNCDIR, Op.RELEASEDIR, Op.MKDIR,
            Op.RMDIR,
        ),
        _DIRECTORIES,
    )
    | dict.fromkeys((Op.READLINK, Op.SYMLINK), _SYMLINKS)
    | dict.fromkeys((Op.IOCTL, Part.CHATTR), _FILES | _DIRECTORIES)
    | dict.fromkeys((Op.LINK, Op.UNLINK), _NO_DIRECTORIES)
    | {Op.MKNOD: _NO_DIRECTORIES - _SYMLINKS}
)  # fmt: skip
"""The file types that have an operation, for those slots that not all of them have."""


def types_with(slot: int, types: frozenset[int]) -> frozenset[int]:
    """Those of *types* that have the operation of *slot*."""
    return types & TYPES_OF.get(slot, _ALL_TYPES)


_Key: TypeAlias = tuple[object, ...]
# By slot: a bit for each file type that is decided, and the first rule that decided some.
_Table: TypeAlias = dict[int, tuple[int, int]]

_EVERYTHING: Final[tuple[_Key, ...]] = ((Wild.MANY, Wild.ONE, False), (Wild.ONE, False))


class Coverage:
    """What the rules seen so far have decided for good; to be fed in the order of the rules."""

    def __init__(self, rules: Iterable[CompiledRule]) -> None:
        self._patterns: dict[str, Pattern] = {}
        self._everywhere: _Table = {}
        self._at: dict[_Key, _Table] = {}
        self._same: dict[tuple[str, ...], _Table] = {}
        globs: dict[str, Glob] = {}
        for rule in rules:
            for pattern in map(self._parsed, rule.patterns):
                last = pattern.segments[-1]
                if pattern.segments[:-1] == (Wild.MANY,) and isinstance(last, Glob):
                    globs[last.source] = last
        self._globs = GlobIndex((glob, glob.source) for glob in globs.values())

    def earlier(self, rule: CompiledRule) -> dict[int, int]:
        """The slots of *rule* that earlier rules have decided, each with one of these rules."""
        slots = [*rule.decisions, *([VISIBLE] if rule.visible is not None else [])]
        ways = list(self._ways(rule))
        found: dict[int, int] = {}
        for slot in slots:
            needed = _bits(types_with(slot, rule.types))
            decider = -1
            for tables in ways:
                bits = 0
                for table in tables:
                    more, index = table.get(slot, (0, -1))
                    if more & needed:
                        decider = index
                    bits |= more
                if needed & ~bits:
                    break
            else:
                if needed and ways:
                    found[slot] = decider
        return found

    def add(self, rule: CompiledRule) -> None:
        """Count what *rule* decides."""
        if rule.conditions or rule.caller is not None:
            return
        patterns = [self._parsed(pattern) for pattern in rule.patterns]
        if not patterns:
            tables = [self._everywhere]
        elif any(pattern.negated for pattern in patterns):
            tables = [self._same.setdefault(rule.patterns, {})]
        else:
            tables = [self._at.setdefault(_key(pattern), {}) for pattern in patterns]
        bits = _bits(rule.types)
        for slot in chain(rule.decisions, [VISIBLE] if rule.visible is not None else []):
            for table in tables:
                earlier, index = table.get(slot, (0, rule.index))
                table[slot] = (earlier | bits, index)

    def covers(self, one: CompiledRule, other: CompiledRule) -> bool:
        """Whether *one* matches every path that *other* matches."""
        if not one.patterns or one.patterns == other.patterns:
            return True
        if not other.patterns:
            return False
        patterns = [self._parsed(pattern) for pattern in one.patterns]
        if any(pattern.negated for pattern in patterns):
            return False
        keys = {_key(pattern) for pattern in patterns}
        return all(not keys.isdisjoint(self._keys(each)) for each in self._positive(other))

    def apart(self, one: CompiledRule, other: CompiledRule) -> bool:
        """Whether no path is matched by both, as far as that can be told from how they begin."""
        if not one.patterns or not other.patterns:
            return False
        return all(
            _begin_apart(each, another)
            for each in self._positive(one)
            for another in self._positive(other)
        )

    def _parsed(self, text: str) -> Pattern:
        pattern = self._patterns.get(text)
        if pattern is None:
            pattern = self._patterns[text] = parse_pattern(text)
        return pattern

    def _positive(self, rule: CompiledRule) -> list[Pattern]:
        parsed = (self._parsed(pattern) for pattern in rule.patterns)
        return [pattern for pattern in parsed if not pattern.negated]

    def _ways(self, rule: CompiledRule) -> Iterator[list[_Table]]:
        """For each way in which a path can match *rule*: where earlier decisions about it are."""
        if not rule.patterns:
            yield [self._everywhere]
            return
        same = self._same.get(rule.patterns)
        always = [self._everywhere, same] if same is not None else [self._everywhere]
        for pattern in self._positive(rule):
            yield always + [self._at[key] for key in self._keys(pattern) if key in self._at]

    def _keys(self, pattern: Pattern) -> Iterator[_Key]:
        """The keys of patterns that match all that *pattern* matches."""
        yield from _EVERYTHING
        parts = _parts(pattern.segments)
        last = len(parts) - 1
        for place, part in enumerate(parts):
            # What matches on the way is a directory, and covers all beneath.
            for only_directory in (False, True):
                if only_directory and place == last and not pattern.only_directory:
                    continue
                yield (*parts[: place + 1], only_directory)
                if place or part is not Wild.MANY:
                    yield (Wild.MANY, part, only_directory)
                if isinstance(part, str):
                    found: list[str] = []
                    self._globs.find(part, found)
                    for source in found:
                        yield (Wild.MANY, (source,), only_directory)


def is_only_negated(rule: CompiledRule) -> bool:
    """Whether the rule has patterns, and none that matches anything."""
    return bool(rule.patterns) and all(parse_pattern(text).negated for text in rule.patterns)


def _begin_apart(one: Pattern, other: Pattern) -> bool:
    for each, another in zip(one.segments, other.segments, strict=False):
        if isinstance(each, str) and isinstance(another, str):
            if each != another:
                return True
        elif isinstance(each, str) and isinstance(another, Glob):
            if not another.matches(f"{EDGE}{each}{EDGE}"):
                return True
        elif isinstance(each, Glob) and isinstance(another, str):
            if not each.matches(f"{EDGE}{another}{EDGE}"):
                return True
        elif Wild.MANY in (each, another):
            return False
    return False


def _parts(segments: tuple[Segment, ...]) -> tuple[object, ...]:
    return tuple((part.source,) if isinstance(part, Glob) else part for part in segments)


def _key(pattern: Pattern) -> _Key:
    return (*_parts(pattern.segments), pattern.only_directory)


def _bits(types: frozenset[int]) -> int:
    return sum(1 << _TYPES.index(each) for each in types)
