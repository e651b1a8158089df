"""The JSON Schema of policies says what msgspec says, and is the one that is shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from support.sizing import examples

import inopt
from inopt.cli.schema import schema as command
from inopt.policy.load import shipped_policies
from inopt.policy.model import PolicyFile
from inopt.policy.text.complain import checked
from inopt.policy.text.document import Document
from inopt.policy.text.problems import PolicyError
from inopt.policy.text.schema import schema, validator
from inopt.policy.words import WORDS

SHIPPED = Path(inopt.__file__).parent.parent / "policies" / "policy.schema.json"

FIELDS = [
    "version", "description", "include", "require", "otherwise", "cache", "handlers", "rules",
    "entry", "attributes", "negative", "name", "match", "bypass", "handle", "deny", "visible",
    "path", "type", "owner", "mode", "xattr", "size", "caller", "user", "group", "min", "max",
    "exe", "cgroup", "not_user", "not_exe", "", "other",
]  # fmt: skip
VALUES: list[Any] = [
    1, 0, -1, 1.0, 0.5, True, False, 2**32, 2**32 - 1, 2**63, 2**64, 2**70, -(2**70), "", "1s",
    "1s\n", "5", "10MiB", "1.5K", "٣s", "1x", "bypass", "handle", "deny", "none", "rw", "inode",
    "read", "write", "unlink", "all", "EPERM", "EIO", "file", "directory", "setuid", "a.b:C",
    "a.b:C\n", "x" * 201, "x" * 4097, [], {}, "root",
]  # fmt: skip
WORD = st.sampled_from(["read", "write", "unlink", "all", "reed"])
SCALAR = st.sampled_from(VALUES)


def mapping(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with some of the fields, mostly as they should be."""
    return st.fixed_dictionaries(
        {}, optional={name: each | SCALAR for name, each in fields.items()}
    )


NAMES = st.sampled_from(["a", "", "*.log"]) | st.lists(st.sampled_from(["a", ""]), max_size=2)
WHO = st.sampled_from(["root", 5, "", -1]) | st.lists(st.sampled_from(["a", 7, 2**32]), max_size=2)
WORDS_GIVEN = WORD | st.lists(WORD, max_size=3)
RULE = mapping(
    name=st.just("r"),
    match=mapping(
        path=NAMES,
        type=st.sampled_from(["file", ["file", "fifo"], [], "fil"]),
        owner=mapping(user=WHO, group=WHO),
        mode=st.sampled_from(["setuid", ["setgid"], []]),
        xattr=NAMES | st.dictionaries(st.sampled_from(["user.a", ""]), SCALAR, max_size=2),
        size=mapping(min=SCALAR, max=SCALAR),
        caller=mapping(user=WHO, exe=NAMES, not_group=WHO, not_cgroup=NAMES),
    ),
    bypass=WORDS_GIVEN,
    handle=WORDS_GIVEN,
    deny=WORDS_GIVEN | st.dictionaries(WORD, st.sampled_from(["EIO", "EPERM", "EFOO"]), max_size=2),
    visible=st.booleans(),
)
POLICY = mapping(
    include=NAMES,
    require=st.sampled_from(["none", "rw"]),
    otherwise=st.sampled_from(["bypass", "deny"]),
    cache=mapping(entry=SCALAR, attributes=st.just("1m"), negative=st.just("0s")),
    handlers=st.just("a.b:C"),
    rules=st.lists(RULE, max_size=2),
).map(lambda content: {"version": 1} | content)
ANYTHING = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)


def accepted(content: Any) -> bool:
    try:
        msgspec.convert(content, PolicyFile)
    except msgspec.ValidationError:
        return False
    return True


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(schema())


def test_the_words_stand_in_it_once() -> None:
    text = json.dumps(schema())
    assert text.count('"copy_file_range_64"') == 1
    assert text.count('"ENOTEMPTY"') == 1
    assert set(schema()["definitions"]["Operation"]["enum"]) == set(WORDS)
    assert "null" not in text
    assert "``" not in text
    assert "$defs" not in text


def test_it_is_the_one_that_is_shipped() -> None:
    assert json.loads(SHIPPED.read_text()) == schema(), (
        "the types have changed: inopt schema -o policies/policy.schema.json"
    )


def test_command(tmp_path: Path) -> None:
    printed = CliRunner().invoke(command, [])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == schema()
    assert CliRunner().invoke(command, ["-o", str(tmp_path / "s.json")]).output == ""
    assert (tmp_path / "s.json").read_text() == printed.output == SHIPPED.read_text()
    failed = CliRunner().invoke(command, ["-o", str(tmp_path / "none" / "s.json")])
    assert "none/s.json: cannot be written: No such file" in str(failed.exception)


@pytest.mark.parametrize("path", shipped_policies().values(), ids=lambda path: str(path.name))
def test_shipped_policies_are_valid(path: Path) -> None:
    content = Document(path.read_bytes(), str(path)).content
    Draft7Validator(schema()).validate(content)
    assert accepted(content)


@pytest.mark.parametrize("value", VALUES)
def test_every_value_at_every_field(value: Any) -> None:
    rules: list[dict[str, Any]] = [
        {field: value} for field in schema()["definitions"]["Rule"]["properties"]
    ]
    rules += [{"match": {field: value}} for field in schema()["definitions"]["Match"]["properties"]]
    rules += [{"match": {"size": {"min": value}}}, {"match": {"owner": {"user": [value]}}}]
    rules += [{"deny": {"read": value}}, {"deny": [value]}, {"match": {"xattr": {"a": value}}}]
    if isinstance(value, str):
        rules += [{"deny": {value: "EIO"}}, {"match": {"xattr": {value: "a"}}}]
    contents: list[Any] = [{"version": 1, "rules": [rule]} for rule in rules]
    contents += [{"version": 1} | {field: value} for field in schema()["properties"]]
    contents += [{"version": 1, "cache": {"entry": value}}, value, [value]]
    for content in contents:
        assert validator().is_valid(content) == accepted(content), content


@settings(max_examples=examples(600), deadline=None, suppress_health_check=list(HealthCheck))
@given(POLICY | ANYTHING)
def test_it_accepts_what_msgspec_accepts(content: Any) -> None:
    assert validator().is_valid(content) == accepted(content)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(POLICY | ANYTHING)
def test_every_mistake_is_told_in_a_line(content: Any) -> None:
    # JSON is YAML but for its lone surrogates and numbers without a point.
    document = Document(json.dumps(content).encode(), "p.yaml")
    right = accepted(document.content) and not document.problems
    if right:
        checked(document)
        return
    with pytest.raises(PolicyError) as caught:
        checked(document)
    assert caught.value.problems
    for problem in caught.value.problems:
        assert problem.message.isprintable(), problem
        assert len(problem.message) < 400, problem
        assert "Expected" not in problem.message  # msgspec's words, the last resort
