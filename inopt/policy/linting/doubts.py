"""Warnings: rules that can be kept, but hardly say what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from inopt.ops import Op
from inopt.policy.facts import TYPES, SizeCondition
from inopt.policy.linting.context import LintContext
from inopt.policy.linting.coverage import types_with
from inopt.policy.model import listed
from inopt.policy.rules import Kind
from inopt.policy.words import NEVER_DENIED, NEVER_HANDLED, Part

_LOOKING: Final = frozenset({"lookup", "getattr", "statx", "metadata"})
_TYPE_NAMES: Final = {number: name for name, number in TYPES.items()}
_DATA: Final = (Op.READ, Op.WRITE)
# The sets of slots of which the kernel serves something by itself, if all are bypassed.
_INODE_TIER: Final[tuple[frozenset[int], ...]] = (
    frozenset({Op.GETATTR, Op.STATX}),
    frozenset({Part.CHMOD, Part.CHOWN, Part.TRUNCATE, Part.UTIMENS}),
    frozenset({Op.READDIR, Op.OPENDIR}),
    frozenset({Op.OPEN, *_DATA, Part.OVERWRITE, Part.MMAP, Part.TRUNCATE}),
)


def _decides_nothing(context: LintContext) -> None:
    for rule in context.linted:
        if not rule.words and rule.compiled.visible is None and rule.compiled.layer is None:
            context.add(
                "INO202",
                context.place(rule),
                rule.title,
                f"{context.title(rule.index)} decides nothing",
                "add bypass, handle, deny, visible or layer, or remove it",
            )
        for word in rule.words:
            never = {Kind.DENY: NEVER_DENIED, Kind.HANDLE: NEVER_HANDLED}.get(word.kind, {})
            if word.is_group and word.slots <= never.keys():
                context.add_at(
                    "INO202",
                    rule,
                    word,
                    f"'{word.text}' decides nothing here: {never[min(word.slots)]}",
                    "remove the word",
                )


def _unusable(context: LintContext) -> None:
    for rule, word in context.words("deny"):
        slots = rule.effect(word) & {Op.LOOKUP, Op.GETATTR, Op.STATX}
        if word.text not in _LOOKING or not slots:
            continue
        fix = "use visible: false to hide files, or deny 'open'"
        if word.text == "metadata":
            fix = "deny 'setattr' to keep attributes as they are"
        context.add_at(
            "INO203",
            rule,
            word,
            f"'{word.text}' denied: the kernel needs to look before it allows anything, so "
            "nothing else can be done with these files",
            fix,
        )


def _same_names(context: LintContext) -> None:
    seen: dict[str, str] = {}
    for rule in context.linted:
        name = rule.compiled.name
        place = context.place(rule, "name")
        if name and name in seen:
            context.add(
                "INO205",
                place,
                name,
                f"another rule is called '{name}' ({seen[name]})",
                "give one of them another name",
            )
        elif name:
            seen[name] = str(place)


def _never_opened(context: LintContext) -> None:
    for rule, word in context.words("deny"):
        handled = [slot for slot in _DATA if rule.kind(slot) is Kind.HANDLE]
        if Op.OPEN in rule.effect(word) and handled:
            names = " and ".join(f"'{slot.name.lower()}'" for slot in handled)
            context.add_at(
                "INO206",
                rule,
                word,
                f"'open' denied, so no handler is ever asked for {names}",
                "remove 'open' here, or the word from 'handle'",
            )


def _other_types(context: LintContext) -> None:
    for rule, word in context.words():
        types = rule.compiled.types
        if rule.source.match.type is None or any(types_with(slot, types) for slot in word.slots):
            continue
        given = " and ".join(str(name) for name in listed(rule.source.match.type))
        context.add_at(
            "INO207",
            rule,
            word,
            f"'{word.text}' is nothing that happens to a {given}: it is decided by what it is done "
            "to, or by what it makes",
            f"add type {_names_of(word.slots)}, or remove the word",
        )


def _names_of(slots: Iterable[int]) -> str:
    types: set[int] = set()
    for slot in slots:
        types |= types_with(slot, frozenset(TYPES.values()))
    return " or ".join(_TYPE_NAMES[each] for each in sorted(types, reverse=True))


def _impossible_sizes(context: LintContext) -> None:
    for rule in context.linted:
        for condition in rule.compiled.conditions:
            if not isinstance(condition, SizeCondition) or condition.largest is None:
                continue
            if condition.smallest > condition.largest:
                context.add(
                    "INO208",
                    context.place(rule, "match", "size", "min", key=True),
                    rule.title,
                    f"no file has {condition.smallest} bytes or more and {condition.largest} or "
                    "less",
                    "exchange 'min' and 'max'",
                )


def _mmap_for_some(context: LintContext) -> None:
    for rule, word in context.words("deny"):
        if Part.MMAP not in rule.effect(word) or rule.compiled.caller is None:
            continue
        if word.text == "mmap":
            context.add_at(
                "INO209",
                rule,
                word,
                "'mmap' denied to some callers is denied to all: whether a file can be mapped is a "
                "property of the file",
                "remove 'caller', or deny 'open' or 'write' to these callers",
            )


def _unused_tier(context: LintContext) -> None:
    """A required tier, though no file can make use of it."""
    required = context.policy.require
    sets = {"inode": _INODE_TIER, "rw": (frozenset[int](_DATA),)}.get(required, ())
    if not sets or any(_may_be_bypassed(context, slots) for slots in sets):
        return
    context.add(
        "INO210",
        context.rules.loaded.place("require"),
        "",
        f"'require: {required}', but no rule leaves anything to the kernel that it serves only "
        "there",
        "require less, or bypass more",
    )


def _may_be_bypassed(context: LintContext, slots: frozenset[int]) -> bool:
    def bypassed(slot: int) -> bool:
        if context.rules.default(slot).kind is Kind.BYPASS:
            return True
        return any(
            rule.is_unconditional and rule.kind(slot) is Kind.BYPASS for rule in context.linted
        )

    return all(bypassed(slot) for slot in slots)


CHECKS: Final = (
    _decides_nothing,
    _unusable,
    _same_names,
    _never_opened,
    _other_types,
    _impossible_sizes,
    _mmap_for_some,
    _unused_tier,
)
