"""YAML to plain values and places: what is read, where it stands, what is refused."""

from __future__ import annotations

import pytest
import yaml

from inopt.policy.text import nodes
from inopt.policy.text.document import Document
from inopt.policy.text.problems import PolicyError, Problems


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers of PyYAML: not everybody has libyaml."""
    name: str = request.param
    monkeypatch.setattr(nodes, "_LOADER", getattr(yaml, name))
    return name


def read(text: str | bytes) -> Document:
    data = text if isinstance(text, bytes) else text.encode()
    return Document(data, "p.yaml")


def refusal(text: str | bytes) -> str:
    """What is said about *text*, which cannot be read, in one line."""
    with pytest.raises(PolicyError) as caught:
        read(text)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def noted(text: str) -> list[str]:
    """What is said about *text*, which can be read."""
    problems: Problems = read(text).problems
    return str(problems.error()).splitlines() if problems else []


@pytest.mark.parametrize(
    "text",
    ["a: 1", "[1, -2, 0x10, 0b11, 010, 1_000, 1:30, 0]", "[1.5, .5, 1e+3, -.inf, 1:30.5]",
     "[yes, No, TRUE, off, y, n]", "['1', \"yes\", 'null', '']", "{a: {b: [c, {d: e}]}}",
     "[a b, a-b, a:b, '#a', a#b, 0_]", "a: |\n  one\n  two\n", "a: >-\n  one\n  two\n",
     "\r\na: 1\r\nb: 2\r\n", "--- \na: 1\n...\n", "!!str 1", "? a\n: b\n",
     "[! 1, !!map {}, !!seq []]"],
)  # fmt: skip
def test_values_are_those_of_pyyaml(text: str) -> None:
    assert read(text).content == yaml.safe_load(text)
    assert noted(text) == []


def test_dates_and_their_like_stay_text() -> None:
    assert read("[2001-01-01, 2001-01-01T00:00:00Z, 0x_, 0b_, <<, =]").content == [
        "2001-01-01", "2001-01-01T00:00:00Z", "0x_", "0b_", "<<", "=",
    ]  # fmt: skip


def test_places() -> None:
    document = read("a: 1\nb:\n  - x\n  - {y: z,  w: [p, q]}\n'c' :  d\n")
    for steps, value, key in [
        ((), "1:1", "1:1"),
        (("a",), "1:4", "1:1"),
        (("b",), "3:3", "2:1"),
        (("b", 0), "3:5", "3:5"),
        (("b", 1, "y"), "4:9", "4:6"),
        (("b", 1, "w", 1), "4:20", "4:20"),
        (("b", 1, "w", "q"), "4:20", "4:20"),
        (("c",), "5:8", "5:1"),
        (("b", 7, "w"), "3:3", "3:3"),
        (("b", -1), "3:3", "3:3"),
        (("c", "d", 3), "5:8", "5:8"),
        (("none",), "1:1", "1:1"),
    ]:
        assert str(document.place(*steps)) == f"p.yaml:{value}", steps
        assert str(document.place(*steps, key=True)) == f"p.yaml:{key}", steps
    assert document.written("a") == "1"
    assert document.written("b") is None
    assert document.written("none") is None


def test_a_bom_is_not_counted() -> None:
    document = read(b"\xef\xbb\xbfa: b\n")
    assert document.content == {"a": "b"}
    assert str(document.place("a")) == "p.yaml:1:4"


def test_columns_count_characters() -> None:
    assert str(read("{ä€😀: b}").place("ä€😀")) == "p.yaml:1:7"


def test_aliases() -> None:
    document = read("- &a {x: 1}\n- *a\n- [*a, &b t, *b]\n")
    assert document.content == [{"x": 1}, {"x": 1}, [{"x": 1}, "t", "t"]]
    assert str(document.place(1)) == "p.yaml:2:3"
    assert str(document.place(1, "x")) == "p.yaml:1:10"
    assert document.problems.error().problems == ()


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "1:1", "empty: a policy begins with 'version: 1'"),
        ("# only this\n", "1:1", "empty"),
        ("---\n", "1:1", "empty"),
        ("a: 1\n---\nb: 2\n", "2:1", "second document"),
        ("a: [1\nb: 2", "2:2", "not YAML: "),
        ("a:\n\tb: 1\n", "2:1", "indent with spaces, not with tabs"),
        ("a: @b\n", "1:4", "put a text that begins with '@' in quotes"),
        ("a: *.log\n", "1:5", "put a text that begins with '*' in quotes"),
        ("a: *log\n", "1:4", "in quotes: '*log'"),
        ("a: b: c\n", "1:5", "': ' in quotes"),
        ("a: 'b\n", "2:1", "close the quotes"),
        ("a: &a [*a]\n", "1:8", "it would never end"),
        ("a: [&a 1, &a 2]\n", "1:11", "'&a' stands twice"),
        ("? [a]\n: 1\n", "1:3", "a key is a text"),
        ("? {a: b}\n: 1\n", "1:3", "a key is a text"),
        ("&a a: &b c\n*b : 1\n", "2:1", "a key is a text"),
        ("a: \x00", "1:4", "control character '\\x00'"),
        ("a: b\n  \x1b[1m", "2:3", "control character '\\x1b'"),
        (b"a: \xff", "1:4", "byte 0xff is not UTF-8"),
        ("ä: 1\nöö: ".encode() + b"\xc3", "2:5", "byte 0xc3 is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1", "not UTF-8"),
        ("[" * 100_000, "1:51", "nested deeper than 50"),
        ("- " * 100_000, "1:101", "nested deeper than 50"),
        ("{a: " * 100_000, "1:201", "nested deeper than 50"),
        (b"#" * ((8 << 20) + 1), "1:1", "larger than 8 MiB: not a policy"),
    ],
)
def test_refused(text: str | bytes, where: str, what: str, loader: str) -> None:
    message = refusal(text)
    assert what in message
    if loader == "CSafeLoader" or "not YAML: " not in message:  # the other has other columns
        assert message.startswith(f"p.yaml:{where}: ")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", ["3:1: 'a' stands twice, first in line 1: remove one of them"]),
        ("{a: {b: 1, b: 1}, a: }", ["1:12: 'b' stands twice", "1:19: 'a' stands twice", "1:22: "]),
        ("x: &m {a: 1}\ny: {<<: *m}\n", ["2:5: '<<' merges nothing"]),
        ("1: a\n", ["1:1: a key is a text: put 1 in quotes"]),
        ("yes: a\n", ["1:1: a key is a text: put yes in quotes"]),
        ("a: !log\n", ["1:4: '!log' is a tag"]),
        ("a: !!python/object:os.system [x]\n", ["1:4: 'tag:yaml.org,2002:python"]),
        ("a: !!binary YQ==\n", ["1:4: "]),
        ("a:\n", ["1:3: 'a' has no value: give one, or remove it"]),
        ("a: null\n", ["1:4: 'a' has no value: put null in quotes if it is a text"]),
        ("a: #b\n", ["1:3: 'a' has no value: '#' begins a comment"]),
        ("- ~\n", ["1:3: this item has no value"]),
        (f"a: {'9' * 5000}\n", ["1:4: a number of 5000 characters"]),
        ("&a b: c\n", ["1:1: a key takes no anchor"]),
    ],
)
def test_noted_and_read_past(text: str, lines: list[str], loader: str) -> None:
    found = noted(text)
    assert len(found) == len(lines), found
    for line, expected in zip(found, lines, strict=True):
        if loader == "CSafeLoader" or "no value" not in line:
            assert line.startswith(f"p.yaml:{expected}")


@pytest.mark.parametrize("text", ['{a: "\\ud800"}', '{"\\udfff": a}', '["\\ud83d\\ude00"]'])
def test_surrogates(text: str, loader: str) -> None:
    # libyaml refuses them, the parser in Python lets them pass.
    message = refusal(text) if loader == "CSafeLoader" else noted(text)[0]
    assert message.startswith("p.yaml:1:")
    message.encode()


def bomb(levels: int, width: int) -> str:
    lines = [f"- &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join(["- &a0 [x]", *lines])


@pytest.mark.parametrize(
    "text",
    [
        bomb(40, 9),
        bomb(3000, 1),
        "- &a [" + "x, " * 2000 + "]\n" + "- *a\n" * 2000,
        "- &a '" + "x" * 1_000_000 + "'\n" + "- *a\n" * 1000,
    ],
)
def test_bombs(text: str) -> None:
    assert "aliases expanded" in refusal(text)  # expanded, it would take hours


def test_hostile_numbers_take_no_time() -> None:
    # Read as numbers, these would take hours.
    for number in (
        "9" * 2_000_000,
        "0x" + "f" * 2_000_000,
        "1" + ":59" * 500_000,
        "1." + "9" * 10**6,
    ):
        assert "characters, where 32 are enough" in noted(f"a: {number}")[0]
