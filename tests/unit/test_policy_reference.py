"""The compiled policy against an evaluator that is slow and obviously right."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import policies
from support.reference import SLOTS as REFERENCE_SLOTS
from support.reference import UNHANDLED, Asker, Facts, Reference, Verdict, seconds_of, size_of
from support.reference import WORDS as REFERENCE_WORDS
from support.sizing import STRESS

from inopt.ops import Op, OpsMask
from inopt.policy import model, words
from inopt.policy.callers import Caller, caller_test_of
from inopt.policy.compiled import CompiledPolicy, Joint
from inopt.policy.facts import TYPES
from inopt.policy.load import parse_policy
from inopt.policy.model import PolicyFile, seconds, size_in_bytes
from inopt.policy.paths.match import State
from inopt.policy.plan import CONDITIONAL, DAEMON, HANDLER, KERNEL, Plan, merge
from inopt.policy.rules import compile_rules
from inopt.policy.text.problems import PolicyError
from inopt.policy.words import Part

_EXAMPLES: Final = 2000 if STRESS else 60
_SETTINGS: Final = settings(
    max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)
_NUMBERS: Final[dict[str, int]] = {
    **{op.name.lower(): int(op) for op in Op},
    **{part.name.lower(): int(part) for part in Part},
}
_ALL: Final = OpsMask((1 << 64) - 1)
_KERNEL: Final = OpsMask.of(
    Op.LOOKUP, Op.GETATTR, Op.STATX, Op.SETATTR, Op.OPEN, Op.READDIR, Op.READLINK, Op.GETXATTR
)

# --- what is asked about ------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Something in a tree."""

    names: tuple[str, ...]
    kind: str
    facts: Facts

    @property
    def path(self) -> str:
        return "/" + "/".join(self.names)


class Known(Caller):
    """A caller of whom all is known without a process."""

    __slots__ = ("_asker",)

    def __init__(self, asker: Asker) -> None:
        super().__init__(asker.uid, 0, 0)
        self._asker = asker

    @property
    def groups(self) -> frozenset[int]:
        return self._asker.groups

    @property
    def exe(self) -> str:
        return self._asker.exe

    @property
    def cgroup(self) -> str:
        return self._asker.cgroup


class Attributes:
    """`Facts` in the form that conditions look at."""

    def __init__(self, kind: str, facts: Facts) -> None:
        self.mode = TYPES[kind] | facts.mode
        self.uid = facts.uid
        self.gid = facts.gid
        self.size = facts.size


names = st.lists(st.sampled_from(policies.NAMES), min_size=1, max_size=3).map(tuple)
facts = st.builds(
    Facts,
    mode=st.sampled_from(policies.MODES),
    uid=st.sampled_from(policies.IDS),
    gid=st.sampled_from(policies.IDS),
    size=st.sampled_from(policies.SIZES),
    xattrs=st.dictionaries(
        st.sampled_from(policies.XATTRS),
        st.sampled_from(policies.VALUES).map(str.encode),
        max_size=2,
    ),
)
# Mostly of the types that there mostly are.
kinds = st.one_of(st.sampled_from(["file", "directory"]), st.sampled_from(policies.KINDS))
entries = st.one_of(
    st.builds(Entry, names, kinds, facts),
    st.builds(Entry, st.just(()), st.just("directory"), facts),
)
trees = st.lists(entries, min_size=1, max_size=6)
askers = st.lists(
    st.builds(
        Asker,
        st.sampled_from(policies.IDS),
        st.frozensets(st.sampled_from(policies.IDS), min_size=1),
        st.sampled_from(policies.EXES),
        st.sampled_from(policies.CGROUPS),
    ),
    min_size=1,
    max_size=3,
)


class Engine:
    """What is tested, at one tier."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.policy = policy

    def state(self, path_names: tuple[str, ...]) -> State:
        state = self.policy.start
        for name in path_names:
            state = state.step(os.fsencode(name))
        return state

    def plan(self, entry: Entry, *, linked: bool = False) -> Plan:
        return self.policy.plan(
            self.state(entry.names),
            Attributes(entry.kind, entry.facts),
            entry.facts.xattrs.get,
            linked=linked,
        )


def compiled(given_policy: policies.Policy) -> tuple[Reference, dict[str, Engine]]:
    """A policy through the whole chain, by tier, and the reference for it."""
    text = yaml.safe_dump(given_policy)
    loaded = parse_policy(text.encode(), "random.yaml")
    parsed = msgspec.convert(given_policy, PolicyFile)
    assert loaded.policy == parsed
    rules = compile_rules(loaded)
    tiers = {"none": (False, OpsMask()), "rw": (True, OpsMask()), "inode": (True, _KERNEL)}
    return Reference(parsed), {
        tier: Engine(CompiledPolicy(rules, reads_and_writes=bypass, kernel=kernel))
        for tier, (bypass, kernel) in tiers.items()
    }


def verdict_of(code: int) -> Verdict:
    """A plan's code in the reference's terms."""
    if code > 0:
        return code
    assert code in (DAEMON, KERNEL, HANDLER)
    return "handle" if code == HANDLER else "bypass"


def rank(code: int) -> int:
    """How strict a code is."""
    return 3 if code > 0 else {HANDLER: 2, DAEMON: 1, KERNEL: 0}[code]


def mask_of(plan: Plan) -> set[str]:
    return {op.name.lower() for op in plan.mask}


# --- plans ---------------------------------------------------------------------------------------


def test_words_cover_what_the_semantics_say() -> None:
    decidable = {words.slot_name(slot) for slot in words.SLOTS}
    assert decidable == REFERENCE_SLOTS
    assert {words.slot_name(slot) for slot in words.NEVER_HANDLED} & decidable == UNHANDLED
    for word, covered in REFERENCE_WORDS.items():
        theirs = {words.slot_name(slot) for slot in words.WORDS[word]}
        assert theirs & decidable == covered, word
    # The other words are of nothing that can be decided.
    for word in words.WORDS.keys() - REFERENCE_WORDS.keys():
        assert words.WORDS[word] <= words.NEVER_DENIED.keys(), word


@_SETTINGS
@given(policies.policies, trees, askers)
@example(
    {"version": 1, "rules": [{"deny": {"create": "EIO", "all": "EPERM", "namespace": "ENOSPC"}}]},
    [Entry(("a",), "file", Facts())], [Asker(0, frozenset({0}))],
)  # fmt: skip
def test_codes_and_hiding(policy: policies.Policy, tree: list[Entry], people: list[Asker]) -> None:
    reference, engines = compiled(policy)
    for entry in tree:
        plans = {tier: engine.plan(entry) for tier, engine in engines.items()}
        for plan in plans.values():
            assert plan.hidden == reference.hidden(entry.path, entry.kind, entry.facts)
        for slot in policies.ALL_SLOTS:
            for asker in people:
                expected = reference.decide(slot, entry.path, entry.kind, entry.facts, asker)
                for tier, plan in plans.items():
                    got = verdict_of(plan.code(_NUMBERS[slot], Known(asker)))
                    assert got == expected, (slot, tier, entry, asker)


@_SETTINGS
@given(policies.policies, trees)
@example(
    {"version": 1, "rules": [{"match": {"caller": {"user": 1001}}, "handle": "read"}]},
    [Entry(("a",), "file", Facts())],
)  # fmt: skip
def test_what_bypasses(policy: policies.Policy, tree: list[Entry]) -> None:
    reference, engines = compiled(policy)
    for entry in tree:
        place = (entry.path, entry.kind)
        for tier, engine in engines.items():
            plan = engine.plan(entry)
            if tier == "none":
                assert not plan.bypasses
            else:
                assert plan.bypasses <= reference.may_bypass(*place, entry.facts), entry
                assert plan.bypasses >= reference.must_bypass(*place, entry.facts), entry
            # What the daemon only is to tell apart must come to it.
            if not reference.is_free("mmap", *place, entry.facts):
                assert plan.direct
            if plan.direct or plan.direct_writers:
                assert not plan.bypasses
            assert not (plan.direct and reference.is_sure("mmap", *place, entry.facts))
            assert not (plan.direct_writers and reference.is_sure("overwrite", *place, entry.facts))
            if tier == "inode":
                known = {op.name.lower() for op in _KERNEL}
                assert mask_of(plan) <= reference.may_mask(*place) & known, entry
                assert mask_of(plan) >= reference.must_mask(*place) & known, entry
            else:
                assert not plan.mask


@_SETTINGS
@given(policies.policies, trees)
def test_what_overwriting_needs(policy: policies.Policy, tree: list[Entry]) -> None:
    """Whoever may write but not overwrite has opens without a page cache."""
    reference, engines = compiled(policy)
    for entry in tree:
        place = (entry.path, entry.kind, entry.facts)
        for engine in engines.values():
            assert engine.plan(entry).direct_writers >= reference.guards(*place)


@_SETTINGS
@given(policies.policies, names, kinds, st.lists(facts, min_size=2, max_size=4), askers)
def test_what_may_be_cached(
    policy: policies.Policy,
    path: tuple[str, ...],
    kind: str,
    several: list[Facts],
    people: list[Asker],
) -> None:
    """Neither names nor attributes are cached that somebody, or another moment, must not have."""
    reference, engines = compiled(policy)
    where = Entry(path, kind, several[0]).path
    found = {
        (reference.hidden(where, kind, each), reference.decide("lookup", where, kind, each, asker))
        for each in several
        for asker in people
    }
    told = {
        reference.decide("getattr", where, kind, each, asker)
        for each in several
        for asker in people
    }
    free = not reference.asks_facts(where, kind) and not reference.asks_caller(where, kind)
    for engine in engines.values():
        for each in several:
            plan = engine.plan(Entry(path, kind, each))
            assert plan.unsure or len(found) == 1
            # What is made where it cannot be looked up must not stay in the kernel's cache.
            assert plan.unsure or all(isinstance(lookup, str) for _, lookup in found)
            assert plan.attributes_unsure or told == {"bypass"}
            if free:
                assert not plan.depends_on_facts
                if reference.decide("lookup", where, kind, each, people[0]) == "bypass":
                    assert not plan.unsure


@_SETTINGS
@given(policies.policies, names, facts, st.lists(entries, min_size=1, max_size=5))
@example(
    {"version": 1, "rules": [{"match": {"path": "a/b"}, "visible": False}]},
    ("a",), Facts(), [Entry(("b",), "file", Facts())],
)  # fmt: skip
@example(
    {"version": 1, "rules": [{"match": {"path": "/a/", "type": "file"}, "visible": False}]},
    ("a",), Facts(), [Entry(("b",), "file", Facts())],
)  # fmt: skip
def test_listings_that_the_kernel_makes_hide_nothing(
    policy: policies.Policy, path: tuple[str, ...], own: Facts, beneath: list[Entry]
) -> None:
    reference, engines = compiled(policy)
    engines["inode"].plan(Entry(("elsewhere",), "directory", own))  # not to be mistaken for it
    plan = engines["inode"].plan(Entry(path, "directory", own))
    for entry in beneath:
        child = Entry((*path, (entry.names or ("a",))[0]), entry.kind, entry.facts)
        if reference.hidden(child.path, child.kind, child.facts):
            assert Op.READDIR not in plan.mask, child
            for engine in engines.values():
                assert engine.policy.hides
                assert engine.policy.may_hide(engine.state(child.names)), child


@_SETTINGS
@given(policies.policies, trees)
def test_plans_are_shared(policy: policies.Policy, tree: list[Entry]) -> None:
    _, engines = compiled(policy)
    for engine in engines.values():
        plans: dict[Plan, Plan] = {}
        for linked in (False, True):
            for entry in tree:
                plan = engine.plan(entry, linked=linked)
                assert engine.plan(entry, linked=linked) is plan
                assert plans.setdefault(plan, plan) is plan
        assert len(engine.policy._plans) <= 2 * len(tree)


# --- several names ------------------------------------------------------------------------------


@_SETTINGS
@given(policies.policies, trees, askers)
def test_links_only_lose(policy: policies.Policy, tree: list[Entry], people: list[Asker]) -> None:
    _, engines = compiled(policy)
    for engine in engines.values():
        for entry in tree:
            alone, linked = engine.plan(entry), engine.plan(entry, linked=True)
            assert linked.bypasses <= alone.bypasses
            assert not linked.mask - alone.mask
            assert linked.hidden == alone.hidden
            for slot in policies.ALL_SLOTS:
                for asker in people:
                    number = _NUMBERS[slot]
                    codes = [plan.code(number, Known(asker)) for plan in (alone, linked)]
                    assert verdict_of(codes[0]) == verdict_of(codes[1]), (slot, entry)
                    assert rank(codes[1]) >= rank(codes[0])


_LINKABLE: Final = st.sampled_from([kind for kind in policies.KINDS if kind != "directory"])


@_SETTINGS
@given(policies.policies, st.lists(names, min_size=2, max_size=4), _LINKABLE, facts, trees)
@example(
    {"version": 1, "otherwise": "handle", "rules": [{"match": {"path": "a"}, "bypass": "all"}]},
    [("a",), ("b",)], "file", Facts(), [],
)  # fmt: skip
@example(
    {"version": 1, "rules": [{"match": {"path": "a"}, "deny": "statx"}]},
    [("a",), ("b",)], "file", Facts(), [],
)  # fmt: skip
@example(
    {"version": 1,
     "rules": [{"match": {"path": "a", "type": "file"}, "handle": "read"}]},
    [("a",), ("b",)], "file", Facts(), [Entry(("b",), "fifo", Facts())],
)  # fmt: skip
def test_linked_inodes_bypass_only_what_they_may_by_every_name(
    policy: policies.Policy,
    paths: list[tuple[str, ...]],
    kind: str,
    own: Facts,
    earlier: list[Entry],
) -> None:
    """A bypass cannot be taken back when another name turns up (whatever was asked earlier)."""
    reference, engines = compiled(policy)
    where = [Entry(path, kind, own) for path in paths]
    may_bypass = all(reference.may_bypass(each.path, kind, own) for each in where)
    may_mask = set.intersection(*(reference.may_mask(each.path, kind) for each in where))
    for engine in engines.values():
        for entry in earlier:
            engine.plan(entry, linked=entry.kind != "directory")
        for each in where:
            plan = engine.plan(each, linked=True)
            assert not plan.bypasses or may_bypass, each
            assert mask_of(plan) <= may_mask, each


@_SETTINGS
@given(
    policies.policies,
    st.lists(names, min_size=2, max_size=3, unique=True),
    _LINKABLE,
    facts,
    askers,
)
def test_several_names_are_as_strict_as_the_strictest(
    policy: policies.Policy,
    paths: list[tuple[str, ...]],
    kind: str,
    own: Facts,
    people: list[Asker],
) -> None:
    reference, engines = compiled(policy)
    for engine in engines.values():
        position: Any = engine.state(paths[0])
        for path in paths[1:]:
            position = engine.policy.join(position, engine.state(path))
        if isinstance(position, Joint):
            # Whatever the order in which names become known.
            assert engine.policy.join(position, engine.state(paths[0])) is position
        joined = engine.policy.plan(position, Attributes(kind, own), own.xattrs.get, linked=True)
        where = ["/" + "/".join(path) for path in paths]
        assert joined.hidden == all(reference.hidden(each, kind, own) for each in where)
        assert joined.bypasses <= all(reference.may_bypass(each, kind, own) for each in where)
        assert mask_of(joined) <= set.intersection(*(reference.may_mask(e, kind) for e in where))
        for slot in policies.ALL_SLOTS:
            for asker in people:
                each = [reference.decide(slot, at, kind, own, asker) for at in where]
                denied = {verdict for verdict in each if isinstance(verdict, int)}
                got = verdict_of(joined.code(_NUMBERS[slot], Known(asker)))
                if denied:
                    assert got in denied
                else:
                    assert got == ("handle" if "handle" in each else "bypass")


@_SETTINGS
@given(policies.policies, trees, askers)
def test_merging_is_strictest_and_commutes(
    policy: policies.Policy, tree: list[Entry], people: list[Asker]
) -> None:
    _, engines = compiled(policy)
    for engine in engines.values():
        plans = [engine.plan(entry) for entry in tree]
        for one in plans:
            assert merge(one, one) == one
            for other in plans:
                both, turned = merge(one, other), merge(other, one)
                for field in Plan.__struct_fields__:
                    if field not in ("codes", "choices"):
                        assert getattr(both, field) == getattr(turned, field), field
                assert both.bypasses == (one.bypasses and other.bypasses)
                assert both.mask == one.mask & other.mask
                for slot in range(len(both.codes)):
                    for asker in map(Known, people):
                        codes = [plan.code(slot, asker) for plan in (one, other)]
                        got = both.code(slot, asker)
                        assert rank(got) >= max(map(rank, codes)), (slot, codes, got)
                        assert got <= 0 or got in codes
                        if slot not in (Op.READ, Op.WRITE, Part.MMAP, *_ALL):
                            assert rank(got) == max(map(rank, codes))
                        # Which errno it is may depend on the order.
                        assert rank(got) == rank(turned.code(slot, asker))
                        assert verdict_of(got) == "bypass" or got != KERNEL


# --- places that are treated alike --------------------------------------------------------------


@_SETTINGS
@given(
    policies.policies, st.lists(names, min_size=2, max_size=5), st.lists(facts, max_size=3), askers
)
def test_equal_treatments_are_equal(
    policy: policies.Policy, paths: list[tuple[str, ...]], several: list[Facts], people: list[Asker]
) -> None:
    """What a rename or a link of a file relies on."""
    reference, engines = compiled(policy)
    engine = engines["inode"].policy
    for kind in policies.KINDS:
        treatments: dict[int, str] = {}
        for path in paths:
            where = "/" + "/".join(path)
            treatment = engine.treatment(engines["inode"].state(path), TYPES[kind])
            assert engine.treatment(engines["inode"].state(path), TYPES[kind]) is treatment
            twin = treatments.setdefault(id(treatment), where)
            if twin != where:
                assert_alike(reference, kind, twin, where, several, people)


@_SETTINGS
@given(
    policies.policies,
    st.lists(names, min_size=2, max_size=5),
    st.lists(names, min_size=1, max_size=4),
    kinds,
    facts,
    askers,
)
def test_equal_states_have_equal_futures(
    policy: policies.Policy,
    paths: list[tuple[str, ...]],
    suffixes: list[tuple[str, ...]],
    kind: str,
    own: Facts,
    people: list[Asker],
) -> None:
    """What a rename of a directory relies on."""
    reference, engines = compiled(policy)
    states: dict[State, str] = {}
    for path in paths:
        where = "/" + "/".join(path)
        twin = states.setdefault(engines["rw"].state(path), where)
        if twin == where:
            continue
        assert_alike(reference, "directory", twin, where, [own], people)
        for suffix in suffixes:
            end = "/" + "/".join(suffix)
            assert_alike(reference, kind, twin + end, where + end, [own], people)


def assert_alike(
    reference: Reference, kind: str, one: str, other: str, several: list[Facts], people: list[Asker]
) -> None:
    """The reference says the same of both places."""
    for each in several:
        assert reference.hidden(one, kind, each) == reference.hidden(other, kind, each), (
            one,
            other,
        )
        for slot in policies.ALL_SLOTS:
            for asker in people:
                assert reference.decide(slot, one, kind, each, asker) == reference.decide(
                    slot, other, kind, each, asker
                ), (slot, kind, one, other)


# --- parts --------------------------------------------------------------------------------------


@_SETTINGS
@given(policies.callers, askers)
@example({"group": 2000}, [Asker(1001, frozenset({1001, 2000}))])
@example({"not_group": [2000]}, [Asker(1001, frozenset({1001, 2000}))])
def test_caller_tests(given_caller: dict[str, Any], people: list[Asker]) -> None:
    policy = msgspec.convert(
        {"version": 1, "rules": [{"match": {"caller": given_caller}, "deny": {"open": "EPERM"}}]},
        PolicyFile,
    )
    test = caller_test_of(msgspec.convert(given_caller, model.Caller))
    for asker in people:
        verdict = Reference(policy).decide("open", "/a", "file", Facts(), asker)
        assert test.holds(Known(asker)) == (verdict == errno.EPERM), asker


def test_callers_of_whom_nothing_is_known_match_no_pattern() -> None:
    nobody = Caller(0, 0, 0)
    assert (nobody.exe, nobody.cgroup, nobody.groups) == ("", "", frozenset({0}))
    for given_caller, holds in (
        ({"exe": "**"}, False),
        ({"cgroup": ["**", "/"][:1]}, False),
        ({"not_exe": "**"}, True),
        ({"not_cgroup": "**"}, True),
        ({}, True),
    ):
        assert caller_test_of(msgspec.convert(given_caller, model.Caller)).holds(nobody) == holds


def test_this_process_as_caller() -> None:
    own = Caller(os.getuid(), os.getgid(), os.getpid())
    assert own.exe == os.path.realpath("/proc/self/exe")
    assert own.groups == {os.getgid(), *os.getgroups()}
    test = caller_test_of(msgspec.convert({"exe": own.exe, "user": os.getuid()}, model.Caller))
    assert test.holds(own)
    assert not test.holds(Caller(os.getuid() + 1, os.getgid(), os.getpid()))


@_SETTINGS
@given(policies.facts_asked, st.sampled_from(policies.KINDS), facts)
def test_facts(asked: dict[str, Any], kind: str, own: Facts) -> None:
    policy = {"version": 1, "rules": [{"match": asked, "deny": {"open": "EPERM"}}]}
    reference, engines = compiled(policy)
    nobody = Asker(0, frozenset({0}))
    expected = reference.decide("open", "/a", kind, own, nobody)
    plan = engines["none"].plan(Entry(("a",), kind, own))
    assert verdict_of(plan.codes[Op.OPEN]) == expected
    assert plan.codes[Op.OPEN] != CONDITIONAL


_units = st.sampled_from(["", "B", "K", "KiB", "kB", "M", "MiB", "MB", "G", "GiB", "GB", "T", "TiB",
                          "TB"])  # fmt: skip
_digits = st.text("0123456789", min_size=1, max_size=15)
_fractions = st.one_of(
    st.just(""), st.text("0123456789", min_size=1, max_size=9).map(lambda digits: f".{digits}")
)


@_SETTINGS
@given(st.one_of(st.builds("{}{}{}".format, _digits, _fractions, _units), st.integers(0, 1 << 63)))
@example("1.001kB")
@example("999999999999999.9TB")
@example(10**16)
def test_sizes(size: str | int) -> None:
    assert size_in_bytes(size) == size_of(size)


@_SETTINGS
@given(
    st.builds(
        "{}{}{}".format,
        st.text("0123456789", min_size=1, max_size=9),
        _fractions,
        st.sampled_from(["ms", "s", "m", "h", "d"]),
    )
)
def test_durations(duration: str) -> None:
    assert seconds(duration) == pytest.approx(float(seconds_of(duration)))


def _wrong() -> Iterator[str]:
    yield from ("", " ", "1 s", "-1s", "1S", "1e3s", ".5s", "1.s", "1s\n", "s", "1", "٣s", "1ss")
    yield from ("1234567890s", "1.0123456789s", "0x1s", "1_0s", "inf", "nan")


@pytest.mark.parametrize("text", list(_wrong()))
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize(
    "text",
    ["", "K", "-1", "1 K", "1k", "1e3", "1.K", ".5K", "1K\n", "0x10", "1Ki", "٣", "1_0", "1iB"],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        size_in_bytes(text)


@pytest.mark.parametrize("size", [10**15, 10**16, 1 << 63])
def test_large_sizes_compile(size: int) -> None:
    policy = {"version": 1, "rules": [{"match": {"size": {"min": size}}, "deny": "open"}]}
    _, engines = compiled(policy)
    for actual, denied in ((size - 1, False), (size, True)):
        plan = engines["none"].plan(Entry(("a",), "file", Facts(size=actual)))
        assert (plan.codes[Op.OPEN] > 0) == denied


def test_unknown_people_are_told_by_place() -> None:
    text = b"version: 1\nrules:\n- match: {owner: {user: rooot}}\n  deny: open\n"
    with pytest.raises(PolicyError, match=r"no user 'rooot'.*did you mean 'root'") as caught:
        compile_rules(parse_policy(text, "x.yaml"))
    assert caught.value.problems[0].place.line == 3


def test_formats_are_types() -> None:
    assert set(TYPES) == set(policies.KINDS)
    assert all(stat.S_IFMT(bits) == bits for bits in TYPES.values())
