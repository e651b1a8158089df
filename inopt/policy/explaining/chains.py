"""What rules decide for one name and type, as far as facts and caller are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from inopt.policy.callers import CallerTest
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.explaining.branches import Branch, Test, always, tidy
from inopt.policy.explaining.identity import Identity, holds
from inopt.policy.explaining.phrases import Phrase, phrases_of
from inopt.policy.explaining.reasons import Option
from inopt.policy.explaining.subjects import Subject
from inopt.policy.facts import Condition, ModeCondition, OwnerCondition, ReadXattr
from inopt.policy.paths.match import State
from inopt.policy.rules import CompiledRule

Facts: TypeAlias = Callable[[Condition], bool | None]
"""Whether a condition holds; None if nobody knows."""


def facts_of(subject: Subject) -> Facts:
    """The facts of an inode; nothing, if it is not there."""
    attributes, xattr = subject.attributes, subject.xattr
    if attributes is None:
        return lambda _condition: None
    return lambda condition: condition.holds(attributes, xattr)


class _New:
    """The attributes of an inode that is about to be made."""

    def __init__(self, caller: Identity | None) -> None:
        self.mode = 0
        self.uid = caller.uid if caller else -1
        self.gid = caller.gid if caller else -1
        self.size = 0


def facts_of_new(caller: Identity | None) -> Facts:
    """The facts of an inode that *caller* is about to make, with a mode that is not known."""
    attributes = _New(caller)
    none: ReadXattr = lambda _name: None  # noqa: E731

    def tell(condition: Condition) -> bool | None:
        if isinstance(condition, ModeCondition):
            return None
        if isinstance(condition, OwnerCondition) and caller is None:
            return None
        return condition.holds(attributes, none)

    return tell


class Chains:
    """The decisions for inodes of one type at one state.

    *phrases* takes up the tests that rules make here, in words.
    """

    def __init__(
        self,
        policy: CompiledPolicy,
        state: State,
        format_: int,
        facts: Facts,
        caller: Identity | None,
        phrases: dict[Test, Phrase],
    ) -> None:
        self.policy = policy
        self.treatment = policy.treatment(state, format_)
        self._rules = policy.rules_for(state, format_)
        self._facts = facts
        self._caller = caller
        for rule in self._rules:
            if rule.conditions or rule.caller:
                match = policy.rules.loaded.policy.rules[rule.index].match
                phrases.update(phrases_of(rule, match))

    def entries(self, slot: int) -> list[tuple[tuple[Test, ...], Option]]:
        """What may decide *slot*, in order, with all the tests that it takes."""
        return [
            ((*conditions, caller) if caller else conditions, Option(rule, decision))
            for rule, (conditions, caller), decision in self.policy.chain(self._rules, slot)
        ]

    def decided(self, slot: int) -> list[Branch[Option]]:
        """What is decided for *slot*."""
        return tidy(
            Branch(unknown, option)
            for tests, option in self.entries(slot)
            if (unknown := self._unknown(tests)) is not None
        )

    def possible(self, slot: int) -> list[Branch[tuple[Option, ...]]]:
        """What is decided for *slot* for one caller or another: branches by facts alone."""
        found: list[Branch[tuple[Option, ...]]] = always(())
        for tests, option in reversed(self.entries(slot)):
            asks = bool(tests) and isinstance(tests[-1], CallerTest)
            conditions = tests[:-1] if asks else tests
            unknown = self._unknown(conditions)
            if unknown is None:
                continue
            if asks:
                here = [Branch(unknown + each.tests, (option, *each.value)) for each in found]
            else:
                here = [Branch(unknown, (option,))]
            found = tidy(here + found)
        return found

    def hiding(self) -> list[Branch[CompiledRule | None]]:
        """The rule by which the inode is hidden; None where it is to be seen."""
        found: list[Branch[CompiledRule | None]] = []
        for rule in self._rules:
            if rule.visible is not None:
                unknown = self._unknown(rule.conditions)
                if unknown is not None:
                    found.append(Branch(unknown, None if rule.visible else rule))
        return tidy([*found, Branch((), None)])

    def _unknown(self, tests: Sequence[Test]) -> tuple[Test, ...] | None:
        """Those of *tests* of which nobody knows whether they hold; None if one does not."""
        unknown: list[Test] = []
        for test in tests:
            held = holds(test, self._caller) if isinstance(test, CallerTest) else self._facts(test)
            if held is False:
                return None
            if held is None:
                unknown.append(test)
        return tuple(unknown)


def chains_of(
    policy: CompiledPolicy,
    subject: Subject,
    state: State,
    caller: Identity | None,
    phrases: dict[Test, Phrase],
) -> Chains:
    """The decisions for an inode by its name at *state*."""
    return Chains(policy, state, subject.format, facts_of(subject), caller, phrases)
