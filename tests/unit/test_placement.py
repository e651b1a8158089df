"""Which plan an inode gets under a policy without rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from inopt.backing.tree import Tree
from inopt.handlers.placement import Placement
from inopt.ops import Op, OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.load import parse_policy
from inopt.policy.rules import compile_rules

_KERNEL = OpsMask.of(Op.GETATTR, Op.STATX, Op.SETATTR, Op.READDIR)


@pytest.mark.parametrize(("kept", "bypass"), [("bypass", True), ("cached", False)])
def test_attributes_of_directories(tmp_path: Path, kept: str, bypass: bool) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    text = f"{{version: 1, cache: {{directory_attributes: {kept}}}}}"
    rules = compile_rules(parse_policy(text.encode(), "p.yaml"))
    tree = Tree(str(tmp_path), 100)
    try:
        placement = Placement(CompiledPolicy(rules, reads_and_writes=True, kernel=_KERNEL), tree)
        for name in (b"directory", b"file"):
            inode, attributes = tree.resolve(tree.root, name)
            placement.admit(placement.step(tree.root, name), inode, attributes)
            mask = placement.plan(inode).mask
            assert (Op.GETATTR in mask) == (bypass or name == b"file")
            assert Op.SETATTR in mask
        assert (Op.GETATTR in placement.plan(tree.root).mask) == bypass
    finally:
        tree.close()
