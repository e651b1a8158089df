"""Policies as a whole: what is merged from includes, and what is said about mistakes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.sizing import examples

from inopt.exceptions import UsageError
from inopt.policy.load import Loaded, load_policy, parse_policy, shipped_policies
from inopt.policy.model import Cache, PolicyFile
from inopt.policy.text.problems import PolicyError

GOOD = """\
version: 1
description: A policy that has a little of everything.
require: rw
otherwise: bypass
cache: {entry: 1s, attributes: 500ms, negative: 0s}
handlers: package.module:Class
rules:
  - name: no secrets
    match: {path: ['*.key', '!public.key'], type: file, mode: [setuid], size: {min: 1KiB, max: 5}}
    deny: {read: EPERM, write: EROFS}
  - match:
      owner: {user: [root, 1000], group: adm}
      caller: {exe: /usr/bin/*, not_user: nobody}
      xattr: {user.a: b, user.c: true}
    bypass: [read, write]
    handle: lookup
    visible: false
"""


def lines(text: str | bytes) -> list[str]:
    """What is said about a policy, without its name."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PolicyError) as caught:
        parse_policy(data, "p.yaml")
    assert caught.value.exit_code == 2
    told = str(caught.value).splitlines()
    assert all(line.startswith("p.yaml:") for line in told)
    return [line.removeprefix("p.yaml:") for line in told]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def names(loaded: Loaded) -> list[str]:
    return [rule.name for rule in loaded.policy.rules]


def test_everything() -> None:
    loaded = parse_policy(GOOD.encode(), "p.yaml")
    assert loaded.policy.rules[0].deny == {"read": "EPERM", "write": "EROFS"}
    assert loaded.policy.handlers == "package.module:Class"
    assert loaded.files == ("p.yaml",)


def test_line_endings_do_not_matter() -> None:
    loaded = parse_policy(GOOD.replace("\n", "\r\n").encode(), "p.yaml")
    assert loaded.policy == parse_policy(GOOD.encode(), "p.yaml").policy
    assert str(loaded.place("rules", 1, "handle")) == "p.yaml:16:13"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deny: wirte", "3:9: rule 1: deny: 'wirte' is no operation: did you mean 'write'?"),
        ("deny: [read, RAED]", "3:16: rule 1: deny: 'RAED' is no operation: did you mean 'read'?"),
        ("deny: {unlnk: EPERM}", "3:10: rule 1: deny: 'unlnk' is no operation: did you mean 'unl"),
        ("deny: {unlink: eprm}", "3:18: rule 1: deny.unlink: 'eprm' is no errno of a policy: did"),
        ("deny: xyzzy", "3:9: rule 1: deny: 'xyzzy' is no operation: docs/policy.md li"),
        ("deny: 3", "3:9: rule 1: deny: expected a word or a list or a mapping, found a number"),
        ("bypass: {read: EIO}", "3:11: rule 1: bypass: expected a word or a list, found a mapping"),
        ("byass: read", "3:3: rule 1: 'byass' is no field of a rule: did you mean 'bypass'?"),
        ("path: x", "3:3: rule 1: 'path' is no field of a rule: it belongs into 'match'"),
        ("zzz: x", "3:3: rule 1: 'zzz' is no field of a rule: remove it, or use one of 'name', '"),
        ("match: all", "3:10: rule 1: match: expected a mapping, found a text ('all'): its fields"),
        ("match: {typ: file}", "3:11: rule 1: match: 'typ' is no field here: did you mean 'type'?"),
        ("match: {type: fil}", "3:17: rule 1: match.type: 'fil' is none of the words here: did yo"),
        ("match: {path: []}", "3:17: rule 1: match.path: an empty list"),
        ("match: {path: ''}", "3:17: rule 1: match.path: an empty text"),
        ("match: {path: [a, 5]}", "3:21: rule 1: match.path: expected a text, found a number (5)"),
        ("match: {owner: {user: on}}", "3:25: rule 1: match.owner.user: expected a text or a whol"),
        ("match: {owner: {user: -1}}", "3:25: rule 1: match.owner.user: expected a number of at "),
        ("match: {owner: {user: 4294967296}}", "3:25: rule 1: match.owner.user: expected a numbe"),
        ("match: {owner: {user: 1.0}}", "3:25: rule 1: match.owner.user: expected a text or a wh"),
        ("match: {size: {min: 1XB}}", "3:23: rule 1: match.size.min: expected a size in bytes, s"),
        ("match: {size: {min: \"1K\\n\"}}", "3:23: rule 1: match.size.min: expected a size"),
        ("match: {xattr: {a: 1}}", "3:22: rule 1: match.xattr.a: expected a text or true or false"),
        ("match: {xattr: {'': x}}", "3:19: rule 1: match.xattr: an empty text"),
        ("match:\n    path: #x", "4:10: 'path' has no value: '#' begins a comment"),
        ("visible: 1", "3:12: rule 1: visible: expected true or false, found a number (1)"),
        (f"name: {'x' * 201}", "3:9: rule 1: name: 201 characters, where 200 are the most: short"),
    ],
)  # fmt: skip
def test_mistakes_in_a_rule(text: str, expected: str) -> None:
    told = lines(f"version: 1\nrules:\n- {text}\n")
    assert len(told) == 1, told
    assert told[0].startswith(expected), told[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("description: x\n", "1:1: 'version' is missing: begin the policy with 'version: 1'"),
        ("version: 2\n", "1:10: version: expected 1, found a number (2): this inopt reads no oth"),
        ("version: '1'\n", "1:10: version: expected 1, found a text ('1')"),
        ("- version: 1\n", "1:1: expected a mapping, found a list: its fields are version, descr"),
        ("just words\n", "1:1: expected a mapping, found a text ('just words')"),
        ("~\n", "1:1: expected a mapping, found nothing"),
        ("version: 1\nrequire: all\n", "2:10: require: 'all' is none of the words here: use 'ino"),
        ("version: 1\ncache: {entry: soon}\n", "2:16: cache.entry: expected a duration, such as "),
        ("version: 1\ncache: {entry: 5}\n", "2:16: cache.entry: expected a duration, such as 1s,"),
        ("version: 1\nhandlers: x\n", "2:11: handlers: expected the class that serves what is ha"),
        ("version: 1\nrules: {a: b}\n", "2:8: rules: expected a list, found a mapping: begin ea"),
    ],
)
def test_mistakes_outside_of_rules(text: str, expected: str) -> None:
    told = lines(text)
    assert len(told) == 1, told
    assert told[0].startswith(expected), told[0]


def test_all_at_once_and_by_place() -> None:
    told = lines(
        "version: 3\nrules:\n- deny: wirte\n- &a {nme: x}\n- {bypass: [raed, x y]}\n- {deny: }\n"
        "version: 1\nfoo: bar\n"
    )
    assert [line.split(": ")[0] for line in told] == [
        "1:10", "3:9", "4:7", "5:13", "5:19", "6:10", "7:1", "8:1",
    ]  # fmt: skip


def test_not_too_many() -> None:
    told = lines("version: 1\nrules:\n" + "- deny: x\n" * 3000)
    assert len(told) == 51
    assert told[0].startswith("3:9: ")
    assert told[49].startswith("52:9: ")
    assert told[50] == " and 2950 more"


def test_long_values_are_shortened() -> None:
    told = lines(f"version: 1\nrules: [{{deny: {'x' * 10_000}}}]\n")
    assert len(told[0]) < 300
    assert "(10000 characters)" in told[0]


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nrules: [{{deny: [{'x,' * 300_000}]}}]",
        f"version: 1\nrules: [{'[],' * 300_000}]",
        f"version: 1\nrules: [{{deny: [{'read,' * 300_000} x]}}]",
        "version: 1\n" + "".join(f"k{number}: 1\n" for number in range(200_000)),
    ],
)
def test_many_mistakes_take_not_long(text: str) -> None:
    assert lines(text)  # it took many minutes, more than a test is given


def calls_of(action: Callable[[], object]) -> int:
    """How many calls of functions an action makes, which no other work on the machine changes."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return calls


def test_ten_thousand_rules() -> None:
    rule = (
        "- {name: r, match: {path: '*.log', owner: {user: 7}}, bypass: read, deny: {unlink: EIO}}\n"
    )

    def parse(count: int) -> Loaded:
        return parse_policy(("version: 1\nrules:\n" + rule * count).encode(), "p.yaml")

    made = [calls_of(lambda: parse(count)) for count in (100, 1000)]  # noqa: B023
    assert made[1] < made[0] * 11, "ten times as many take ten times as much work"
    loaded = parse(10_000)
    assert len(loaded.policy.rules) == 10_000
    assert str(loaded.place("rules", 9999, "deny", "unlink", key=True)) == "p.yaml:10002:76"


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(
        tmp_path,
        main="version: 1\ninclude: [one.yaml, sub/two.yaml]\ncache: {negative: 9s}\n"
        "rules: [{name: main}]\n",
        one="version: 1\nrequire: rw\ndescription: one\ncache: {entry: 1m, attributes: 1m}\n"
        "rules: [{name: one-a}, {name: one-b, deny: [read, write]}]\n",
        three="version: 1\notherwise: deny\ndescription: three\nrules: [{name: three}]\n",
    )
    (tmp_path / "sub" / "two.yaml").write_text(
        "version: 1\ninclude: ../three.yaml\ndescription: two\n\ncache: {entry: 2m}\n"
        "rules: [{name: two}]\n"
    )
    main = str(tmp_path / "main.yaml")
    loaded = load_policy(main)
    assert names(loaded) == ["main", "two", "three", "one-a", "one-b"]
    policy = loaded.policy
    assert (policy.description, policy.require, policy.otherwise) == ("two", "rw", "deny")
    assert policy.cache == Cache("2m", "1m", "9s")
    assert policy.include == []
    files = ["main.yaml", "sub/two.yaml", "sub/../three.yaml", "one.yaml"]
    assert loaded.files == tuple(str(tmp_path / file) for file in files)
    assert loaded.path == main
    for steps, expected in [
        ((), "main.yaml:1:1"),
        (("rules", 0, "name"), "main.yaml:4:16"),
        (("rules", 1), "sub/two.yaml:6:9"),
        (("rules", 2, "name"), "sub/../three.yaml:4:16"),
        (("rules", 4, "deny", "write"), "one.yaml:5:51"),
        (("rules", 4, "deny", 0), "one.yaml:5:45"),
        (("rules", 5), "main.yaml:4:8"),
        (("require",), "one.yaml:2:10"),
        (("description",), "sub/two.yaml:3:14"),
        (("otherwise",), "sub/../three.yaml:2:12"),
        (("cache", "entry"), "sub/two.yaml:5:16"),
        (("cache", "attributes"), "one.yaml:4:32"),
        (("cache", "negative"), "main.yaml:3:19"),
        (("handlers",), "main.yaml:1:1"),
    ]:
        assert str(loaded.place(*steps)) == f"{tmp_path}/{expected}", steps
    assert str(loaded.place("rules", 4, "deny", key=True)) == f"{tmp_path}/one.yaml:5:38"


def test_layers_are_included(tmp_path: Path) -> None:
    write(
        tmp_path,
        main="version: 1\ninclude: [sub/base.yaml, sub/other.yaml]\n",
        base="version: 1\noverlay: {lower: base}\n",
        other="version: 1\noverlay: {lower: other}\n",
    )
    (tmp_path / "sub").mkdir()
    for name in ("base.yaml", "other.yaml"):
        (tmp_path / name).rename(tmp_path / "sub" / name)
    loaded = load_policy(str(tmp_path / "main.yaml"))
    assert loaded.policy.overlay is not None
    assert loaded.policy.overlay.lower == "other"
    # What its paths are relative to.
    assert loaded.place("overlay").path == str(tmp_path / "sub/other.yaml")


def test_what_is_included_twice_counts_where_it_wins(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="version: 1\ninclude: [b.yaml, c.yaml]\n",
        b="version: 1\ninclude: c.yaml\nrequire: none\nrules: [{name: b}]\n",
        c="version: 1\nrequire: rw\nrules: [{name: c}]\n",
    )
    assert names(load_policy(str(tmp_path / "a.yaml"))) == ["c", "b"]
    assert load_policy(str(tmp_path / "a.yaml")).policy.require == "rw"
    (tmp_path / "a.yaml").write_text("version: 1\ninclude: [c.yaml, b.yaml]\n")
    assert names(load_policy(str(tmp_path / "a.yaml"))) == ["b", "c"]
    assert load_policy(str(tmp_path / "a.yaml")).policy.require == "none"


def test_many_ways_to_one_file_are_walked_once(tmp_path: Path) -> None:
    for level in range(12):
        below = ", ".join([f"l{level + 1}.yaml"] * 20) if level < 11 else ""
        (tmp_path / f"l{level}.yaml").write_text(f"version: 1\ninclude: [{below}]\n")
    assert len(load_policy(str(tmp_path / "l0.yaml")).files) == 12


def test_shipped_policies_can_be_included(tmp_path: Path) -> None:
    assert "mirror" in shipped_policies()
    assert all(path.suffix == ".yaml" for path in shipped_policies().values())
    write(tmp_path, main="version: 1\ninclude: mirror\n")
    loaded = load_policy(str(tmp_path / "main.yaml"))
    assert loaded.files[1] == str(shipped_policies()["mirror"])
    assert loaded.policy == load_policy("mirror").policy
    (tmp_path / "mirror").write_text("version: 1\ndescription: mine\n")
    assert load_policy(str(tmp_path / "main.yaml")).policy.description == "mine"


def include_error(folder: Path, text: str) -> list[str]:
    write(folder, main=text)
    with pytest.raises(PolicyError) as caught:
        load_policy(str(folder / "main.yaml"))
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_bad_includes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    write(tmp_path, bad="version: 1\nrequire: x\nfoo: 1\n", good="version: 1\n")
    told = include_error(
        tmp_path,
        "version: 1\ninclude:\n  - none.yaml\n  - good.yaml\n  - folder\n  - pipe\n"
        '  - "a\\0b"\n  - bad.yaml\n  - ' + "x" * 300 + "\n",
    )
    assert sorted(line.split(": ")[0] for line in told) == [
        "bad.yaml:2:10", "bad.yaml:3:1", *(f"main.yaml:{line}:5" for line in (3, 5, 6, 7, 9)),
    ]  # fmt: skip
    assert any("'none.yaml' cannot be read: No such file" in line for line in told)
    assert any("no regular file" in line for line in told)


def test_circles(tmp_path: Path) -> None:
    (told,) = include_error(tmp_path, "version: 1\ninclude: main.yaml\n")
    assert told.startswith("main.yaml:2:10: include: 'main.yaml' includes 'main.yaml': ")
    write(
        tmp_path,
        b="version: 1\ninclude: [c.yaml]\n",
        c="version: 1\ninclude: [./main.yaml]\n",
    )
    (told,) = include_error(tmp_path, "version: 1\ninclude: b.yaml\n")
    assert told.startswith("c.yaml:2:11: include: 'main.yaml' includes 'b.yaml' includes 'c.yaml'")


@pytest.mark.parametrize("depth", [15, 16])
def test_depth(tmp_path: Path, depth: int) -> None:
    for level in range(1, depth):
        write(tmp_path, **{f"l{level}": f"version: 1\ninclude: l{level + 1}.yaml\n"})
    write(tmp_path, **{f"l{depth}": "version: 1\n", "main": "version: 1\ninclude: l1.yaml\n"})
    if depth == 15:
        assert len(load_policy(str(tmp_path / "main.yaml")).files) == 16
    else:
        (told,) = include_error(tmp_path, "version: 1\ninclude: l1.yaml\n")
        assert told.startswith("l15.yaml:2:10: include: deeper than 16 files")


@pytest.mark.parametrize("name", ["miror", "", "/none/such.yaml", "/", "a\0b", "x" * 5000])
def test_no_policy(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_policy(name)
    assert str(caught.value).startswith(f"policy {name!r}: ")


def parses_or_tells(data: bytes) -> None:
    error: PolicyError | None = None
    try:
        assert isinstance(parse_policy(data, "/none/p.yaml").policy, PolicyFile)
    except PolicyError as caught:
        error = caught
    if error is not None:
        assert error.problems
        told = str(error).encode().decode().splitlines()
        assert len(told) == len(error.problems) + bool(error.more)
        assert all(each.place.line >= 1 and each.place.column >= 1 for each in error.problems)


SOURCES = [GOOD.encode(), *(path.read_bytes() for path in shipped_policies().values())]
PIECES = [
    b"- ", b": ", b"\n", b"  ", b"&a ", b"*a", b"!", b"'", b'"', b"[", b"]", b"{", b"}", b"#",
    b"|\n", b"null", b"~", b"yes", b"1", b"-1", b"1.0", b"0x_", b"<<", b"\t", b"\r", b"\x00",
    b"\xff", b"?", b"\xef\xbb\xbf", b"---\n", b"...\n", b"%YAML 1.1\n", b"deny", b"rules",
    b"include", b"all", b"\xc2\x85", b"\xe2\x80\xa8", b'"\\ud800"',
    b"99999999999999999999999999999999999999999",
]  # fmt: skip


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
@example(b"a:\xc2\x85\xe2\x80\xa8 \n- #")
@example(b"? \n: ")
def test_arbitrary_bytes(data: bytes) -> None:
    parses_or_tells(data)


@settings(max_examples=examples(500), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_policies(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SOURCES))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(start + data.draw(st.integers(0, 20)), len(text))
        other = data.draw(st.integers(0, len(text)))
        text = data.draw(
            st.sampled_from(
                [
                    text[:start] + text[end:],
                    text[:end] + text[start:],
                    text[:start] + data.draw(st.sampled_from(PIECES)) + text[end:],
                    text[:start] + text[other : other + 20] + text[end:],
                ]
            )
        )
    parses_or_tells(text)
