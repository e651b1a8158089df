"""Errors: words that nobody can make true, the kernel, the daemon, or the handler class."""

from __future__ import annotations

import errno
from typing import Final

from inopt.ops import Op
from inopt.policy.linting.asking import named
from inopt.policy.linting.context import LintContext, LintedRule, Word
from inopt.policy.rules import Kind
from inopt.policy.words import (
    KERNELS_UNLESS_HANDLED,
    NEVER_DENIED,
    NEVER_HANDLED,
    SETATTR_PARTS,
    WORDS,
    Part,
)

# Words for one of several opcodes with the same effect, and the words for all of them.
_HALVES: Final = {
    "copy_file_range_64": "copy_file_range",
    "readdirplus": "readdir",
    "rename2": "rename",
    "setlkw": "setlk",
    "statx": "getattr",
}
# What a word for several opcodes is mostly about: a class that lacks it does not do what it says.
_HEART: Final = {"read": Op.READ, "write": Op.WRITE, "setattr": Op.SETATTR}


def _undecidable(context: LintContext) -> None:
    tables = (("deny", "INO109", NEVER_DENIED), ("handle", "INO110", NEVER_HANDLED))
    for field, code, never in tables:
        for rule, word in context.words(field):
            slots = word.slots & never.keys()
            if slots and not word.is_group:
                reason = never[min(slots)]
                done = "denied" if field == "deny" else "handled"
                context.add_at(
                    code,
                    rule,
                    word,
                    f"'{word.text}' cannot be {done}: {reason}",
                    f"remove '{word.text}'",
                )


def _handler_class(context: LintContext) -> None:
    if context.handled_by is None:
        _no_class(context)
        return
    for rule, word in context.words("handle"):
        wanted = {_opcode(slot) for slot in word.slots - NEVER_HANDLED.keys()}
        kernels = wanted <= KERNELS_UNLESS_HANDLED
        if not kernels:
            wanted -= KERNELS_UNLESS_HANDLED  # of which hardly anybody thinks who says "all"
        missing = frozenset(wanted - context.handled_by)
        if not missing:
            continue
        heart = _HEART.get(word.text)
        told = f"{named(missing)} of '{word.text}'" if len(wanted) > 1 else f"'{word.text}'"
        parts = word.is_group or heart is not None
        if not parts or missing == wanted or heart in missing:
            context.add_at(
                "INO112",
                rule,
                word,
                f"the handler class does not serve {told}",
                "remove the word, or override the method in the class, too",
            )
        else:
            context.add_at(
                "INO309",
                rule,
                word,
                f"the handler class does not serve {told}: "
                f"the {'kernel' if kernels else 'daemon'} does",
                "",
            )
    if context.policy.otherwise == "handle" and not context.handled_by & {
        _opcode(slot) for slot in WORDS["all"] - NEVER_HANDLED.keys()
    }:
        context.add(
            "INO112",
            context.rules.loaded.place("otherwise"),
            "",
            "the handler class serves nothing that a policy decides",
            "write another class into 'handlers', or otherwise: bypass",
        )


def _never_routed(context: LintContext) -> None:
    if context.policy.otherwise == "handle":
        return
    routed = {
        _opcode(slot)
        for rule in context.linted
        for slot, decision in rule.live.items()
        if decision.kind is Kind.HANDLE
    }
    for name, opcodes in context.methods.items():
        if not opcodes & routed:
            context.add(
                "INO213",
                context.rules.loaded.place("handlers"),
                "",
                f"the handler class overrides '{name}', but no rule hands it anything",
                "handle the operation, remove the method, or set for_any_policy = True",
            )


def _no_class(context: LintContext) -> None:
    fix = "add handlers: package.module:Class, or remove it"
    if context.policy.otherwise == "handle":
        place = context.rules.loaded.place("otherwise")
        context.add("INO111", place, "", "'otherwise: handle', but no handler class", fix)
    seen: set[int] = set()
    for rule, word in context.words("handle"):
        if rule.index not in seen:
            seen.add(rule.index)
            told = f"'{word.text}' is handled, but there is no handler class"
            context.add_at("INO111", rule, word, told, fix)


def _opcode(slot: int) -> int:
    """What a method serves that comes with a slot: an opcode, or flock(2)."""
    if slot == Part.CHATTR:
        return Op.IOCTL
    if slot == Part.FLOCK:
        return slot
    return Op.SETATTR if slot in SETATTR_PARTS else Op(slot)


def _errno_of_mmap(context: LintContext) -> None:
    for rule, word in context.words("deny"):
        deny = rule.source.deny
        name = deny.get(word.text) if isinstance(deny, dict) else None
        if word.text == "mmap" and name not in (None, errno.errorcode[errno.ENODEV]):
            context.add_at(
                "INO113",
                rule,
                word,
                f"'mmap' denied with {name}: the kernel answers ENODEV, whatever the policy says",
                "write mmap: ENODEV",
            )


def _halves(context: LintContext) -> None:
    for rule, word in context.words("deny", "handle"):
        whole = _HALVES.get(word.text)
        if whole is None or not rule.effect(word):
            continue
        left = WORDS[whole] - word.slots
        if all(_is_as_strict(rule, slot, word) for slot in left):
            continue
        done = "denied" if word.field == "deny" else "handled"
        context.add_at(
            "INO114",
            rule,
            word,
            f"'{word.text}' is {done}, but {named(left)} does the same and is not",
            f"write '{whole}', which is both",
        )


def _is_as_strict(rule: LintedRule, slot: int, word: Word) -> bool:
    kind = rule.kind(slot)
    return kind is Kind.DENY or kind is word.kind or slot in rule.taken


CHECKS: Final = (_undecidable, _handler_class, _never_routed, _errno_of_mmap, _halves)
