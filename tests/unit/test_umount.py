"""``inopt umount`` of a mount that is busy."""

from __future__ import annotations

import errno
import os

import pytest
from click.testing import CliRunner

from inopt.cli import umount
from inopt.exceptions import InoptError
from inopt.kernel import mounts
from inopt.kernel.mounts import Mounted
from inopt.session import places

_MOUNTED = Mounted(1, 0, 99_999, "/mnt", "fuse.inopt", "/source", "rw")


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each attempt is to find the mount busy; they are taken out from the end."""
    outcomes: list[bool] = []

    def unmount(mountpoint: str, *, lazy: bool = False) -> None:
        del mountpoint, lazy
        if outcomes and outcomes.pop():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(mounts, "locate", lambda path: path)
    monkeypatch.setattr(mounts, "find_mount", lambda _path: _MOUNTED)
    monkeypatch.setattr(places, "is_alive", lambda _mounted: True)
    monkeypatch.setattr(mounts, "unmount", unmount)
    return outcomes


def test_who_only_looks_at_it_is_waited_for(attempts: list[bool]) -> None:
    attempts += [False, True, True]
    result = CliRunner().invoke(umount.umount, ["/mnt"])
    assert (result.exit_code, attempts) == (0, [])


def test_not_for_ever(attempts: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    attempts += [True] * 1000
    monkeypatch.setattr(umount, "_MOMENT", -1.0)
    result = CliRunner().invoke(umount.umount, ["/mnt"])
    assert isinstance(result.exception, InoptError)
    assert "another mount namespace" in str(result.exception)
    assert len(attempts) == 999


def test_who_uses_it_is_not_waited_for(
    attempts: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts += [True] * 1000
    monkeypatch.setattr(umount, "_users", lambda _mounted: "sh (pid 1: working directory)")
    result = CliRunner().invoke(umount.umount, ["/mnt"])
    assert "in use by sh (pid 1" in str(result.exception)
    assert len(attempts) == 999
