"""The path matcher against pathspec, and what callers rely on beyond single answers."""

import gc
import os
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern
from support.sizing import examples

from inopt.policy.paths.globs import GlobIndex
from inopt.policy.paths.match import Matcher, State, matches
from inopt.policy.paths.pattern import EDGE, Glob, PatternError, check_pattern, parse_pattern

# What a newline is for pathspec, whose expressions treat a true one as the end of a line.
NEWLINE = "\ue000"


def accepted(pattern: str) -> bool:
    try:
        check_pattern(pattern)
    except PatternError:
        return False
    return True


NAME = st.one_of(
    st.sampled_from(["a", "b", "ab", "a.c", ".b", "c", "b\n", "ab-b"]),
    st.text(st.sampled_from("abc.-\né\udc80*#! \\]"), min_size=1, max_size=4),
).filter(lambda name: name not in (".", ".."))
PATH = st.lists(NAME, min_size=1, max_size=4)
PIECE = st.sampled_from(
    ["a", "b", "ab", "*", "*", "?", ".", "-", "é", "\n", "\udc80", " ", "#", "!", "]", "\\*",
     "\\a", "\\#", "\\!", "\\\\", "\\[", "\\ ", "[ab]", "[!a]", "[^b-c]", "[]-]", "[*-b]", "[a\\]"]
)  # fmt: skip
SEGMENT = st.one_of(
    st.sampled_from(["a", "b", "ab", "*", "**", "**", "*b", "a*"]),
    st.lists(PIECE, min_size=1, max_size=4).map("".join),
).filter(lambda segment: segment.strip("*") != "" or len(segment) < 3)
PATTERN = st.builds(
    lambda negation, anchor, segments, end: negation + anchor + "/".join(segments) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(SEGMENT, min_size=1, max_size=4),
    st.sampled_from(["", "", "/"]),
).filter(accepted)
LISTS = st.lists(st.lists(PATTERN, min_size=1, max_size=4), min_size=1, max_size=4)


def without_slashes(expression: str) -> str:
    """A regular expression of pathspec, with classes that match no slash."""
    found, place = "", 0
    while place < len(expression):
        if expression[place] == "\\":
            end = place + 2
        elif expression[place] == "[" and not expression.startswith("[^/]", place):
            start = place + 1 + (expression[place + 1] == "^")
            end = expression.index("]", start + 1) + 1
            found += "(?!/)"
        else:
            end = place + 1
        found += expression[place:end]
        place = end
    return found


class Oracle:
    def __init__(self, lists: list[list[str]]) -> None:
        self.lists = [[self._compile(pattern) for pattern in patterns] for patterns in lists]

    def _compile(self, pattern: str) -> tuple[re.Pattern[str], bool]:
        text = pattern if pattern.endswith("\\ ") else pattern.rstrip()
        expression, include = GitIgnoreSpecPattern.pattern_to_regex(text.replace("\n", NEWLINE))
        assert expression is not None
        assert include is not None
        return re.compile(without_slashes(expression)), include

    def matched(self, names: list[str], *, directory: bool) -> tuple[int, ...]:
        path = "/".join(names).replace("\n", NEWLINE) + "/" * directory
        found = []
        for index, patterns in enumerate(self.lists):
            verdicts = [include for pattern, include in patterns if pattern.search(path)]
            if verdicts and verdicts[-1]:
                found.append(index)
        return tuple(found)


def walk(state: State, names: list[str]) -> State:
    for name in names:
        state = state.step(os.fsencode(name))
    return state


@settings(max_examples=examples(1000), deadline=None)
@given(LISTS, st.lists(PATH, min_size=1, max_size=12))
@example([["a/**", "!a/b/**", "a/b/c"]], [["a", "b"], ["a", "b", "c"], ["a", "b", "x", "c"]])
@example([["**/a/**/b/*"], ["!x", "a"]], [["a", "b"], ["a", "b", "c"], ["b", "a", "a", "b", "c"]])
@example([["*"], ["**"], ["/**"], ["*/"], ["**/"], ["/*"]], [["a"], ["a", "b"]])
def test_it_answers_as_pathspec_does(lists: list[list[str]], paths: list[list[str]]) -> None:
    matcher, oracle = Matcher(lists), Oracle(lists)
    for names in paths:
        state = walk(matcher.start, names)
        assert state.matched == oracle.matched(names, directory=False)
        assert state.matched_directory == oracle.matched(names, directory=True)
        assert matches(matcher, "/" + "/".join(names)) == state.matched


@settings(max_examples=examples(400), deadline=None)
@given(LISTS, PATH, PATH, st.lists(PATH, min_size=1, max_size=8))
@example([["a/**", "!a/b"], ["**/c"]], ["a", "b"], ["b"], [["c"], ["a", "b"]])
@example([["*.c", "!b", "a/*"]], ["a", "b"], ["b"], [["a.c"], ["a"]])
def test_paths_of_one_state_are_alike_beneath(
    lists: list[list[str]], one: list[str], other: list[str], suffixes: list[list[str]]
) -> None:
    matcher, oracle = Matcher(lists), Oracle(lists)
    state = walk(matcher.start, one)
    assert walk(matcher.start, one) is state
    assume(walk(matcher.start, other) is state)
    for directory in (False, True):
        assert oracle.matched(one, directory=directory) == oracle.matched(
            other, directory=directory
        )
        for suffix in suffixes:
            there = oracle.matched([*one, *suffix], directory=directory)
            assert there == oracle.matched([*other, *suffix], directory=directory)


@settings(max_examples=examples(500), deadline=None)
@given(LISTS, st.sets(st.integers(0, 3)), PATH, st.lists(PATH, min_size=1, max_size=20))
def test_nothing_watched_matches_where_nothing_is_watched(
    lists: list[list[str]], watched: set[int], directory: list[str], suffixes: list[list[str]]
) -> None:
    matcher, oracle = Matcher(lists, watched), Oracle(lists)
    for depth in range(len(directory) + 1):
        names = directory[:depth]
        if walk(matcher.start, names).watched_below:
            continue
        for suffix in suffixes:
            for is_directory in (False, True):
                found = oracle.matched([*names, *suffix], directory=is_directory)
                assert not watched.intersection(found)


def test_what_is_watched_below() -> None:
    lists = [["/secret/**", "!/secret/open/**"], ["*.key", "!public"], ["/home/*/x"]]

    def below(path: str, *watched: int) -> bool:
        return walk(Matcher(lists, watched).start, path.split()).watched_below

    assert not below("")
    assert below("", 0)
    assert below("secret", 0)
    assert below("secret other", 0)
    assert not below("secret open", 0)
    assert not below("elsewhere", 0)
    assert below("elsewhere", 1)
    assert not below("public", 1)
    assert not below("public deep.key", 1)
    assert below("home", 2)
    assert below("home me", 2)
    assert not below("home me y", 2)
    assert not below("home me y", 0, 2)


def test_paths_that_are_treated_alike_share_a_state() -> None:
    start = Matcher([["/a/b/*.c"], ["**/*.log"], ["/t/**", "!/t/u"], ["!*.md", "/t/v"]]).start
    elsewhere = walk(start, ["x"])
    assert elsewhere is walk(start, ["y", "z"])
    assert elsewhere is walk(start, ["a", "c", "b"])
    assert elsewhere is walk(start, ["t", "u"]), "what is left out again is as if never in"
    assert elsewhere is walk(start, ["r.md"])
    assert elsewhere is not walk(start, ["a"])
    assert walk(start, ["x.log"]) is walk(start, ["y", "z.log", "w"])
    assert walk(start, ["t", "w"]) is walk(start, ["t", "x", "v"])
    assert walk(start, ["t", "x.log"]) is walk(start, ["t", "w", "y.log", "v"])


def test_a_state_remembers_what_is_kept_in_it() -> None:
    start = Matcher([["*.log"]]).start
    walk(start, ["a"]).cache = "plan"
    assert walk(start, ["b", "c"]).cache == "plan"
    assert walk(start, ["b.log"]).cache is None


def test_names_are_bytes() -> None:
    start = Matcher([["?"], ["é*"], ["[!a]"], ["x\ny"]]).start
    assert start.step(b"\xff").matched == (0, 2)
    assert start.step("é".encode()).matched == (0, 1, 2)
    assert start.step(b"\xc3").matched == (0, 2)
    assert start.step(b"\n").matched == (0, 2)
    assert start.step(b"x\ny").matched == (3,)
    assert start.step(b"x\ny\n").matched == ()


def test_the_root_is_matched_by_nothing() -> None:
    start = Matcher([["**"], ["/*"], ["*/"]], [0]).start
    assert start.matched == start.matched_directory == ()
    assert start.watched_below
    assert matches(start.matcher, "/") == ()


def test_states_go_when_nobody_has_them() -> None:
    matcher = Matcher([[f"n{number}"] for number in range(3000)])
    for number in range(3000):
        matcher.start.step(b"n%d" % number).step(b"n%d" % (number // 2))
    gc.collect()
    assert len(matcher) < 1100


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(SEGMENT.filter(accepted), max_size=30), st.lists(NAME, min_size=1, max_size=10))
def test_the_index_finds_what_asking_each_finds(segments: list[str], names: list[str]) -> None:
    parsed = [parse_pattern(f"/{segment}").segments[0] for segment in segments]
    globs = {glob.source: glob for glob in parsed if isinstance(glob, Glob)}
    index = GlobIndex((glob, source) for source, glob in globs.items())
    for name in names:
        found: list[str] = []
        index.find(name, found)
        expected = {s for s, glob in globs.items() if glob.matches(f"{EDGE}{name}{EDGE}")}
        assert set(found) == expected
        assert expected == {s for s in globs if re.fullmatch(s, name, re.DOTALL)}


def test_many_rules_are_told_apart() -> None:
    lists = [
        [pattern.format(number)]
        for number in range(300)
        for pattern in (
            "/d{}/**",
            "*.e{}",
            "/h/*/p{}/*.log",
            "p{}-*",
            "*m{}*",
            "[xy]q{}?",
            "*a{}*b",
        )
    ]
    matcher = Matcher(lists)
    found = matches(matcher, "h/me/p17/p29-m123xa5xb.log")
    assert {lists[index][0] for index in found} == {
        "/h/*/p17/*.log", "p29-*", "*m1*", "*m12*", "*m123*",
    }  # fmt: skip
    found = matches(matcher, "d7/yq20z/a12b.e99")
    assert {lists[index][0] for index in found} == {"/d7/**", "*.e99", "[xy]q20?"}
    found = matches(matcher, "a12ab")
    assert {lists[index][0] for index in found} == {"*a1*b", "*a12*b"}


def test_no_name_takes_forever() -> None:
    start = Matcher([["*a*a*a*a*a*a*a*[b]"], ["*a*a*a*a*a*a*a*b*c"], ["*?a*?a*?a*?a*?a*c"]]).start
    assert start.step(b"a" * 255).matched == ()


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "empty"),
        (" \t", "empty"),
        ("/", "root"),
        ("!/", "root"),
        ("!", "negated"),
        ("#a", "comment"),
        ("./a", "'.'"),
        ("a/.", "'.'"),
        ("a/../b", "'..'"),
        ("\\..", "'..'"),
        ("..", "'..'"),
        ("a//b", "two slashes"),
        ("//a", "two slashes"),
        ("a//", "two slashes"),
        ("a[b", "not closed"),
        ("[]", "not closed"),
        ("[!]", "not closed"),
        ("a[b/c]", "not closed"),
        ("[c-a]", "c-a runs backwards"),
        ("[[:alpha:]]", "[:alpha:]"),
        ("a\\", "backslash"),
        ("a\\  ", "backslash"),
        ("a\\/b", "backslash"),
        ("a\0", "NUL"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=re.escape(reason)) as caught:
        check_pattern(pattern)
    assert caught.value.reason in str(caught.value)
    assert caught.value.fix in str(caught.value)
    assert (caught.value.list_index, caught.value.pattern_index) == (-1, -1)
    with pytest.raises(PatternError) as caught:
        Matcher([["a"], ["b", "!c", pattern]])
    assert (caught.value.list_index, caught.value.pattern_index) == (1, 2)


def test_threads_get_the_same_objects() -> None:
    lists = [[f"*.e{number % 7}", "!keep", f"/d{number}/**/x*"] for number in range(50)]
    paths = [
        [f"d{number % 50}", "keep" if number % 3 else "y", f"x.e{number % 9}", "z"]
        for number in range(500)
    ]
    for _ in range(10):
        matcher = Matcher(lists)
        together = Barrier(4)

        def work(
            first: int, matcher: Matcher = matcher, together: Barrier = together
        ) -> dict[int, State]:
            together.wait()
            order = [(first * 125 + number) % 500 for number in range(500)]
            return {number: walk(matcher.start, paths[number]) for number in order}

        with ThreadPoolExecutor(4) as pool:
            first, *others = pool.map(work, range(4))
        for other in others:
            assert all(first[number] is other[number] for number in first)
        oracle = Oracle(lists)
        for number in range(0, 500, 50):
            assert first[number].matched == oracle.matched(paths[number], directory=False)
