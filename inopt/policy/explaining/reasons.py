"""Why an operation that is bypassed is served by the daemon nevertheless.

These are the conditions of `inopt.policy.plan`, each with the words that tell of it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from inopt.ops import Op
from inopt.policy.compiled import ATTRIBUTES, CompiledPolicy, Treatment
from inopt.policy.explaining.branches import Test
from inopt.policy.explaining.phrases import topics
from inopt.policy.explaining.sources import rule_name
from inopt.policy.plan import NEEDED
from inopt.policy.rules import CompiledRule, Decision, Kind
from inopt.policy.words import Part, slot_name

OPENING: Final = (Op.READ, Op.WRITE, Part.OVERWRITE, Part.MMAP)
"""What decides together whether opens bypass."""

_ELSEWHERE: Final = "the file has several names (hard links), and not all need be treated alike"

# By slot: the opcode by which the kernel is given it, and what must be bypassed for that.
_GIVEN: Final[Mapping[int, tuple[Op, tuple[int, ...]]]] = {
    slot: (op, needed)
    for op, needed in NEEDED.items()
    for slot in ((op,) if op in needed else needed)
}


class Option(NamedTuple):
    """One way in which a slot may be decided."""

    rule: CompiledRule | None
    decision: Decision


_DONE: Final = {
    Kind.BYPASS: "decided apart", Kind.HANDLE: "handled", Kind.DENY: "denied",
}  # fmt: skip


def _done(option: Option) -> str:
    done = _DONE[option.decision.kind]
    name = rule_name(option.rule)
    return f"{done} ({name})" if option.rule is None else f"{done} (rule '{name}')"


def _never(slot: int) -> str:
    return f"no kernel can bypass {slot_name(slot)}: served by the daemon"


def why_not_opened(
    policy: CompiledPolicy,
    options: Mapping[int, tuple[Option, ...]],
    format_: int,
    treatment: Treatment,
    *,
    linked: bool,
) -> str:
    """Why opens do not bypass, empty if they do.

    *options* are those of `OPENING`, whoever asks.
    """
    if not policy.reads_and_writes:
        return "tier none"
    some = " for some callers"
    writable = any(each.decision.kind is not Kind.DENY for each in options[Op.WRITE])
    overwriting, mapping = _touched(options[Part.OVERWRITE]), _touched(options[Part.MMAP])
    if overwriting is not None and writable and not _as_writing(options):
        what = "overwrite" + (some if len(options[Part.OVERWRITE]) > 1 else "")
        return f"{what} is {_done(overwriting)}, so each write is looked at"
    if mapping is not None:
        what = "mmap" + (some if len(options[Part.MMAP]) > 1 else "")
        return f"{what} is {_done(mapping)}, so the daemon must see reads and writes"
    for slot in (Op.READ, Op.WRITE):
        for option in options[slot]:
            if option.decision.kind is Kind.HANDLE:
                what = slot_name(slot) + (some if len(options[slot]) > 1 else "")
                return (
                    f"{what} is {_done(option)}, and read and write bypass together or not at all"
                )
    if not treatment.stays_bypassed:
        return "a rule that depends on facts, which can change, might forbid it to an open file"
    if linked and policy.lost_when_linked(format_)[1]:
        for rule in policy.rules.by_path:
            taken = _taken_by(rule, format_)
            if taken >= 0:
                return _linked(rule, taken)
        return _ELSEWHERE
    return ""


def why_not_copied(options: Mapping[int, tuple[Option, ...]], slot: int) -> str:
    """Why copy_file_range(2) is not served by the kernel: it never is, but may not be at all."""
    for other in (Op.READ, Op.WRITE, Part.OVERWRITE):
        if other == Part.OVERWRITE and _as_writing(options):
            continue
        for option in options[other]:
            if option.decision.kind is Kind.HANDLE or (
                other == Part.OVERWRITE and option.decision.kind is Kind.DENY
            ):
                what = f"{slot_name(other)} is {_done(option)}"
                return f"answered EOPNOTSUPP, so that callers read and write instead: {what}"
    return _never(slot)


def _touched(options: Sequence[Option]) -> Option | None:
    """What keeps opens from bypassing."""
    return next((each for each in options if each.decision.kind is not Kind.BYPASS), None)


def _as_writing(options: Mapping[int, tuple[Option, ...]]) -> bool:
    """Whether just those may not overwrite who may not write: no open for writing is told apart."""
    overwriting, writing = options[Part.OVERWRITE], options[Op.WRITE]
    return [(each.rule, each.decision) for each in overwriting] == [
        (each.rule, each.decision) for each in writing
    ]


def _taken_by(rule: CompiledRule, format_: int) -> int:
    """A slot that *rule* decides so that opens would not bypass; -1 if there is none."""
    if format_ in rule.types:
        for slot in OPENING:
            decision = rule.decisions.get(slot)
            if decision is None or decision.kind is Kind.BYPASS:
                continue
            if slot == Part.OVERWRITE and decision == rule.decisions.get(Op.WRITE):
                continue
            if decision.kind is Kind.HANDLE or slot in (Part.OVERWRITE, Part.MMAP):
                return slot
    return -1


def _linked(rule: CompiledRule, slot: int) -> str:
    option = Option(rule, rule.decisions[slot])
    return (
        f"the file has several names (hard links), and at some paths "
        f"{slot_name(slot)} is {_done(option)}"
    )


Entries = Iterable[tuple[tuple[Test, ...], Option]]
"""What may decide a slot, in order: the tests of each, whether they hold or not."""


def why_not_given(
    policy: CompiledPolicy,
    slot: int,
    entries: Callable[[int], Entries],
    format_: int,
    treatment: Treatment,
    *,
    linked: bool,
) -> str:
    """Why the kernel does not serve *slot*, which is not of `OPENING`; empty if it does.

    *entries* tells what may decide a slot.
    """
    if slot not in _GIVEN:
        return _never(slot)
    op, needed = _GIVEN[slot]
    if not policy.reads_and_writes:
        return "tier none"
    if not policy.kernel:
        return "tier rw: only read, write and mmap can bypass"
    if op not in policy.kernel:
        names = ", ".join(slot_name(given) for given in policy.kernel)
        return f"tier inode: of what looks at an inode, only {names} can bypass"
    if format_ == stat.S_IFDIR and op in ATTRIBUTES and policy.directories_are_cached:
        return "the policy has attributes of directories cached"
    if op is Op.READDIR and not treatment.lists_all:
        return "the directory may have hidden entries, so listings are filtered"
    for other in (slot, *(each for each in needed if each != slot)):
        what = "" if other == slot else f"{slot_name(other)}, which bypasses together with it, "
        options = list(entries(other))
        tests = [test for some, _ in options for test in some]
        if tests:
            change = "" if topics(tests) == "the caller" else ", which can change"
            return f"{what}depends on {topics(tests)}{change}"
        option = options[0][1]
        if option.decision.kind is not Kind.BYPASS:
            in_setattr = other in NEEDED[Op.SETATTR]
            whole = "setattr" if in_setattr else f"what bypasses with {slot_name(slot)}"
            return f"one part of {whole} is {_done(option)}: {slot_name(other)}"
    if format_ == stat.S_IFREG and treatment.opens_handled:
        return "open is handled, and a handler may not want an open to bypass"
    if linked and op in policy.lost_when_linked(format_)[0]:
        for rule in policy.rules.by_path:
            lost = _lost_by(rule, needed, format_)
            if lost >= 0:
                return _linked(rule, lost)
        return _ELSEWHERE
    return ""


def _lost_by(rule: CompiledRule, slots: tuple[int, ...], format_: int) -> int:
    """One of *slots* that *rule* decides so that it stays with the daemon; -1 if there is none."""
    if format_ in rule.types:
        for slot in slots:
            decision = rule.decisions.get(slot)
            if decision is not None and decision.kind is not Kind.BYPASS:
                return slot
    return -1
