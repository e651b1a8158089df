"""What `inopt.testing` offers to handler authors, on real mounts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.programs import error_of

from inopt.exceptions import UsageError
from inopt.testing import fixtures
from inopt.testing.fixtures import MakeMount
from inopt.testing.fixtures import inopt_mount as inopt_mount

pytestmark = pytest.mark.host

_POLICY = "version: 1\nrules: [{handle: getxattr}]\n"


def test_a_real_mount_in_one_line(inopt_mount: MakeMount, place: Path) -> None:
    source = place / "source"
    source.mkdir()
    (source / "file").write_bytes(b"data")
    mount = inopt_mount("support.troubled:Troubled", source, policy=_POLICY)
    assert (mount.path / "file").read_bytes() == b"data"
    assert error_of(lambda: os.getxattr(mount.path / "file", "user.bug")) == errno.EIO
    assert mount.stats()["GETXATTR"]["errors"] == 1
    assert [each["event"] for each in mount.records()] == ["mounted", "request failed"]
    other = inopt_mount(source=source, arguments=("--tier", "none"))
    assert (other.path / "file").read_bytes() == b"data"
    with pytest.raises(UsageError, match="INO112"):
        inopt_mount(
            "inopt:Handlers", source, policy="version: 1\nrules: [{handle: [unlink, read]}]\n"
        )


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fixtures.why_not() is None
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert "root" in str(fixtures.why_not())
    monkeypatch.setattr(os.path, "exists", lambda _path: False)
    assert fixtures.why_not() == "there is no /dev/fuse"
