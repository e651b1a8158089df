"""A policy as one session runs on it: from a path's state, a type and facts to a plan."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final, TypeAlias

from inopt.ops import Op, OpsMask
from inopt.policy.callers import CallerTest
from inopt.policy.facts import Attributes, Condition, ReadXattr
from inopt.policy.paths.match import State
from inopt.policy.plan import NEEDED, Outcome, Plan, make_plan, merge
from inopt.policy.rules import CompiledRule, Decision, Kind, Rules
from inopt.policy.words import WORDS, Part

_ALL_SLOTS: Final[tuple[int, ...]] = tuple(sorted(WORDS["all"]))
# What the kernel is not given of a directory whose attributes are to be cached.
ATTRIBUTES: Final = OpsMask.of(Op.GETATTR, Op.STATX)
_VISIBLE: Final = -1  # the chain that tells whether an inode is to be seen

# What an inode must not have: opcodes in its mask, and opens that bypass.
_Loss: TypeAlias = tuple[OpsMask, bool]
_NO_LOSS: Final[_Loss] = (OpsMask(), False)

# Conditions and caller (None: anybody) under which a decision is made; visibility is a bool.
Link: TypeAlias = tuple[tuple[Condition, ...], CallerTest | None, Decision | bool]
Chain: TypeAlias = tuple[Link, ...]


class Treatment:
    """What a policy says about one kind of inode: those with the same rules and the same type.

    Two inodes with the same treatment (the same object) may take each other's place: nothing
    that a rule promises changes. ``conditions`` are the facts that decisions depend on.
    """

    __slots__ = (
        "chains", "conditions", "lists_all", "opens_handled", "plans", "settled",
        "stays_bypassed",
    )  # fmt: skip

    def __init__(self, chains: dict[int, Chain], *, lists_all: bool) -> None:
        self.chains = chains
        self.lists_all = lists_all
        found: dict[Condition, None] = {}
        for chain in chains.values():
            for conditions, _, _ in chain:
                found |= dict.fromkeys(conditions)
        self.conditions = tuple(found)
        self.settled = frozenset(
            slot
            for slot, chain in chains.items()
            if slot != _VISIBLE and not any(conditions for conditions, _, _ in chain)
        )
        self.stays_bypassed = not _may_lose_bypass(chains)
        # A handler of OPEN may not want an open to bypass.
        self.opens_handled = any(
            isinstance(decision, Decision) and decision.kind is Kind.HANDLE
            for _, _, decision in chains[Op.OPEN]
        )
        self.plans: dict[tuple[int, _Loss, OpsMask, bool], Plan] = {}


_BYPASS: Final = Decision(Kind.BYPASS)


def _may_lose_bypass(chains: dict[int, Chain]) -> bool:
    """Whether a change of facts may forbid the bypass of an inode that is open by then.

    That it may no longer be written is no such change: that is decided at open.
    """
    refused = {link[:2] for link in chains[Op.WRITE] if link[2] != _BYPASS}
    for slot in (Op.READ, Op.WRITE, Part.OVERWRITE, Part.MMAP):
        chain = chains[slot]
        if not any(conditions for conditions, _, _ in chain):
            continue
        for conditions, caller, decision in chain:
            if not isinstance(decision, Decision) or decision.kind is Kind.BYPASS:
                continue
            if decision.kind is Kind.HANDLE or slot == Part.MMAP:
                return True
            if slot == Part.OVERWRITE and (conditions, caller) not in refused:
                return True
    return False


class Joint:
    """The place of an inode that is known by names in several places."""

    __slots__ = ("states",)

    def __init__(self, states: tuple[State, ...]) -> None:
        self.states = states


Position: TypeAlias = State | Joint


class CompiledPolicy:
    """The rules of a policy for one tier.

    *kernel* is what the kernel takes in an ops_mask; *reads_and_writes*, whether opens bypass.
    """

    def __init__(self, rules: Rules, *, reads_and_writes: bool, kernel: OpsMask) -> None:
        self.rules = rules
        self.reads_and_writes = reads_and_writes
        self.kernel = kernel
        self.start: State = rules.matcher.start
        self.is_trivial = not rules.rules and rules.otherwise.kind is Kind.BYPASS
        self._treatments: dict[object, Treatment] = {}
        self._by_rules: dict[tuple[object, ...], Treatment] = {}
        self._plans: dict[Plan, Plan] = {}
        self._joints: dict[frozenset[State], Joint] = {}
        self.touched = rules.touched
        self.hides = any(rule.visible is False for rule in rules.rules)
        self._hides_anywhere = any(rule.visible is False for rule in rules.everywhere)
        self._linked = {format_: self._loses_when_linked(format_) for format_ in _FORMATS}
        self.directories_are_cached = rules.loaded.policy.cache.directory_attributes == "cached"

    # --- which rules ---------------------------------------------------------------------------

    def rules_for(self, state: State, format_: int) -> list[CompiledRule]:
        """The rules about an inode at *state* with this type, in order.

        *format_* is ``S_IFMT`` of its mode.
        """
        places = state.matched_directory if format_ == stat.S_IFDIR else state.matched
        found = [self.rules.by_path[place] for place in places]
        if self.rules.everywhere:
            found = sorted(found + self.rules.everywhere, key=lambda rule: rule.index)
        return [rule for rule in found if format_ in rule.types]

    def layer(self, state: State) -> int:
        """The lower layer that is looked at first for what is at *state*; 0 for none."""
        for rule in self.rules_for(state, stat.S_IFREG):
            if rule.layer is not None:
                return rule.layer
        return 0

    def handles(self, slot: int) -> bool:
        """Whether a handler may serve *slot* for some inode."""
        return self.rules.default(slot).kind is Kind.HANDLE or any(
            decision is not None and decision.kind is Kind.HANDLE
            for decision in (rule.decisions.get(slot) for rule in self.rules.rules)
        )

    def may_hide(self, state: State) -> bool:
        """Whether what is found at *state* may be hidden, depending on its type and facts."""
        if self._hides_anywhere:
            return True
        by_path = self.rules.by_path
        return any(
            by_path[place].visible is False for place in (*state.matched, *state.matched_directory)
        )

    def treatment(self, state: State, format_: int) -> Treatment:
        """How inodes at *state* with this type are treated. Equal treatments are one object."""
        cache = state.cache
        if cache is None or cache[0] is not self:
            cache = state.cache = (self, {})
        found: Treatment | None = cache[1].get(format_)
        if found is None:
            found = cache[1][format_] = self._treatment(state, format_)
        return found

    def _treatment(self, state: State, format_: int) -> Treatment:
        rules = self.rules_for(state, format_)
        lists_all = format_ != stat.S_IFDIR or not (state.watched_below or self._hides_anywhere)
        by_rules = (lists_all, *(rule.index for rule in rules))
        if by_rules in self._by_rules:
            return self._by_rules[by_rules]
        chains: dict[int, Chain] = {
            slot: tuple((*how, decision) for _, how, decision in self.chain(rules, slot))
            for slot in _ALL_SLOTS
        }
        chains[_VISIBLE] = _visibility(rules)
        treatment = Treatment(chains, lists_all=lists_all)
        key = (lists_all, tuple(chains.items()))
        treatment = self._treatments.setdefault(key, treatment)
        self._by_rules[by_rules] = treatment
        return treatment

    def chain(
        self, rules: list[CompiledRule], slot: int
    ) -> Iterator[tuple[CompiledRule | None, tuple[tuple[Condition, ...], CallerTest | None],
                        Decision]]:  # fmt: skip
        """Who decides *slot*, in order, until one decides it whatever the facts are.

        The rule is None for what nobody decides otherwise.
        """
        for rule in rules:
            decision = rule.decisions.get(slot)
            if decision is not None:
                yield rule, (rule.conditions, rule.caller), decision
                if not rule.conditions and rule.caller is None:
                    return
        yield None, ((), None), self.rules.default(slot)

    # --- which plan ----------------------------------------------------------------------------

    def plan(
        self, position: Position, attributes: Attributes, xattr: ReadXattr, *, linked: bool
    ) -> Plan:
        """The plan of an inode. *linked*: it has, or may have, further names not known here."""
        if isinstance(position, Joint):
            plan: Plan | None = None
            for state in position.states:
                one = self.plan(state, attributes, xattr, linked=True)
                plan = one if plan is None else self._intern(merge(plan, one))
            assert plan is not None  # noqa: S101 - a joint has states
            return plan
        format_ = stat.S_IFMT(attributes.mode)
        treatment = self.treatment(position, format_)
        facts = 0
        for place, condition in enumerate(treatment.conditions):
            if condition.holds(attributes, xattr):
                facts |= 1 << place
        # Types that are treated alike may still lose differently.
        loss = self._linked[format_] if linked else _NO_LOSS
        is_cached = format_ == stat.S_IFDIR and self.directories_are_cached
        cached = ATTRIBUTES if is_cached else OpsMask()
        is_regular = format_ == stat.S_IFREG
        key = (facts, loss, cached, is_regular)
        plan = treatment.plans.get(key)
        if plan is None:
            plan = self._make(treatment, facts, loss, cached, is_regular=is_regular)
            treatment.plans[key] = plan
        return plan

    def _make(
        self, treatment: Treatment, facts: int, loss: _Loss, cached: OpsMask, *, is_regular: bool
    ) -> Plan:
        true = {
            condition for place, condition in enumerate(treatment.conditions) if facts >> place & 1
        }
        outcomes = {
            slot: _outcome(chain, true)
            for slot, chain in treatment.chains.items()
            if slot != _VISIBLE
        }
        visible = next(
            shown
            for conditions, _, shown in treatment.chains[_VISIBLE]
            if true.issuperset(conditions)
        )
        settled = treatment.settled
        if any(conditions for conditions, _, _ in treatment.chains[_VISIBLE]):
            settled -= {int(Op.LOOKUP)}
        return self._intern(
            make_plan(
                outcomes,
                self.kernel - loss[0],
                cached=cached,
                reads_and_writes=(
                    self.reads_and_writes and treatment.stays_bypassed and not loss[1]
                ),
                hidden=not visible,
                settled=settled,
                lists_all=treatment.lists_all,
                # All opens of a regular file bypass, once the kernel has its backing file.
                attachable=not is_regular or not treatment.opens_handled,
                is_regular=is_regular,
                depends_on_facts=bool(treatment.conditions),
            )
        )

    def _intern(self, plan: Plan) -> Plan:
        return self._plans.setdefault(plan, plan)

    def lost_when_linked(self, format_: int) -> tuple[OpsMask, bool]:
        """What an inode with several names does without: opcodes of its mask, and the bypass."""
        return self._linked[format_]

    def _loses_when_linked(self, format_: int) -> _Loss:
        """What an inode must not have while another of its names may be treated more strictly.

        A mask cannot be narrowed, and opens that bypass cannot become others. Another name may
        fall under a rule by path, or may lack one that lets this name bypass.
        """
        if format_ == stat.S_IFDIR:
            return _NO_LOSS  # it has one name
        rules = [rule for rule in self.rules.rules if format_ in rule.types]

        def elsewhere(slot: int) -> set[Kind]:
            deciding = [rule for rule in rules if slot in rule.decisions]
            if not any(rule.patterns for rule in deciding):
                return {Kind.BYPASS}  # the same by every name
            kinds = {rule.decisions[slot].kind for rule in deciding}
            return kinds | {self.rules.default(slot).kind}

        lost = (
            op
            for op, slots in NEEDED.items()
            if any(elsewhere(slot) != {Kind.BYPASS} for slot in slots)
        )
        handled = any(Kind.HANDLE in elsewhere(slot) for slot in (Op.READ, Op.WRITE))
        unmapped = elsewhere(Part.MMAP) != {Kind.BYPASS}
        # Who may not write at all is refused when opening.
        guarded = elsewhere(Part.OVERWRITE) != {Kind.BYPASS} and any(
            rule.decisions.get(Part.OVERWRITE, _BYPASS)
            not in (_BYPASS, rule.decisions.get(Op.WRITE))
            for rule in rules
        )
        return OpsMask.of(*lost), handled or unmapped or guarded

    # --- several names -------------------------------------------------------------------------

    def join(self, position: Position, state: State) -> Position:
        """The position of an inode that is also known by a name at *state*."""
        states = position.states if isinstance(position, Joint) else (position,)
        if state in states:
            return position
        key = frozenset((*states, state))
        return self._joints.setdefault(key, Joint((*states, state)))


_FORMATS: Final = (
    stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK,
    stat.S_IFCHR,
)  # fmt: skip


def _visibility(rules: list[CompiledRule]) -> Chain:
    chain: list[Link] = []
    for rule in rules:
        if rule.visible is not None:
            chain.append((rule.conditions, None, rule.visible))
            if not rule.conditions:
                return tuple(chain)
    return (*chain, ((), None, True))


def _outcome(chain: Chain, true: set[Condition]) -> Outcome:
    """What is left of a chain once the facts are known."""
    outcome: list[tuple[CallerTest | None, Decision]] = []
    for conditions, caller, decision in chain:
        if isinstance(decision, Decision) and true.issuperset(conditions):
            outcome.append((caller, decision))
            if caller is None:
                break
    return tuple(outcome)
