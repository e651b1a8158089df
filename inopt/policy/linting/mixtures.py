"""Errors: what cannot be bypassed because something else of the same file is not."""

from __future__ import annotations

import stat
from collections.abc import Hashable
from typing import Final

from inopt.ops import Op
from inopt.policy.linting.asking import named
from inopt.policy.linting.context import LintContext, LintedRule, Word
from inopt.policy.rules import Kind
from inopt.policy.words import Part, slot_name

_DATA: Final = (Op.READ, Op.WRITE)
_SETATTR: Final = frozenset[int]({Part.CHMOD, Part.CHOWN, Part.TRUNCATE, Part.UTIMENS})
_BYPASSED_DATA: Final = frozenset[int]({Op.READ, Op.WRITE, Part.MMAP, Part.OVERWRITE})


def _read_and_write(context: LintContext) -> None:
    """One of them handled, the other bypassed: by the same rule, or by rules for the same files."""
    handling: dict[tuple[Hashable, int], LintedRule] = {}
    bypassing: dict[tuple[Hashable, int], LintedRule] = {}
    for rule in context.linted:
        files = (rule.compiled.patterns, rule.compiled.types, rule.index)
        if rule.is_unconditional:
            files = (rule.compiled.patterns, rule.compiled.types, -1)
        for slot, other in (_DATA, _DATA[::-1]):
            if rule.kind(slot) is Kind.HANDLE:
                handling[files, slot] = rule
                bypassed = bypassing.get((files, other))
                if bypassed is not None and bypassed is not rule:
                    _mixed(context, bypassed, other)
                elif rule.kind(other) is None or _is_only_in_all(rule, other):
                    _implied(context, rule, slot, other)
            elif rule.kind(slot) is Kind.BYPASS and not _is_only_in_all(rule, slot):
                bypassing[files, slot] = rule
                if (files, other) in handling or rule.kind(other) is Kind.HANDLE:
                    _mixed(context, rule, slot)


def _is_only_in_all(rule: LintedRule, slot: int) -> bool:
    """Whether *slot* is bypassed in passing: 'all' is a way to say 'otherwise'."""
    return rule.kind(slot) is Kind.BYPASS and _bypassing_word(rule, slot) is None


def _bypassing_word(rule: LintedRule, slot: int) -> Word | None:
    words = (each for each in rule.words if each.field == "bypass" and each.text != "all")
    return next((word for word in words if slot in rule.effect(word)), None)


def _mixed(context: LintContext, rule: LintedRule, slot: int) -> None:
    word = _bypassing_word(rule, slot)
    if word is None:
        return
    other = "write" if slot == Op.READ else "read"
    context.add_at(
        "INO106",
        rule,
        word,
        f"'{slot_name(slot)}' bypassed and '{other}' handled for the same files: an open file "
        "bypasses with both or with none",
        f"handle '{word.text}' too, or leave it out: then the daemon serves it",
    )


def _implied(context: LintContext, rule: LintedRule, slot: int, other: int) -> None:
    if context.rules.default(other).kind is not Kind.BYPASS:
        return
    word = next(each for each in rule.words if each.field == "handle" and slot in rule.effect(each))
    context.add_at(
        "INO305",
        rule,
        word,
        f"'{slot_name(slot)}' is handled, so '{slot_name(other)}' of these files does not bypass, "
        "either: the daemon serves it",
        "",
    )


def _parts_of_setattr(context: LintContext) -> None:
    for rule, word in context.words("bypass"):
        if word.is_group or not rule.effect(word) & _SETATTR:
            continue
        others = frozenset(slot for slot in _SETATTR if rule.kind(slot) in (Kind.HANDLE, Kind.DENY))
        if not others:
            continue
        parts = named(rule.effect(word) & _SETATTR)
        told = f"{parts} bypassed, but not {named(others)}: all of them are one request, SETATTR"
        if context.policy.require == "inode":
            fix = f"leave '{word.text}' out of 'bypass', or require: rw"
            context.add_at("INO107", rule, word, f"{told}, which the kernel serves or not", fix)
        else:
            context.add_at("INO306", rule, word, f"{told}, so the daemon serves it", "")


def _overwrite_and_mmap(context: LintContext) -> None:
    for rule, word in context.words("bypass"):
        slots = rule.effect(word) & _BYPASSED_DATA
        if word.text == "all" or not slots or stat.S_IFREG not in rule.compiled.types:
            continue
        denied: set[int] = set()
        if rule.kind(Part.MMAP) is Kind.DENY:
            denied.add(Part.MMAP)
        if rule.kind(Part.OVERWRITE) is Kind.DENY and rule.kind(Op.WRITE) is not Kind.DENY:
            denied.add(Part.OVERWRITE)
        if not denied:
            continue
        context.add_at(
            "INO108",
            rule,
            word,
            f"{named(slots)} bypassed and {named(frozenset(denied))} denied: the kernel would "
            "write and map without asking",
            f"leave '{word.text}' out of 'bypass' (or write 'all'): then the daemon serves it",
        )


CHECKS: Final = (_read_and_write, _parts_of_setattr, _overwrite_and_mmap)
