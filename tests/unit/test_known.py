"""What is remembered of the kernel, and when it is not believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from inopt.kernel.abilities import Abilities
from inopt.ops import Op, OpsMask
from inopt.session import known, places
from inopt.session.known import Circumstances, known_abilities, read, write

FOUND = Abilities(7, 46, 1 << 63 | 5, 0, "ino-v2", OpsMask(1 << 63 | 1 << (Op.GETATTR - 1)))


class Probes:
    """Counts, in place of asking a kernel."""

    def __init__(self, found: Abilities) -> None:
        self.found = found
        self.count = 0

    def __call__(self) -> Abilities:
        self.count += 1
        return self.found


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Probes:
    made = Probes(FOUND)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(known, "probe", made)
    monkeypatch.setattr(places, "runtime_directory", lambda: str(tmp_path))
    return made


def test_asked_once(probes: Probes, tmp_path: Path) -> None:
    for _ in range(3):
        assert known_abilities(FOUND.flags) == FOUND
    assert probes.count == 1
    (kept,) = tmp_path.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_another_offer_is_another_kernel(probes: Probes) -> None:
    known_abilities(FOUND.flags)
    assert known_abilities(FOUND.flags ^ 1) == FOUND
    assert probes.count == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"boot_id": "another"},
        {"version": "0.0"},
        {"uid": 4711},
        {"privileged": None},
        {"user_namespace": 1},
    ],
)
def test_other_circumstances(probes: Probes, tmp_path: Path, changed: dict[str, object]) -> None:
    here = Circumstances.now()
    if "privileged" in changed:
        changed = {"privileged": not here.privileged}
    write(str(tmp_path / "kernel.json"), msgspec.structs.replace(here, **changed), FOUND)
    known_abilities(FOUND.flags)
    assert probes.count == 1


def _rewritten(text: bytes) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        path.write_bytes(text)

    return rewrite


def _replaced_by_a_link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def _replaced_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _given_away(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 4711, -1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o622),
        lambda path: path.chmod(0o660),
        lambda path: path.parent.chmod(0o770),
        lambda path: path.parent.chmod(0o1777),
        _given_away,
        lambda path: _given_away(path.parent),
        _replaced_by_a_link,
        _replaced_by_a_fifo,
        _rewritten(b""),
        _rewritten(b"{"),
        _rewritten(b"[]"),
        _rewritten(b'{"circumstances": 1}'),
        _rewritten(b"\xff" * 100_000),
    ],
)
def test_a_file_that_is_not_to_be_trusted(
    probes: Probes, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "kernel.json"
    here = Circumstances.now()
    write(str(path), here, FOUND)
    assert read(str(path), here) == FOUND
    spoil(path)
    assert read(str(path), here) is None
    assert known_abilities(FOUND.flags) == FOUND
    assert probes.count == 1


def test_nowhere_to_keep_it(
    probes: Probes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise PermissionError

    monkeypatch.setattr(places, "runtime_directory", refuse)
    assert known_abilities(FOUND.flags) == FOUND


def test_a_kernel_that_cannot_be_asked(
    probes: Probes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Abilities:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(known, "probe", refuse)
    assert known_abilities(5) is None
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_not_remembered(probes: Probes, tmp_path: Path) -> None:
    probes.found = Abilities(7, 46, FOUND.flags, 1)
    known_abilities(FOUND.flags)
    known_abilities(FOUND.flags)
    assert probes.count == 2
    assert list(tmp_path.iterdir()) == []
