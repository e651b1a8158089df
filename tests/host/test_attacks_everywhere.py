"""Every attempt against every shipped policy: what a rule denies does not happen underneath."""

from __future__ import annotations

import pytest
from support.attacks import ATTEMPTS, Fort, camp

pytestmark = pytest.mark.host

_CHANGES = frozenset({
    "bytes", "grown", "removed", "mode", "owner", "times", "linked", "flags", "xattr",
})  # fmt: skip
_ALL = _CHANGES | {"read"}

# Where a rule goes by a label, the file may be moved along with a directory: it keeps its label.
FORTS = (
    Fort("read-only", ("root", "user"), _CHANGES | {"gone", "made", "tree"}),
    Fort(
        "append-only-logs",
        ("root", "user"),
        frozenset({"bytes", "gone", "removed", "flags"}),
        guarded=b"target.log",
        fresh=b"fresh.log",
    ),
    Fort(
        "hidden-dotfiles",
        ("root", "user"),
        _ALL | {"made"},
        guarded=b".target",
        fresh=b".fresh",
    ),
    Fort(
        "no-exec-uploads",
        ("root", "user"),
        frozenset({"read", "mode", "flags"}),
        prefix=b"uploads/",
        mode=0o777,
        name="a program",
    ),
    Fort(
        "no-exec-uploads",
        ("root", "user"),
        frozenset({"mode", "flags"}),
        prefix=b"uploads/",
        name="no program",
    ),
    Fort("label-gated", ("user",), _ALL, label="user.label"),
    Fort("quarantine", ("user", "member"), _ALL, label="user.quarantine"),
    Fort(
        "quarantine",
        ("root",),
        _ALL - {"removed", "xattr"},
        label="user.quarantine",
        name="for root",
    ),
    Fort(
        "quarantine",
        ("user",),
        frozenset({"read", "gone", "removed", "linked"}),
        prefix=b"quarantine/",
        name="by place",
    ),
    Fort("team-share", ("user",), _ALL | {"gone", "made"}, prefix=b"developers/"),
    Fort(
        "team-share",
        ("user", "member"),
        _ALL | {"gone", "made"},
        prefix=b"designers/",
        name="other teams",
    ),
    Fort(
        "team-share",
        ("user", "member"),
        _CHANGES | {"gone", "made"},
        prefix=b"published/",
        name="readers",
    ),
)


@pytest.fixture(scope="module", params=("none", "rw"))
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("policy", sorted({fort.policy for fort in FORTS}))
def test_nothing_forbidden_happens(host: None, tier: str, policy: str) -> None:
    with camp(tier, policy) as made:
        through = [
            f"{fort.name or 'fort'}: {what}"
            for fort in FORTS
            if fort.policy == policy
            for what in made.assault(fort)
        ]
        complaints = made.mount.complaints()
    shown = "\n  ".join(through)
    assert not through, f"{len(through)} got through:\n  {shown}"
    assert not complaints


@pytest.mark.parametrize("attacker", ["root", "user"])
def test_attempts_have_teeth(host: None, tier: str, attacker: str) -> None:
    fort = Fort("mirror", (attacker,), frozenset())
    toothless: list[str] = []
    with camp(tier, "mirror") as made:
        for name, (function, damages) in ATTEMPTS.items():
            with made.arena(fort, attacker) as arena:
                function(arena)
                done = arena.damage()
            if damages and not done & damages and "none" not in damages:
                toothless.append(f"{name}: {sorted(done)} {arena.seen}")
            if not damages and done & _CHANGES:
                toothless.append(f"{name} does: {sorted(done)}")
    assert not toothless, "\n".join(toothless)
