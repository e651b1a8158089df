"""A policy held against a tree: what its paths match there, and which files it tears in two."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from inopt.exceptions import UsageError
from inopt.ops import OpsMask
from inopt.policy.compiled import CompiledPolicy, Treatment
from inopt.policy.linting.context import title_of
from inopt.policy.linting.findings import Finding, in_order, level_of
from inopt.policy.paths.match import State
from inopt.policy.rules import CompiledRule, Rules
from inopt.policy.text.problems import Place

_MOST_TOLD: Final = 20  # findings of one kind about files: more would hide the others


def against(rules: Rules, tree: Path) -> list[Finding]:
    """What a policy does to a tree as it is now, by place. Raises `UsageError` for a bad *tree*.

    Symlinks are not followed, and other filesystems below are left out.
    """
    walk = _Walk(rules, tree)
    walk.run()
    return walk.findings()


class _Walk:
    """One walk through a tree."""

    def __init__(self, rules: Rules, tree: Path) -> None:
        self._rules = rules
        self._policy = CompiledPolicy(rules, reads_and_writes=True, kernel=OpsMask())
        self._root = os.fsencode(tree).rstrip(b"/")  # empty for the root of all
        self._unmatched = dict(enumerate(rules.by_path))
        # Of files with several names: the first one met, with what it means.
        self._names: dict[int, tuple[bytes, State, Treatment]] = {}
        self._torn: dict[int, tuple[bytes, CompiledRule | None]] = {}
        self._unreadable: list[tuple[bytes, str]] = []

    def run(self) -> None:
        """Look at every name once. Raises `UsageError`."""
        top = self._root or b"/"
        try:
            device = os.stat(top).st_dev
            with os.scandir(top):
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"'{os.fsdecode(top)}': {reason}: name a directory that can be read"
            ) from error
        pending = [(b"", self._policy.start)]
        while pending:
            path, state = pending.pop()
            try:
                found = _entries(self._root + path or b"/")
            except OSError as error:
                self._unreadable.append((path, error.strerror or str(error)))
                continue
            for name, attributes in found:
                if attributes.st_dev != device:
                    continue
                below = b"%s/%s" % (path, name)
                state_below = state.step(name)
                self._see(below, state_below, attributes)
                if stat.S_ISDIR(attributes.st_mode):
                    pending.append((below, state_below))

    def _see(self, path: bytes, state: State, attributes: os.stat_result) -> None:
        format_ = stat.S_IFMT(attributes.st_mode)
        is_directory = format_ == stat.S_IFDIR
        if self._unmatched:
            for place in state.matched_directory if is_directory else state.matched:
                rule = self._unmatched.get(place)
                if rule is not None and format_ in rule.types:
                    del self._unmatched[place]
        if format_ != stat.S_IFREG or attributes.st_nlink < 2:
            return
        treatment = self._policy.treatment(state, format_)
        first = self._names.setdefault(attributes.st_ino, (path, state, treatment))
        if first[2] is not treatment:
            self._torn.setdefault(attributes.st_ino, (path, self._difference(first[1], state)))

    def _difference(self, one: State, other: State) -> CompiledRule | None:
        """The first rule that is about one of two files alone."""
        found = [self._policy.rules_for(state, stat.S_IFREG) for state in (one, other)]
        rules = {rule.index: rule for rule in (*found[0], *found[1])}
        indices = [{rule.index for rule in each} for each in found]
        different = indices[0] ^ indices[1]
        return rules[min(different)] if different else None

    # --- what is told --------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What was found, by place."""
        every = (*self._about_paths(), *self._about_names(), *self._about_directories())
        return in_order(every, self._rules.loaded.files)

    def _about_paths(self) -> Iterator[Finding]:
        for rule in self._unmatched.values():
            top = os.fsdecode(self._root or b"/")
            yield self._finding(
                "INO211",
                rule,
                f"nothing in {top!r} is matched by this rule's path (and type)",
                "correct the path, or remove the rule",
            )

    def _about_names(self) -> Iterator[Finding]:
        for number, (inode, (path, rule)) in enumerate(self._torn.items()):
            if number == _MOST_TOLD:
                rest = len(self._torn) - number
                yield self._finding("INO212", None, f"and {rest} more files with such names", "")
                return
            first = self._names[inode][0]
            yield self._finding(
                "INO212",
                rule,
                f"{_shown(first)} and {_shown(path)} are one file, but treated "
                "differently: what holds depends on the names known so far",
                "copy the file to one of the names, or treat both alike",
            )

    def _about_directories(self) -> Iterator[Finding]:
        for number, (path, reason) in enumerate(self._unreadable):
            if number == _MOST_TOLD:
                rest = len(self._unreadable) - number
                yield self._finding("INO310", None, f"and {rest} more such directories", "")
                return
            told = f"{_shown(path)} was left out, with all beneath: {reason}"
            yield self._finding("INO310", None, told, "")

    def _finding(self, code: str, rule: CompiledRule | None, message: str, fix: str) -> Finding:
        place = self._rules.loaded.place("rules", key=True)
        if rule is not None:
            place = self._place(rule)
        name = title_of(self._rules, rule) if rule is not None else ""
        return Finding(code, level_of(code), place, name, message, fix)

    def _place(self, rule: CompiledRule) -> Place:
        if rule.patterns:
            return self._rules.loaded.place("rules", rule.index, "match", "path")
        return self._rules.loaded.place("rules", rule.index)


def _entries(directory: bytes) -> list[tuple[bytes, os.stat_result]]:
    found: list[tuple[bytes, os.stat_result]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # gone meanwhile
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def _shown(path: bytes) -> str:
    """A path as policies see it, with what is not printable escaped."""
    return repr(os.fsdecode(path) or "/")
