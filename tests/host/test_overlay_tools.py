"""``inopt overlay`` on layers that the kernel's overlayfs has made: every tool tells its view."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.archives import apply_archive
from support.kernel_layers import Layers, unlike, view
from support.layer_changes import expected_changes, told_changes
from support.snapshot import one_to_one

from inopt.cli.main import inopt as command

pytestmark = pytest.mark.host

CASES = [
    (seed, lowers, options)
    for seed, (lowers, options) in enumerate(
        [(1, ""), (2, ""), (3, ""), (1, ",userxattr"), (2, ",userxattr"), (1, ""), (2, ",xino=on")]
    )
]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(command, ["overlay", *map(str, words)])


def told(*words: str | Path) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}{case[2]}")
def layers(place: Path, request: pytest.FixtureRequest) -> Layers:
    seed, lowers, options = request.param
    made = Layers(place, lowers, options)
    made.make_random(seed, 120)
    return made


def test_what_the_kernel_writes_is_right(layers: Layers) -> None:
    words: list[str | Path] = ["--lower", layers.lower_text, "--work", layers.work]
    assert told("fsck", layers.upper, *words)["findings"] == []
    assert told("fsck", layers.upper)["findings"] == []
    done = run("fsck", layers.upper, "--fix")
    assert (done.exit_code, done.stdout) == (0, f"{layers.upper}: ok\n")


def test_commit_makes_the_merged_tree(layers: Layers) -> None:
    target = layers.copy_of_lowers()
    done = run("commit", layers.upper, target, "--lower", layers.lower_text)
    assert done.exit_code == 0, done.exception
    with layers.mounted() as merged:
        expected, found = view(merged), view(target)
    assert unlike(expected, found) == []
    assert one_to_one(expected, found) == []
    assert run("commit", layers.upper, target).exit_code == 0
    assert unlike(expected, view(target)) == []


def test_export_says_the_same(layers: Layers) -> None:
    target = layers.copy_of_lowers()
    archive = layers.place / "layer.tar"
    done = run("export", layers.upper, archive)
    assert done.exit_code == 0, done.exception
    apply_archive(archive, target)
    with layers.mounted() as merged:
        expected, found = view(merged), view(target)
    sockets = [path for path in expected if stat.S_ISSOCK(expected[path]["mode"])]
    for path in sockets:
        expected.pop(path)
        found.pop(path, None)
    assert unlike(expected, found) == []
    assert one_to_one(expected, found) == []
    assert run("export", layers.upper, layers.place / "again.tar").exit_code == 0
    assert archive.read_bytes() == (layers.place / "again.tar").read_bytes()


def test_diff_tells_all_differences_and_no_other(layers: Layers) -> None:
    answer = told("diff", layers.upper, "--lower", layers.lower_text)
    with layers.below() as tree:
        before = view(tree)
    with layers.mounted() as merged:
        after = view(merged)
    assert told_changes(answer) == expected_changes(before, after)
    assert answer["exact"]
