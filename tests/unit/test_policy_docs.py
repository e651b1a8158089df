"""docs/policy.md says what is the case: words, errnos, codes, examples, recipes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

import pytest
import yaml
from support.linting import ALL_OPCODES

import inopt
from inopt.exceptions import UsageError
from inopt.handlers.audit import AuditHandlers
from inopt.handlers.running import served_by
from inopt.ops import Op
from inopt.policy import model
from inopt.policy.linting.findings import CODES, Finding, Level
from inopt.policy.linting.linter import lint
from inopt.policy.load import parse_policy
from inopt.policy.rules import compile_rules
from inopt.policy.words import GROUP_WORDS, WORDS, slot_name

TEXT: Final = (Path(inopt.__file__).parent.parent / "docs/policy.md").read_text(encoding="utf-8")
SECTIONS: Final = dict(re.findall(r"^### (INO\d{3}) .*\n((?:(?!#).*\n)*)", TEXT, re.MULTILINE))
EXAMPLES: Final = {
    code: found[1]
    for code, section in SECTIONS.items()
    if (found := re.search(r"Example:\s`([^`]+)`", section))
}
# What is found elsewhere than in a policy's text alone.
WITHOUT: Final = {"INO001", "INO002", "INO003", "INO211", "INO212", "INO310"}
RECIPES: Final = re.findall(r"```yaml\n(.*?)```", TEXT.partition("## Recipes")[2], re.DOTALL)
METHODS: Final = {"unlink": frozenset({Op.UNLINK}), "rename": frozenset({Op.RENAME, Op.RENAME2})}
CLASSES: Final = {"INO111": None, "INO112": frozenset({Op.READ}), "INO309": frozenset({Op.READ})}


def between(mark: str) -> str:
    return TEXT.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]


def linted(text: str, handled_by: frozenset[int] | None) -> list[Finding]:
    given = {"version": 1} | yaml.safe_load(text)
    rules = compile_rules(parse_policy(yaml.safe_dump(given).encode(), "p.yaml"))
    return lint(rules, handled_by, METHODS if "m:C" in text else {})


def words_table() -> str:
    """The table of words; it stands in docs/policy.md."""
    groups = ["read", "write", "metadata", "namespace", "xattr", "locks"]
    assert {*groups, "all"} == GROUP_WORDS
    single = sorted(word for word in WORDS if WORDS[word] <= {*own(word)})
    wider = sorted(set(WORDS) - GROUP_WORDS - set(single))
    rows = [(f"`{word}`", " ".join(covered(word))) for word in groups]
    rows.append(("`all`", "everything"))
    rows += [(f"`{word}`", " ".join(covered(word))) for word in wider]
    rows.append(("itself", " ".join(f"`{word}`" for word in single if word not in GROUP_WORDS)))
    return "\n| word | covers |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def own(word: str) -> list[int]:
    return [slot for slot in WORDS[word] if slot_name(slot) == word]


def covered(word: str) -> list[str]:
    return [f"`{name}`" for name in sorted(slot_name(slot) for slot in WORDS[word])]


def test_words() -> None:
    assert between("words") == words_table()


def test_errnos() -> None:
    assert re.findall(r"`(\w+)`", between("errnos")) == sorted(get_args(model.Errno))


def test_fields() -> None:
    for part in (model.PolicyFile, model.Rule, model.Match):
        for field in part.__struct_fields__:
            assert re.search(rf"^\| `{field}` \|", TEXT, re.MULTILINE), field
    for field in (*model.Caller.__struct_fields__, *model.Cache.__struct_fields__):
        assert f"`{field}`" in TEXT or f"{field}: " in TEXT
    for kind in (model.FileType, model.ModeBit):
        for word in get_args(kind):
            assert f"`{word}`" in TEXT


def test_every_code_has_a_section() -> None:
    headings = re.findall(r"^### (INO\d{3} .*)$", TEXT, re.MULTILINE)
    assert headings == [f"{code} {title}" for code, title in CODES.items()]


@pytest.mark.parametrize("code", sorted(CODES))
def test_sections(code: str) -> None:
    assert "Example:" in SECTIONS[code]
    if code < "INO301":
        assert re.search(r"Fix:", SECTIONS[code])
    if code not in WITHOUT:
        found = linted(EXAMPLES[code], CLASSES.get(code, ALL_OPCODES))
        assert code in {each.code for each in found}


@pytest.mark.parametrize("code", ["INO001", "INO002"])
def test_what_cannot_be_read(code: str) -> None:
    with pytest.raises(UsageError):
        linted(EXAMPLES[code], None)


@pytest.mark.parametrize("text", RECIPES)
def test_recipes(text: str) -> None:
    handled_by = served_by(AuditHandlers) if "AuditHandlers" in text else None
    found = linted(text, handled_by)
    assert [str(each) for each in found if each.level is not Level.NOTE] == []


def test_there_are_recipes() -> None:
    assert len(RECIPES) == 6
    assert len(TEXT.splitlines()) <= 450
