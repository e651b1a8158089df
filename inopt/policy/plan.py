"""Plans: who serves each operation on an inode, in the form that a session runs on.

A plan is a table of codes by slot. Few distinct plans exist: they are interned by their content,
and an inode holds a reference to one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from inopt.ops import Op, OpsMask
from inopt.policy.callers import Caller, CallerTest
from inopt.policy.rules import Decision, Kind
from inopt.policy.words import SLOT_LIMIT, Part

# A code is 0 for the daemon, an errno for a denied operation, or one of these.
DAEMON: Final = 0
HANDLER: Final = -1
KERNEL: Final = -2
CONDITIONAL: Final = -3

# What a caller's identity leads to: tests in order, the last one without a test.
Choices: TypeAlias = tuple[tuple[tuple[CallerTest, ...], int], ...]


class Plan(msgspec.Struct, frozen=True, eq=True):
    """Who serves what on one kind of inode.

    ``codes``: by slot, see above. ``choices``: for the slots with ``CONDITIONAL``, by caller.
    ``bypasses``: opens bypass (read, write, mmap). ``joins``: they may beside others that do so
    already, though the inode is better not begun with; ``readers_join``: those that cannot write.
    ``mask``: what the kernel is given at lookup; ``allowed``: what it may have been given before,
    attributes that are to be cached by now included. ``direct``, ``direct_writers``: opens, or
    those that may write, get no page cache, so that no shared mapping can be made. ``hidden``:
    the inode is not to be seen. ``unsure``: so the name may lead elsewhere for the next caller or
    moment, and is not to be cached. ``attributes_unsure``: nor are the attributes.
    ``depends_on_facts``: what can change has been asked, so the plan holds for one decision.
    """

    codes: tuple[int, ...]
    choices: tuple[tuple[int, Choices], ...] = ()
    bypasses: bool = False
    joins: bool = False
    readers_join: bool = False
    mask: OpsMask = OpsMask()
    allowed: OpsMask = OpsMask()
    direct: bool = False
    direct_writers: bool = False
    hidden: bool = False
    unsure: bool = False
    attributes_unsure: bool = False
    depends_on_facts: bool = False

    def code(self, slot: int, caller: Caller) -> int:
        """The code of *slot* for *caller*: never ``CONDITIONAL``."""
        code = self.codes[slot]
        if code != CONDITIONAL:
            return code
        for conditional, choices in self.choices:
            if conditional == slot:
                for tests, chosen in choices:
                    if all(test.holds(caller) for test in tests):
                        return chosen
        raise AssertionError(f"slot {slot} has no last choice")

    def is_handled(self, slot: int) -> bool:
        """Whether a handler serves *slot*, for those who are not denied it."""
        code = self.codes[slot]
        if code != CONDITIONAL:
            return code == HANDLER
        return any(
            chosen == HANDLER
            for conditional, choices in self.choices
            if conditional == slot
            for _, chosen in choices
        )


Outcome: TypeAlias = tuple[tuple[CallerTest | None, Decision], ...]
"""What is decided for one slot once the facts are known: by caller, the last one for everybody."""


def make_plan(
    outcomes: dict[int, Outcome],
    kernel: OpsMask,
    *,
    cached: OpsMask,
    reads_and_writes: bool,
    hidden: bool,
    settled: frozenset[int],
    lists_all: bool,
    attachable: bool,
    is_regular: bool,
    depends_on_facts: bool,
) -> Plan:
    """The plan for decided outcomes.

    *kernel* is what this kernel takes in a mask; *cached*, what it is to believe rather than serve
    by itself; *reads_and_writes*, whether opens can bypass at all; *attachable*, whether the kernel
    may have the backing file for good, which for a regular file also needs its opens to bypass;
    *settled*, the slots of which no fact can change the outcome; *lists_all*, whether listings need
    no filter.
    """
    codes = [DAEMON] * SLOT_LIMIT
    choices: list[tuple[int, Choices]] = []
    for slot, outcome in outcomes.items():
        if all(decision == outcome[-1][1] for _, decision in outcome):
            codes[slot] = _code(outcome[-1][1])
        else:
            codes[slot] = CONDITIONAL
            choices.append(
                (slot, tuple(((test,) if test else (), _code(d)) for test, d in outcome))
            )
    writable = may_be(codes[Op.WRITE], choices, Op.WRITE)
    # Who is denied overwriting because writing is denied as well opens nothing for writing.
    told_apart = outcomes[Part.OVERWRITE] != outcomes[Op.WRITE]
    guarded = codes[Part.OVERWRITE] != DAEMON and writable and told_apart
    joins = _opens_bypass(codes, choices, guarded=guarded)
    readers_join = _reading_bypasses(codes, choices)
    bypasses = reads_and_writes and joins
    may_stay = attachable and (bypasses or not is_regular)
    allowed = _mask(codes, kernel, settled, lists_all=lists_all) if may_stay else OpsMask()
    mask = allowed - cached
    for op in mask:
        codes[op] = KERNEL
    if bypasses:
        for slot in (Op.READ, Op.WRITE, Part.MMAP):
            if codes[slot] == DAEMON:
                codes[slot] = KERNEL
    return Plan(
        tuple(codes),
        tuple(choices),
        bypasses,
        joins,
        readers_join,
        mask,
        allowed,
        direct=codes[Part.MMAP] > 0 or codes[Part.MMAP] == CONDITIONAL,
        direct_writers=guarded,
        hidden=hidden,
        unsure=Op.LOOKUP not in settled or codes[Op.LOOKUP] not in (DAEMON, HANDLER),
        attributes_unsure=codes[Op.GETATTR] not in (DAEMON, KERNEL) or Op.GETATTR not in settled,
        depends_on_facts=depends_on_facts,
    )


def _code(decision: Decision) -> int:
    if decision.kind is Kind.DENY:
        return decision.errno
    return HANDLER if decision.kind is Kind.HANDLE else DAEMON


def may_be(code: int, choices: Iterable[tuple[int, Choices]], slot: int) -> bool:
    """Whether anybody may do what *slot* stands for."""
    if code != CONDITIONAL:
        return code <= 0
    return any(chosen <= 0 for found, options in choices if found == slot for _, chosen in options)


def _opens_bypass(codes: list[int], choices: list[tuple[int, Choices]], *, guarded: bool) -> bool:
    """Whether an inode's opens bypass.

    Reading and writing bypass together or not at all. That one of them is denied, or denied to
    some, is decided at each open; that one is handled keeps all opens from bypassing, and so does
    what only the daemon can tell apart (overwriting, shared mappings).
    """
    return (
        not guarded
        and _reading_bypasses(codes, choices)
        and not _may_be_handled(codes, choices, Op.WRITE)
    )


def _reading_bypasses(codes: list[int], choices: list[tuple[int, Choices]]) -> bool:
    return codes[Part.MMAP] == DAEMON and not _may_be_handled(codes, choices, Op.READ)


def _may_be_handled(codes: list[int], choices: list[tuple[int, Choices]], slot: int) -> bool:
    if codes[slot] != CONDITIONAL:
        return codes[slot] == HANDLER
    return any(code == HANDLER for found, some in choices if found == slot for _, code in some)


# What must bypass, whoever asks, for the kernel to serve an opcode alone from lookup on.
NEEDED: Final[Mapping[Op, tuple[int, ...]]] = MappingProxyType(
    {
        Op.GETATTR: (Op.GETATTR, Op.STATX),
        Op.STATX: (Op.GETATTR, Op.STATX),
        Op.SETATTR: (Part.CHMOD, Part.CHOWN, Part.TRUNCATE, Part.UTIMENS),
        Op.READDIR: (Op.READDIR, Op.OPENDIR),
        # Who opens without the daemon has no handle that anything else could be asked with; and
        # the kernel itself must know, and remove, set-id bits then.
        Op.OPEN: (
            Op.OPEN,
            Op.READ,
            Op.WRITE,
            Part.OVERWRITE,
            Part.MMAP,
            Part.TRUNCATE,
            Op.GETATTR,
            Op.STATX,
            Part.CHMOD,
            Part.CHOWN,
            Part.UTIMENS,
            Op.FLUSH,
            Op.RELEASE,
            Op.FSYNC,
            Op.LSEEK,
            Op.FALLOCATE,
            Op.COPY_FILE_RANGE,
            Op.COPY_FILE_RANGE_64,
            Op.IOCTL,
            Part.CHATTR,
            Op.POLL,
        ),
    }
)


def _mask(
    codes: list[int], kernel: OpsMask, settled: frozenset[int], *, lists_all: bool
) -> OpsMask:
    """What the kernel may serve on its own from lookup on: what is bypassed whatever happens."""
    sure = (
        op
        for op, slots in NEEDED.items()
        if all(codes[slot] == DAEMON and slot in settled for slot in slots)
    )
    return OpsMask.of(*(op for op in sure if op is not Op.READDIR or lists_all)) & kernel


def merge(one: Plan, other: Plan) -> Plan:
    """The plan of an inode with names under both: for each operation the stricter of the two.

    Its opens bypass, and its mask has an opcode, only if both plans say so.
    """
    if one == other:
        return one
    codes: list[int] = []
    choices: list[tuple[int, Choices]] = []
    for slot in range(SLOT_LIMIT):
        pair = (one.codes[slot], other.codes[slot])
        if CONDITIONAL in pair:
            codes.append(CONDITIONAL)
            choices.append((slot, _both(_options(one, slot), _options(other, slot))))
        else:
            codes.append(_stricter(*pair))
    bypasses = one.bypasses and other.bypasses
    if not bypasses:
        codes = [DAEMON if code == KERNEL else code for code in codes]
    mask = one.mask & other.mask
    for op in mask:
        codes[op] = KERNEL
    return Plan(
        tuple(codes),
        tuple(choices),
        bypasses,
        one.joins and other.joins,
        one.readers_join and other.readers_join,
        mask,
        one.allowed & other.allowed,
        direct=one.direct or other.direct,
        direct_writers=one.direct_writers or other.direct_writers,
        hidden=one.hidden and other.hidden,
        unsure=one.unsure or other.unsure,
        attributes_unsure=one.attributes_unsure or other.attributes_unsure,
        depends_on_facts=one.depends_on_facts or other.depends_on_facts,
    )


def _options(plan: Plan, slot: int) -> Choices:
    for found, options in plan.choices:
        if found == slot:
            return options
    return (((), plan.codes[slot]),)


def _both(one: Choices, other: Choices) -> Choices:
    return tuple(
        (tests + more, _stricter(code, another)) for tests, code in one for more, another in other
    )


def _stricter(one: int, other: int) -> int:
    if one > 0 or other > 0:
        return one if one > 0 else other
    if HANDLER in (one, other):
        return HANDLER
    return DAEMON if DAEMON in (one, other) else KERNEL


def wants(flags: int) -> tuple[bool, bool]:
    """Whether an open with *flags* of open(2) can read, and whether it can write."""
    mode = flags & os.O_ACCMODE
    return mode != os.O_WRONLY, mode != os.O_RDONLY
