"""For each operation on one path: who serves it, the rule that decides, and what stands behind it.

This follows the gates (`inopt.handlers.gates`) and plans (`inopt.policy.plan`) with the reasons
kept. What is not known (a caller, the facts of a file that is not there) leads to alternatives.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from inopt.ops import Op
from inopt.policy.compiled import CompiledPolicy, Joint
from inopt.policy.explaining.applicable import (
    AT_OPEN,
    MAKING,
    UNLESS_TOUCHED,
    asked_for,
    on_inode,
    on_name,
    opcode_of,
)
from inopt.policy.explaining.branches import Branch, Test, always, combine
from inopt.policy.explaining.chains import Chains, chains_of, facts_of_new
from inopt.policy.explaining.identity import Identity
from inopt.policy.explaining.lines import Line, Verdict, line
from inopt.policy.explaining.phrases import Phrase, errno_name
from inopt.policy.explaining.reasons import (
    OPENING,
    Option,
    why_not_copied,
    why_not_given,
    why_not_opened,
)
from inopt.policy.explaining.sources import place_of_decision, place_of_visibility, rule_name
from inopt.policy.explaining.subjects import Subject
from inopt.policy.rules import CompiledRule, Kind
from inopt.policy.words import Part, slot_name

# The name by which a file without one (O_TMPFILE) is judged.
_NAMELESS: Final = b"/"
_COPYING: Final = frozenset({Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64})
_MOVING: Final = frozenset({Op.LINK, Op.RENAME, Op.RENAME2})
_PERMISSIONS: Final = "to check permissions, the kernel asks for the denied attributes"
_DENIED: Final[Mapping[int, str]] = {
    Op.READ: "refused at open",
    Op.WRITE: "refused at open",
    Part.OVERWRITE: "writes before the end of the file are refused",
    Part.MMAP: "of shared mappings: the kernel refuses them, as all opens are direct",
    Part.COPY_UP: "what a lower layer has is not changed",
    Op.GETXATTR: "except ACLs, by which the kernel checks permissions",
}


def explain(
    policy: CompiledPolicy,
    subjects: Sequence[Subject],
    caller: Identity | None = None,
    handled: Collection[int] | None = None,
) -> list[Line]:
    """One line for each operation on the last of *subjects*, which lead there from the root.

    *handled* are the opcodes that the handlers serve; None if that is not known.
    """
    explainer = _Explainer(policy, subjects, caller, handled)
    return [
        line(slot, about, found, explainer.phrases) for slot, about, found in explainer.operations()
    ]


class _Explainer:
    """What is the same for all operations on one path."""

    def __init__(
        self,
        policy: CompiledPolicy,
        subjects: Sequence[Subject],
        caller: Identity | None,
        handled: Collection[int] | None,
    ) -> None:
        self._policy = policy
        self._subject = subjects[-1]
        self._caller = caller
        self._handled = handled
        self.phrases: dict[Test, Phrase] = {}
        self._above: list[Branch[Verdict | None]] = always(None)
        for above in subjects[:-1]:
            self._above = combine(self._above, self._passed(above), _first)
        self._by_name = self._chains(self._subject)
        self._reached = self._above
        if self._subject.name:
            self._reached = combine(self._above, self._lookup(self._by_name, ""), _first)

    def _chains(self, subject: Subject) -> Chains:
        return chains_of(self._policy, subject, subject.state, self._caller, self.phrases)

    def operations(self) -> Iterator[tuple[int, str, list[Branch[Verdict]]]]:
        """Each slot, what it is about, and what happens."""
        subject = self._subject
        for slot in on_inode(subject.format):
            if slot not in UNLESS_TOUCHED or slot in self._policy.touched:
                yield slot, "inode", self._combined(self._reached, self._on_inode(slot))
        if subject.format == stat.S_IFDIR:
            state = subject.state.step(_NAMELESS)
            facts = facts_of_new(self._caller)
            chains = Chains(self._policy, state, stat.S_IFREG, facts, self._caller, self.phrases)
            found = self._made(chains, Op.TMPFILE, stat.S_IFREG, always(None))
            yield Op.TMPFILE, "inode", self._combined(self._reached, found)
        if subject.name:
            facts = facts_of_new(self._caller)
            new = Chains(
                self._policy, subject.state, subject.format, facts, self._caller, self.phrases
            )
            for slot in on_name(subject.format):
                if slot in MAKING:
                    found = self._made(new, slot, subject.format, self._hiding())
                    yield slot, "name", self._combined(self._above, found)
                elif slot == Op.LOOKUP:
                    yield slot, "name", self._combined(self._above, self._looked_up())
                else:
                    found = self._on_inode(slot) if slot == Op.LINK else self._judged(slot)
                    yield slot, "name", self._combined(self._reached, found)

    # --- what decides --------------------------------------------------------------------------

    def _lookup(self, chains: Chains, whose: str) -> list[Branch[Verdict | None]]:
        """Whether a lookup is refused, as others than the lookup itself see it."""
        why = " ".join(filter(None, ("refused at lookup", whose)))

        def refused(option: Option) -> Verdict | None:
            return self._refusal(Op.LOOKUP, option, why)

        return combine(
            self._told(chains.hiding(), errno.ENOENT, f"hidden: {why}"),
            [Branch(each.tests, refused(each.value)) for each in chains.decided(Op.LOOKUP)],
            _first,
        )

    def _passed(self, above: Subject) -> list[Branch[Verdict | None]]:
        """Whether a directory above cannot be passed: found, and searched."""
        chains = self._chains(above)
        whose = f"of '{above.name.decode(errors='backslashreplace')}' above it"
        why = f"{_PERMISSIONS} {whose if above.name else 'of the root'}"
        searched: list[Branch[Verdict | None]] = [
            Branch(each.tests, self._refusal(Op.GETATTR, each.value, why))
            for each in chains.decided(Op.GETATTR)
        ]
        return combine(self._lookup(chains, whose), searched, _first) if above.name else searched

    def _looked_up(self) -> list[Branch[Verdict]]:
        """What LOOKUP itself answers."""
        why = "hidden: listings leave it out, too"
        hiding = self._told(self._by_name.hiding(), errno.ENOENT, why)
        return self._combined(hiding, self._judged(Op.LOOKUP))

    def _made(
        self,
        chains: Chains,
        slot: int,
        format_: int,
        there: list[Branch[CompiledRule | None]],
    ) -> list[Branch[Verdict]]:
        """What an operation answers that makes an inode; *there*: what hides one that is there."""
        hiding = combine(chains.hiding(), there, lambda new, old: new or old)
        why = "the name is hidden: whether it is there is not told"
        refused = self._told(hiding, errno.EACCES, why)
        return self._combined(refused, self._asked(chains, slot, format_, linked=False))

    def _hiding(self) -> list[Branch[CompiledRule | None]]:
        """What hides the inode that has the name; nothing, if none is known to have it."""
        return always(None) if self._subject.attributes is None else self._by_name.hiding()

    def _told(
        self, hiding: Sequence[Branch[CompiledRule | None]], number: int, why: str
    ) -> list[Branch[Verdict | None]]:
        return [
            Branch(tests, self._hidden(rule, number, why) if rule else None)
            for tests, rule in hiding
        ]

    def _on_inode(self, slot: int) -> list[Branch[Verdict]]:
        """By all names that the inode is known by, the strictest counts."""
        position = self._subject.position
        if not isinstance(position, Joint):
            return self._judged(slot)
        found: list[Branch[Verdict]] = []
        for state in position.states:
            chains = chains_of(self._policy, self._subject, state, self._caller, self.phrases)
            one = self._asked(chains, slot, self._subject.format, linked=True)
            found = combine(found, one, _stricter) if found else one
        return found

    def _judged(self, slot: int) -> list[Branch[Verdict]]:
        """By the name that is asked about."""
        subject = self._subject
        return self._asked(self._by_name, slot, subject.format, linked=subject.is_linked)

    def _asked(
        self, chains: Chains, slot: int, format_: int, *, linked: bool
    ) -> list[Branch[Verdict]]:
        """The first refusal of what is asked for, else how *slot* itself is served."""
        refused: list[Branch[Verdict | None]] = always(None)
        for other in asked_for(slot, format_):
            if other == slot:
                why = _DENIED.get(slot, "")
            elif other in (Op.OPEN, Op.OPENDIR):
                why = "refused at open"
            elif other == Op.GETATTR:
                why = _PERMISSIONS
            else:
                why = f"{slot_name(other)} is denied, which it needs"
            one = [
                Branch(each.tests, self._refusal(other, each.value, why))
                for each in chains.decided(other)
            ]
            refused = combine(refused, one, _first)
        served_as = Op.WRITE if slot == Part.OVERWRITE else slot
        return self._combined(refused, self._served(chains, served_as, format_, linked=linked))

    def _served(
        self, chains: Chains, slot: int, format_: int, *, linked: bool
    ) -> list[Branch[Verdict]]:
        if slot in _COPYING:
            reasons = [
                Branch(each.tests, why_not_copied(each.value, slot)) for each in _opening(chains)
            ]
        elif slot in OPENING:
            reasons = self._opened(chains, format_, linked=linked)
        else:
            reasons = always(
                why_not_given(
                    self._policy, slot, chains.entries, format_, chains.treatment, linked=linked
                )
            )
            if format_ == stat.S_IFREG:
                opened = self._opened(chains, format_, linked=linked)
                reasons = combine(reasons, opened, _or_as_opens)
        decided = chains.decided(slot)
        if slot in AT_OPEN:
            decided = combine(decided, chains.possible(slot), _handled_at_open)
        return combine(decided, reasons, lambda option, why: self._verdict(slot, option, why))

    def _opened(self, chains: Chains, format_: int, *, linked: bool) -> list[Branch[str]]:
        """Why opens do not bypass."""
        policy, treatment = self._policy, chains.treatment
        return [
            Branch(
                each.tests, why_not_opened(policy, each.value, format_, treatment, linked=linked)
            )
            for each in _opening(chains)
        ]

    # --- in words ------------------------------------------------------------------------------

    def _verdict(self, slot: int, option: Option, why: str) -> Verdict:
        """Who serves *slot*, *why* being the reason for which the kernel does not."""
        rule, decision = option
        route = "daemon" if why else "kernel"
        if decision.kind is Kind.DENY:
            route, why = f"deny {errno_name(decision.errno)}", _DENIED.get(slot, "")
        elif decision.kind is Kind.HANDLE:
            route, why = "handler", ""
            if self._policy.rules.loaded.policy.handlers is None:
                route, why = "daemon", "the policy names no handlers"
            elif self._handled is not None and opcode_of(slot) not in self._handled:
                route, why = "daemon", f"the handlers do not serve {slot_name(slot)}"
        if slot in _MOVING and route == "daemon" and self._policy.rules.by_path:
            why += "; to names that are treated otherwise: EXDEV"
        return self._written(route, rule, slot, decision.kind, why)

    def _refusal(self, slot: int, option: Option, why: str) -> Verdict | None:
        rule, decision = option
        if decision.kind is not Kind.DENY:
            return None
        return self._written(f"deny {errno_name(decision.errno)}", rule, slot, decision.kind, why)

    def _written(
        self, route: str, rule: CompiledRule | None, slot: int, kind: Kind, why: str
    ) -> Verdict:
        place = place_of_decision(self._policy.rules.loaded, rule, slot, kind)
        return Verdict(route, rule_name(rule), place, why)

    def _hidden(self, rule: CompiledRule, number: int, why: str) -> Verdict:
        place = place_of_visibility(self._policy.rules.loaded, rule)
        return Verdict(f"deny {errno_name(number)}", rule_name(rule), place, why)

    @staticmethod
    def _combined(
        refused: Sequence[Branch[Verdict | None]], served: Sequence[Branch[Verdict]]
    ) -> list[Branch[Verdict]]:
        return combine(refused, served, lambda first, other: first or other)


def _opening(chains: Chains) -> list[Branch[dict[int, tuple[Option, ...]]]]:
    """What may be decided for the slots that opens depend on."""
    options: list[Branch[dict[int, tuple[Option, ...]]]] = always({})
    for each in OPENING:
        one = [Branch(found.tests, {each: found.value}) for found in chains.possible(each)]
        options = combine(options, one, lambda mine, more: mine | more)
    return options


def _or_as_opens(given: str, opened: str) -> str:
    """All opens of a file bypass that the kernel has the backing file of."""
    return given or (opened and f"opens would bypass, too: {opened}")


def _handled_at_open(option: Option, possible: tuple[Option, ...]) -> Option:
    """Requests on open files do not ask who opened them: one handler serves all of them."""
    if option.decision.kind is Kind.DENY:
        return option
    return next((each for each in possible if each.decision.kind is Kind.HANDLE), option)


def _first(one: Verdict | None, other: Verdict | None) -> Verdict | None:
    return one or other


def _stricter(one: Verdict, other: Verdict) -> Verdict:
    return other if other.strictness > one.strictness else one
