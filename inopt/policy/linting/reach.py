"""Warnings: what no request ever comes to, because of other rules."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from inopt.ops import Op
from inopt.policy.linting.context import LintContext, LintedRule
from inopt.policy.linting.coverage import VISIBLE, is_only_negated
from inopt.policy.paths.match import State
from inopt.policy.paths.pattern import parse_pattern
from inopt.policy.rules import Decision, Kind
from inopt.policy.words import NEVER_DENIED, NEVER_HANDLED

_NEEDED: Final = (Op.LOOKUP, Op.GETATTR)  # to get anywhere, and past a permission check


def _never_reached(context: LintContext) -> None:
    for rule in context.linted:
        compiled = rule.compiled
        if is_only_negated(compiled):
            context.add(
                "INO201",
                context.place(rule, "match", "path", 0),
                rule.title,
                "never reached: patterns with '!' only take away, and no other stands before them",
                "write first what the rule is about, such as '**'",
            )
            continue
        slots = rule.slots
        if slots and all(slot in rule.taken for slot in slots):
            context.add(
                "INO201",
                context.place(rule),
                rule.title,
                f"never reached: {_deciders(context, rule, slots)} already decides all of it",
                "remove the rule, or move it up",
            )
            continue
        _dead_words(context, rule)
        if compiled.visible is not None and VISIBLE in rule.taken:
            context.add(
                "INO201",
                context.place(rule, "visible", key=True),
                rule.title,
                f"'visible' is never reached: {_deciders(context, rule, [VISIBLE])} decides it",
                "remove it, or move the rule up",
            )


def _dead_words(context: LintContext, rule: LintedRule) -> None:
    compiled = rule.compiled
    for word in rule.words:
        never = {Kind.DENY: NEVER_DENIED, Kind.HANDLE: NEVER_HANDLED}.get(word.kind, {})
        slots = word.slots - never.keys()
        own = [slot for slot in rule.slots if slot in slots]
        own = [slot for slot in own if compiled.decisions[slot].kind is word.kind]
        overruled = all(compiled.decisions[slot].kind is not word.kind for slot in slots)
        if not slots or (not own and not overruled) or any(slot not in rule.taken for slot in own):
            continue
        decider = "the rule itself, more strictly," if not own else _deciders(context, rule, own)
        context.add_at(
            "INO201",
            rule,
            word,
            f"'{word.text}' is never reached: {decider} already decides it",
            "remove the word" if not own else "remove the word, or move the rule up",
        )


def _deciders(context: LintContext, rule: LintedRule, slots: list[int]) -> str:
    found = sorted({rule.taken[slot] for slot in slots})
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{context.title(found[0])}{more}"


# --- otherwise: deny ---------------------------------------------------------------------------


def _no_way_to(context: LintContext) -> None:
    if context.rules.otherwise.kind is not Kind.DENY:
        return
    granting = [
        rule
        for rule in context.linted
        if any(each.kind is not Kind.DENY for each in rule.live.values())
    ]
    if not granting:
        return
    start = context.rules.matcher.start
    place = context.rules.loaded.place("otherwise")
    fix = "add a last rule without a path: bypass: [lookup, getattr]"
    if _is_denied(context, start, stat.S_IFDIR, Op.GETATTR):
        context.add(
            "INO204",
            place,
            "",
            "'getattr' of the root is denied, and no path matches the root: nobody gets into the "
            "mount",
            fix,
        )
        return
    if all(_never_granted(rule, Op.LOOKUP) for rule in granting):
        context.add("INO204", place, "", "no rule lets anybody look a name up", fix)
        return
    for rule in granting:
        _way_to(context, rule)


def _way_to(context: LintContext, rule: LintedRule) -> None:
    for number, text in enumerate(rule.compiled.patterns):
        for names, is_end in _literal_ways(text):
            types = rule.compiled.types if is_end else frozenset({stat.S_IFDIR})
            state = _state(context, names)
            barred = next(
                (
                    slot
                    for slot in _NEEDED
                    if all(_is_denied(context, state, each, slot) for each in types)
                ),
                None,
            )
            if barred is None:
                continue
            context.add(
                "INO204",
                context.place(rule, "match", "path", number),
                rule.title,
                f"nobody gets there: '{barred.name.lower()}' of /{'/'.join(names)} is denied",
                "add a last rule for these names: bypass: [lookup, getattr]",
            )
            return


def _literal_ways(text: str) -> Iterator[tuple[list[str], bool]]:
    """The paths on the way to what a pattern matches, as far as they are written out.

    With each, whether it is what is matched.
    """
    pattern = parse_pattern(text)
    if pattern.negated:
        return
    names: list[str] = []
    for segment in pattern.segments:
        if not isinstance(segment, str):
            return
        names = [*names, segment]
        yield names, len(names) == len(pattern.segments)


def _state(context: LintContext, names: list[str]) -> State:
    state = context.rules.matcher.start
    for name in names:
        state = state.step(os.fsencode(name))
    return state


def _is_denied(context: LintContext, state: State, format_: int, slot: int) -> bool:
    """Whether *slot* is denied there, whoever asks and whatever the facts are."""
    rules = context.rules
    places = state.matched_directory if format_ == stat.S_IFDIR else state.matched
    found = [rules.by_path[place] for place in places] + rules.everywhere
    for rule in sorted(found, key=lambda each: each.index):
        decision: Decision | None = rule.decisions.get(slot)
        if decision is None or format_ not in rule.types:
            continue
        if decision.kind is not Kind.DENY:
            return False
        if not rule.conditions and rule.caller is None:
            return True
    return rules.default(slot).kind is Kind.DENY


def _never_granted(rule: LintedRule, slot: int) -> bool:
    return rule.kind(slot) in (None, Kind.DENY)


CHECKS: Final = (_never_reached, _no_way_to)
