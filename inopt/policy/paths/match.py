"""Which of many lists of patterns match a path, one name at a time.

A `State` is all that a path means to the patterns: what matches it, and what may match beneath it.
`State.step` leads to the state of a name in it. Equal states are one object, so paths that the
patterns treat alike share it, and what a caller keeps in ``cache`` is shared as well. A state
lives as long as anybody has it; the newest are kept for a while.

The cost of a step depends on the patterns that may still match there, not on all there are, and
least where the name matches none: then the next state is known.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Collection, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from inopt.policy.paths.pattern import PatternError as PatternError
from inopt.policy.paths.trie import Node, Trie

_ENCODING: Final = sys.getfilesystemencoding()
_KEPT: Final = 1024  # states that stay although nobody has them: those of busy names

# Live nodes; rungs that were reached; the lists that match if this is not a directory, where they
# differ from those that match if it is one, else None.
_Key: TypeAlias = tuple[frozenset[Node], frozenset[int], tuple[int, ...] | None]

# Live nodes; rungs that were reached, if this is not a directory, and if it is one.
_Reached: TypeAlias = tuple[frozenset[Node], frozenset[int], frozenset[int]]


class _Inside(NamedTuple):
    """What is the same for every name in a directory.

    ``searched``: the live nodes that look at names. ``plain``: the state of a name that none of
    them knows, None if it is the directory's own. The others say what such a name has reached.
    """

    searched: tuple[Node, ...]
    plain: State | None
    live: frozenset[Node]
    reached: frozenset[int]
    reached_directory: frozenset[int]


class State:
    """What a path means to the patterns. Thread-safe; equal only to itself.

    ``matched``: sorted indices of the lists that match the path if it is not a directory,
    ``matched_directory``: if it is one. ``watched_below``: whether a watched list may match
    something beneath. ``cache`` belongs to the caller.
    """

    __slots__ = (
        "__weakref__",
        "_inside",
        "_live",
        "_reached",
        "cache",
        "matched",
        "matched_directory",
        "matcher",
        "watched_below",
    )

    def __init__(self, matcher: Matcher, key: _Key) -> None:
        live, reached, matched = key
        self.matcher = matcher
        self.matched_directory = matcher.trie.verdict(reached)
        self.matched = self.matched_directory if matched is None else matched
        self.watched_below = matcher.trie.is_watched_below(live, reached)
        self.cache: Any = None
        self._live = live
        self._reached = reached
        self._inside: _Inside | None = None  # most states are of files

    def step(self, name: bytes) -> State:
        """The state of a name in this directory."""
        text = name.decode(_ENCODING, "surrogateescape")
        inside = self._inside
        if inside is None:
            # Threads that race here find the same.
            inside = self._inside = self._look_inside()
        found: list[Node] = []
        for node in inside.searched:
            literals = node.literals
            if literals is not None:
                child = literals.get(text)
                if child is not None:
                    found.append(child)
            globs = node.globs
            if globs is not None:
                globs.find(text, found)
        if not found:
            return inside.plain or self
        return self.matcher.state(*_reach(self.matcher.trie, inside[2:], found))

    def _look_inside(self) -> _Inside:
        live = self._live
        staying = frozenset(node for node in live if node.stays)
        every = [node.one for node in live if node.one is not None]
        base = _reach(self.matcher.trie, (staying, self._reached, self._reached), every)
        plain = self.matcher.state(*base)
        searched = [node for node in live if node.literals is not None or node.globs is not None]
        return _Inside(tuple(searched), None if plain is self else plain, *base)


def _reach(trie: Trie, base: _Reached, nodes: list[Node]) -> _Reached:
    """What a path has reached that has reached *base* and *nodes*."""
    live, reached, reached_directory = base
    reached_same = reached is reached_directory
    for node in nodes:
        if node.entered:
            live = live.union(node.entered)
        if node.accepts:
            reached = trie.merged(reached, node.accepts)
            reached_directory = (
                reached if reached_same else trie.merged(reached_directory, node.accepts)
            )
        if node.accepts_directory:
            reached_directory = trie.merged(reached_directory, node.accepts_directory)
            reached_same = reached is reached_directory
    return live, reached, reached_directory


class Matcher:
    """Many lists of patterns, compiled. Thread-safe.

    A list matches a path if the last of its patterns that matches it is not negated. ``start`` is
    the state of the root, which no pattern matches. *watched* are the lists that
    `State.watched_below` is about. Raises `PatternError`, with the indices of the pattern.
    """

    __slots__ = ("_lock", "_newest", "_states", "start", "trie")

    def __init__(self, lists: Sequence[Sequence[str]], watched: Collection[int] = ()) -> None:
        self.trie = Trie(lists, watched)
        self._lock = Lock()
        self._states: WeakValueDictionary[_Key, State] = WeakValueDictionary()
        self._newest: deque[State] = deque(maxlen=_KEPT)
        self.start = self.state(frozenset(self.trie.root.entered), frozenset(), frozenset())

    def state(
        self, live: frozenset[Node], reached: frozenset[int], reached_directory: frozenset[int]
    ) -> State:
        """The one state of a path that has reached this; for `State.step`."""
        trie = self.trie
        matched: tuple[int, ...] | None = None
        if reached is not reached_directory and reached != reached_directory:
            matched = trie.verdict(reached)
            if matched == trie.verdict(reached_directory):
                matched = None
        if reached_directory:
            # What cannot change any verdict beneath must not tell states apart.
            idle = [node for node in live if trie.is_idle(node, reached_directory)]
            if idle:
                live = live.difference(idle)
            if trie.guarded:
                reached_directory = trie.without_idle_rungs(reached_directory, live)
        key = (live, reached_directory, matched)
        state = self._states.get(key)
        if state is None:
            fresh = State(self, key)
            with self._lock:
                state = self._states.get(key)
                if state is None:
                    state = self._states[key] = fresh
            self._newest.append(state)
        return state

    def __len__(self) -> int:
        """How many states there are at the moment."""
        return len(self._states)


def matches(matcher: Matcher, path: str) -> tuple[int, ...]:
    """The lists that match a whole path, which is not a directory. Leading slashes are ignored."""
    state = matcher.start
    for name in path.split("/"):
        if name:
            state = state.step(os.fsencode(name))
    return state.matched
