"""The segments of all patterns in one tree, so that a walk down a path meets each of them once.

A node stands for the segments that lead to it. Every list of patterns has one or more *rungs*: its
first rung is for its positive patterns up to the first negated one, the next for the negated ones
that follow, and so on, so that positive and negated rungs alternate. The highest rung that a path
has reached decides. Negated patterns before the first positive one decide nothing, and have none.

All is built at once and never changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from inopt.policy.paths.globs import GlobIndex
from inopt.policy.paths.pattern import Glob, Pattern, PatternError, Segment, Wild, parse_pattern

_FEW: Final = 8  # lists: a node that leads to more is not worth asking whether it still matters


class Node:
    """Where the segments of some patterns have led.

    ``literals``, ``globs``, ``one`` and ``many`` are the ways on. ``stays``: it follows a ``**``,
    and so is reached by every name from itself. ``entered``: what a path that reaches it has
    reached. ``accepts``: rungs that are reached here, and ``accepts_directory`` if here is a
    directory. ``leads_to``: the highest rung of each list that may be reached beneath, None if
    there are many. ``leads_to_watched``: the same, of positive rungs of watched lists.
    """

    __slots__ = (
        "accepts",
        "accepts_directory",
        "entered",
        "globs",
        "leads_to",
        "leads_to_watched",
        "literals",
        "many",
        "one",
        "stays",
    )

    def __init__(self, *, stays: bool = False) -> None:
        self.stays = stays
        self.accepts: tuple[int, ...] = ()
        self.accepts_directory: tuple[int, ...] = ()
        self.literals: dict[str, Node] | None = None
        self.globs: GlobIndex[Node] | None = None
        self.one: Node | None = None
        self.many: Node | None = None
        self.entered: tuple[Node, ...] = ()
        self.leads_to: tuple[int, ...] | None = ()
        self.leads_to_watched: tuple[int, ...] = ()


class Trie:
    """The nodes of many lists of patterns, and their rungs.

    ``list_of``: the list of each rung. ``rungs_from``: each rung and those above it in its list.
    ``positive``: whether a rung is for positive patterns. ``guarded``: for each list with negated
    rungs, the nodes on the way to its positive rungs, with the lowest such rung of each.
    """

    __slots__ = (
        "_globs",
        "_nodes",
        "guarded",
        "list_of",
        "positive",
        "root",
        "rungs_from",
        "watched",
    )

    def __init__(self, lists: Sequence[Sequence[str]], watched: Collection[int]) -> None:
        """Raises `PatternError`, with the indices of the pattern."""
        self.list_of: list[int] = []
        self.positive: list[bool] = []
        self.rungs_from: list[range] = []
        self.guarded: dict[int, dict[Node, int]] = {}
        self.root = Node()
        # A parent stands before its children.
        self._nodes: list[Node] = [self.root]
        self._globs: dict[Node, dict[str, tuple[Glob, Node]]] = {}
        for index, patterns in enumerate(lists):
            self._add_list(index, patterns)
        self.watched = frozenset(watched)
        for node in reversed(self._nodes):
            self._finish(node)
        self._nodes.clear()
        self._globs.clear()

    def _add_list(self, index: int, patterns: Sequence[str]) -> None:
        first = len(self.list_of)
        guarded: dict[Node, int] = {}
        for pattern_index, text in enumerate(patterns):
            try:
                pattern = parse_pattern(text)
            except PatternError as error:
                error.list_index, error.pattern_index = index, pattern_index
                raise
            rung = len(self.list_of) - 1
            if rung < first:
                if pattern.negated:
                    continue
                rung = self._add_rung(index, positive=True)
            elif self.positive[rung] == pattern.negated:
                rung = self._add_rung(index, positive=not pattern.negated)
            way = self._add_pattern(pattern, rung)
            if not pattern.negated:
                for node in way:
                    guarded.setdefault(node, rung)
        stop = len(self.list_of)
        self.rungs_from.extend(range(each, stop) for each in range(first, stop))
        if stop - first > 1:
            self.guarded[index] = guarded

    def _add_rung(self, index: int, *, positive: bool) -> int:
        self.list_of.append(index)
        self.positive.append(positive)
        return len(self.list_of) - 1

    def _add_pattern(self, pattern: Pattern, rung: int) -> list[Node]:
        """Returns the nodes on the way to the one that accepts."""
        way: list[Node] = []
        node = self.root
        for segment in pattern.segments:
            way.append(node)
            node = self._child(node, segment)
        if pattern.only_directory:
            if node.accepts_directory[-1:] != (rung,):
                node.accepts_directory += (rung,)
        elif node.accepts[-1:] != (rung,):
            node.accepts += (rung,)
        return way

    def _child(self, node: Node, segment: Segment) -> Node:
        if isinstance(segment, str):
            if node.literals is None:
                node.literals = {}
            child = node.literals.get(segment)
            if child is None:
                child = node.literals[segment] = self._new()
        elif isinstance(segment, Glob):
            globs = self._globs.setdefault(node, {})
            if segment.source not in globs:
                globs[segment.source] = (segment, self._new())
            child = globs[segment.source][1]
        elif segment is Wild.ONE:
            child = node.one = node.one or self._new()
        else:
            child = node.many = node.many or self._new(stays=True)
        return child

    def _new(self, *, stays: bool = False) -> Node:
        node = Node(stays=stays)
        self._nodes.append(node)
        return node

    def _finish(self, node: Node) -> None:
        """Fill in what follows from the children, which are finished."""
        globs = self._globs.get(node)
        if globs is not None:
            node.globs = GlobIndex(globs.values())
        ways_on = node.literals or globs or node.one is not None
        node.entered = (node,) if ways_on else ()
        if node.many is not None:
            node.entered += node.many.entered
        leads_to: dict[int, int] | None = {}
        leads_to_watched: dict[int, int] = {}
        for child in self._children(node):
            accepted = child.accepts + child.accepts_directory
            if leads_to is not None and child.leads_to is not None:
                self._highest(leads_to, accepted + child.leads_to)
            else:
                leads_to = None
            if leads_to is not None and len(leads_to) > _FEW:
                leads_to = None
            if self.watched:
                seen = [rung for rung in accepted if self._is_watched(rung)]
                self._highest(leads_to_watched, (*seen, *child.leads_to_watched))
        node.leads_to = None if leads_to is None else tuple(leads_to.values())
        node.leads_to_watched = tuple(leads_to_watched.values())

    def _children(self, node: Node) -> Iterator[Node]:
        if node.literals is not None:
            yield from node.literals.values()
        if node in self._globs:
            yield from (child for _, child in self._globs[node].values())
        if node.one is not None:
            yield node.one
        if node.many is not None:
            yield node.many

    def _highest(self, highest: dict[int, int], rungs: Sequence[int]) -> None:
        for rung in rungs:
            index = self.list_of[rung]
            if rung > highest.get(index, -1):
                highest[index] = rung

    def merged(self, rungs: frozenset[int], more: Sequence[int]) -> frozenset[int]:
        """The highest rung of each list, of those in *rungs* and *more*."""
        if rungs.issuperset(more):
            return rungs
        both = rungs.union(more)
        if not self.guarded:
            return both
        highest: dict[int, int] = {}
        self._highest(highest, tuple(both))
        return frozenset(highest.values())

    def verdict(self, rungs: frozenset[int]) -> tuple[int, ...]:
        """The lists that are matched where *rungs* are reached, sorted."""
        return tuple(sorted(self.list_of[rung] for rung in rungs if self.positive[rung]))

    def is_watched_below(self, live: frozenset[Node], rungs: frozenset[int]) -> bool:
        """Whether a watched list may match beneath, where *live* and *rungs* are reached."""
        if not self.watched:
            return False
        return any(self._is_watched(rung) for rung in rungs) or any(
            not self._is_settled(rung, rungs) for node in live for rung in node.leads_to_watched
        )

    def is_idle(self, node: Node, rungs: frozenset[int]) -> bool:
        """Whether all that *node* leads to is overruled where *rungs* are reached already."""
        leads_to = node.leads_to
        return leads_to is not None and all(self._is_settled(rung, rungs) for rung in leads_to)

    def without_idle_rungs(self, rungs: frozenset[int], live: frozenset[Node]) -> frozenset[int]:
        """*rungs* without the negated ones that have nothing left to overrule beneath."""
        idle = [
            rung for rung in rungs if not self.positive[rung] and not self._overrules(rung, live)
        ]
        return rungs.difference(idle) if idle else rungs

    def _overrules(self, rung: int, live: frozenset[Node]) -> bool:
        guarded = self.guarded[self.list_of[rung]]
        return any(guarded.get(node, rung) < rung for node in live)

    def _is_watched(self, rung: int) -> bool:
        return self.positive[rung] and self.list_of[rung] in self.watched

    def _is_settled(self, rung: int, rungs: frozenset[int]) -> bool:
        return not rungs.isdisjoint(self.rungs_from[rung])
