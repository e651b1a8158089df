"""Errors: rules that hang on something of which the kernel does not tell, or not every time."""

from __future__ import annotations

from typing import Final

from inopt.ops import Op
from inopt.policy.linting.context import LintContext, LintedRule, Word
from inopt.policy.rules import Kind
from inopt.policy.words import KERNELS_UNLESS_HANDLED, Part, slot_name

# The kernel asks once, and answers others from its cache.
_SHARED: Final = frozenset({Op.LOOKUP, Op.GETATTR, Op.STATX})
# Whether they go to a handler is decided for all opens of an inode, or when nobody in particular
# asks; and locks that exclude each other are kept in one place.
_FOR_ALL: Final = frozenset[int](
    {Op.READ, Op.WRITE, Op.FLUSH, Op.RELEASE, Op.RELEASEDIR} | KERNELS_UNLESS_HANDLED
)
# Bypassed writes change the size, and nobody hears of it.
_UNDER_SIZE: Final = frozenset[int](
    {
        Op.READ, Op.WRITE, Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64,
        Part.OVERWRITE, Part.TRUNCATE, Part.MMAP,
    }
)  # fmt: skip
_HANDLE: Final = frozenset({Kind.HANDLE})
_ATTRIBUTE_WORDS: Final = frozenset({"setattr", "metadata"})
MASKABLE: Final = frozenset[int](
    {
        Op.GETATTR, Op.STATX, Op.OPEN, Op.OPENDIR, Op.READDIR, Op.READDIRPLUS, Part.CHMOD,
        Part.CHOWN, Part.TRUNCATE, Part.UTIMENS,
    }
)  # fmt: skip
"""What a kernel of tier ``inode`` serves without asking, from the first lookup on."""

_FACT_NAMES: Final = {
    "OwnerCondition": "the owner",
    "ModeCondition": "the mode",
    "XattrCondition": "an extended attribute",
    "SizeCondition": "the size",
}


def named(slots: frozenset[int]) -> str:
    """Slots for people to read."""
    names = [f"'{slot_name(slot)}'" for slot in sorted(slots)]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def what_can_change(rule: LintedRule) -> str:
    """What a rule depends on beside path and type, for people to read."""
    names = [_FACT_NAMES[type(each).__name__] for each in rule.compiled.conditions]
    if rule.compiled.caller is not None:
        names.append("the caller")
    return " and ".join(dict.fromkeys(names))


def _shared_answers(context: LintContext) -> None:
    for rule, word in context.words():
        if rule.is_unconditional:
            continue
        slots = frozenset[int]()
        if rule.compiled.caller is not None:
            slots = rule.effect(word) & _SHARED
        if word.kind is Kind.BYPASS:
            slots = frozenset(slot for slot in slots if context.goes_on_otherwise(rule, slot))
        if not slots:
            continue
        covers = (
            f"'{word.text}' " if len(word.slots) == 1 else f"'{word.text}', with {named(slots)}, "
        )
        context.add_at(
            "INO101",
            rule,
            word,
            f"{covers}depends on the caller, but the kernel asks once and answers others from its "
            "cache: what one may see, all see",
            _shared_fix(word),
        )


def _shared_fix(word: Word) -> str:
    if word.kind is Kind.BYPASS:
        return "let everybody look, in a rule before without 'caller': bypass: [lookup, getattr]"
    if word.text in ("all", "metadata"):
        return "name what is asked for each caller: " + (
            "setattr" if word.text == "metadata" else "open, read, write, namespace, setattr, xattr"
        )
    return f"{word.field} 'open', 'read', 'opendir' or the like instead, which are asked each time"


def _visible_for_some(context: LintContext) -> None:
    for rule in context.linted:
        if rule.compiled.visible is None or rule.compiled.caller is None:
            continue
        context.add(
            "INO102",
            context.place(rule, "visible", key=True),
            rule.title,
            "'visible' depends on the caller, but a name that the kernel has found for one caller "
            "is there for all",
            "remove 'visible' or 'caller'; deny 'open' and 'opendir' to these callers instead",
        )


def _handled_for_some(context: LintContext) -> None:
    for rule, word in context.words("handle", "bypass"):
        if rule.compiled.caller is None:
            continue
        slots = rule.effect(word) & _FOR_ALL
        if word.kind is Kind.BYPASS:
            slots = frozenset(slot for slot in slots if context.goes_on_as(rule, slot, _HANDLE))
        if not slots:
            continue
        context.add_at(
            "INO103",
            rule,
            word,
            f"{named(slots)} handled for some callers only, but all opens of a file share its "
            "cached pages and locks: others would see what the handler made, or the handler would "
            "not be asked",
            "handle it for all and let the handler look at the caller, or deny it to some",
        )


def _guarded_by_size(context: LintContext) -> None:
    for rule, word in context.words():
        slots = rule.effect(word) & _UNDER_SIZE
        if word.text in _ATTRIBUTE_WORDS:
            slots -= {Part.TRUNCATE}
        if not slots or not rule.asks_for_size:
            continue
        context.add_at(
            "INO104",
            rule,
            word,
            f"the size guards {named(slots)}, but an open file grows and shrinks without anybody "
            "being asked",
            "guard 'open' (or 'unlink', 'setattr', …) by size, or drop 'size' here",
        )


def _bypass_that_ends(context: LintContext) -> None:
    for rule, word in context.words("bypass"):
        if rule.is_unconditional:
            continue
        slots = rule.effect(word) & MASKABLE
        if rule.compiled.caller is not None:
            slots -= _SHARED
        if rule.asks_for_size:
            slots -= _UNDER_SIZE
        slots = frozenset(slot for slot in slots if context.goes_on_otherwise(rule, slot))
        if not slots:
            continue
        changing = what_can_change(rule)
        if word.is_group:
            context.add_at(
                "INO307",
                rule,
                word,
                f"{named(slots)}, depending on {changing}: the daemon is asked each time, the "
                "kernel serves none of it",
                "",
            )
        else:
            context.add_at(
                "INO105",
                rule,
                word,
                f"{named(slots)} bypassed, depending on {changing}: the kernel is told once, and "
                "would go on when that does not hold any more",
                "bypass it for all these files and deny or handle, in a rule before, where the "
                "opposite holds; or use a group word, which the daemon may serve",
            )


CHECKS: Final = (
    _shared_answers,
    _visible_for_some,
    _handled_for_some,
    _guarded_by_size,
    _bypass_that_ends,
)
