"""Notes: what follows from a policy that its author may not expect."""

from __future__ import annotations

import stat
from typing import Final

from inopt.ops import Op
from inopt.policy.facts import ModeCondition, XattrCondition
from inopt.policy.linting.asking import MASKABLE, what_can_change
from inopt.policy.linting.context import LintContext, LintedRule
from inopt.policy.rules import Kind
from inopt.policy.words import NEVER_DENIED, Part

_DATA: Final = frozenset[int]({Op.READ, Op.WRITE})
_BYPASSABLE: Final = MASKABLE | _DATA | {Part.MMAP, Part.OVERWRITE}
_USERS_OWN: Final = "user."  # extended attributes that whoever may write a file may change


def _places(context: LintContext) -> None:
    """What path rules mean for moving and linking: told once."""
    first = next(
        (rule for rule in context.linted if rule.compiled.patterns and rule.restricts), None
    )
    if first is None:
        return
    place = context.place(first, "match", "path", 0)
    context.add(
        "INO301",
        place,
        first.title,
        "moving or linking between places that rules treat differently answers EXDEV; mv(1) then "
        "copies",
        "",
    )
    if first.compiled.types != {stat.S_IFDIR}:
        context.add(
            "INO302",
            place,
            first.title,
            "a file with several names gets the strictest of what its names known so far get; "
            "inopt check --against TREE finds such files",
            "",
        )


def _at_open(context: LintContext) -> None:
    for rule, word in context.words("deny"):
        if rule.is_unconditional or not rule.effect(word) & _DATA or rule.asks_for_size:
            continue
        context.add_at(
            "INO303",
            rule,
            word,
            f"'{word.text}' depends on {what_can_change(rule)}: it is decided when a file is "
            "opened, and holds until it is closed",
            "",
        )


def _nobody_bypasses(context: LintContext) -> None:
    for rule in context.linted:
        words = [
            word
            for word in rule.words
            if word.field == "bypass"
            and not word.is_group
            and rule.effect(word)
            and not word.slots & (_BYPASSABLE | NEVER_DENIED.keys())
        ]
        if not words:
            continue
        names = ", ".join(f"'{word.text}'" for word in words)
        told = f"{names}: no kernel bypasses this, the daemon serves it"
        context.add_at("INO304", rule, words[0], told, "")


def _who_may_change(context: LintContext) -> None:
    """Facts that users may change, who then come under other rules."""
    for rule in context.linted:
        if not rule.restricts:
            continue
        for condition in rule.compiled.conditions:
            if isinstance(condition, ModeCondition):
                _changeable(context, rule, "mode", "chmod", frozenset({Part.CHMOD}))
            elif isinstance(condition, XattrCondition) and condition.name.startswith(_USERS_OWN):
                slots = frozenset({Op.SETXATTR, Op.REMOVEXATTR})
                _changeable(context, rule, "xattr", "setxattr, removexattr", slots)
                break


def _changeable(
    context: LintContext, rule: LintedRule, field: str, words: str, slots: frozenset[int]
) -> None:
    if all(rule.kind(slot) is Kind.DENY for slot in slots):
        return
    context.add(
        "INO308",
        context.place(rule, "match", field, key=True),
        rule.title,
        f"whoever may change the '{field}' of a file gets out of this rule, or into it",
        f"deny [{words}] in this rule if that is not meant",
    )


CHECKS: Final = (_places, _at_open, _nobody_bypasses, _who_may_change)
