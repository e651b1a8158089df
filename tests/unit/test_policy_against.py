"""A policy held against a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.linting import rules_of

from inopt.exceptions import UsageError
from inopt.policy.linting.against import against
from inopt.policy.linting.findings import Finding


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a", "b", "b/deep"):
        (root / name).mkdir(parents=True)
    for name in ("a/one.log", "a/two.txt", "b/deep/x.txt"):
        (root / name).write_text(name)
    (root / "link").symlink_to("a")
    (root / "loop").symlink_to(".")
    return root


def codes(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(each.code, each.place.line) for each in findings]


def test_paths_that_match_nothing(tree: Path) -> None:
    rules = rules_of(
        """
        rules:
        - {match: {path: "*.log"}, deny: unlink}
        - {match: {path: [/nowhere, "*.jpg"]}, deny: unlink, name: pictures}
        - {match: {path: /a, type: file}, deny: unlink}
        - {match: {path: [/nowhere, /b/**/x.txt]}, deny: unlink}
        - {match: {path: /link/one.log}, deny: unlink}
        - {match: {type: socket}, deny: unlink}
        """
    )
    # /a/one.log is beneath /a, so only the path behind a symlink and the pictures are missing.
    found = against(rules, tree)
    assert codes(found) == [("INO211", 4), ("INO211", 7)]
    assert [each.rule for each in found] == ["pictures", "rule 5"]
    assert found[0].place.column == 18
    assert f"nothing in {str(tree)!r} is" in found[0].message


def test_the_type_counts(tree: Path) -> None:
    rules = rules_of("rules: [{match: {path: /link, type: file}, deny: unlink}]")
    assert codes(against(rules, tree)) == [("INO211", 2)]
    rules = rules_of("rules: [{match: {path: /link, type: symlink}, deny: unlink}]")
    assert against(rules, tree) == []
    rules = rules_of("rules: [{match: {path: deep/, type: directory}, deny: rmdir}]")
    assert against(rules, tree) == []


def test_names_of_one_file(tree: Path) -> None:
    os.link(tree / "a/one.log", tree / "b/one.txt")
    os.link(tree / "a/two.txt", tree / "b/two.txt")
    rules = rules_of(
        """
        rules:
        - {match: {path: "/a/**"}, bypass: unlink}
        - match:
            path: "*.log"
          deny: overwrite
          name: logs
        """
    )
    (found,) = [each for each in against(rules, tree) if each.code == "INO212"]
    assert "'/a/one.log'" in found.message
    assert "'/b/one.txt'" in found.message
    assert (found.rule, found.place.line) == ("rule 1", 3)


def test_names_that_are_treated_alike(tree: Path) -> None:
    os.link(tree / "a/one.log", tree / "b/one.log")
    rules = rules_of("rules: [{match: {path: '*.log'}, deny: overwrite}]")
    assert against(rules, tree) == []


def test_many_names(tree: Path) -> None:
    for number in range(30):
        (tree / f"a/{number}").write_text("")
        os.link(tree / f"a/{number}", tree / f"b/{number}")
    found = against(rules_of("rules: [{match: {path: /a}, deny: write}]"), tree)
    assert len(found) == 21
    assert any("10 more" in each.message for each in found)


def test_names_that_are_no_text(tree: Path) -> None:
    name = os.fsencode(tree) + b"/a/\xff\n"
    with open(name, "wb"):
        pass
    os.link(name, os.fsencode(tree) + b"/b/z")
    (found,) = against(rules_of("rules: [{match: {path: /a}, deny: write}]"), tree)
    str(found).encode()
    assert "\n" not in str(found)


def test_other_filesystems_are_left_out() -> None:
    if not os.path.exists("/dev/pts/ptmx") or os.stat("/dev").st_dev == os.stat("/dev/pts").st_dev:
        pytest.skip("no filesystem is mounted below /dev")
    rules = rules_of("""
        rules:
        - {match: {path: /pts}, deny: unlink}
        - {match: {path: /null}, deny: unlink}
        """)
    assert codes(against(rules, Path("/dev"))) == [("INO211", 3)]


def test_unreadable_directories(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: bytes) -> os._ScandirIterator[bytes]:
        if path.endswith(b"/deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (found,) = against(rules_of("rules: [{match: {path: /a}, deny: write}]"), tree)
    assert found.code == "INO310"
    assert "'/b/deep' was left out, with all beneath: Permission denied" in found.message


@pytest.mark.parametrize("name", ["nowhere", "a/one.log", "\0"])
def test_no_tree(tree: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name a directory"):
        against(rules_of(""), tree / name)
