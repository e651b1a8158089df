"""The batteries' scenarios on three other ways to serve a mirror, against the bare tree."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from support.batteries import Scenario, all_scenarios
from support.battery import Battery
from support.mounting import in_place, inopt, mounts_below
from support.rawcalls import renameat2
from support.waiting import within
from support.ways import WAYS, battery_by, on_pyfuse3

pytestmark = pytest.mark.host


class Limit(NamedTuple):
    """What stock pyfuse3 cannot express: the scenarios that need it, and how they first differ.

    What such a scenario does afterwards builds on what could not be done, so only the *first*
    difference is looked at: a pattern.
    """

    reason: str
    first: str
    scenarios: tuple[str, ...]


# Stock pyfuse3, by name. What is not here answers like the bare tree.
LIMITS: Final = (
    Limit(
        "TMPFILE: pyfuse3 has no method for it, the kernel answers EOPNOTSUPP",
        r"open\('\w+', .*\): bare None, mount EOPNOTSUPP",
        ("inherited", "setgid_directories", "temporary_files"),
    ),
    Limit(
        "FALLOCATE: no method, the kernel answers EOPNOTSUPP",
        r"fallocate\(.*\): bare \w+, mount EOPNOTSUPP",
        (
            "mappings_and_sizes",
            "allocation",
            "unlinked_but_open",
            "size_limit",
            "set_id_bits_after_writes",
            "set_gid_without_execute_after_writes",
            "set_gid_without_execute_after_writes_of_a_member",
            "moved_by_operations",
        ),
    ),
    Limit(
        "LSEEK: no method, the kernel answers for a file without holes",
        r"seek\(.*\): bare \w+, mount \d+",
        ("holes",),
    ),
    Limit(
        "IOCTL: no method, so inode flags are neither told nor set: the kernel answers ENOTTY",
        r"[gs]et_flags\(.*\): bare \w+, mount ENOTTY",
        ("inode_flags", "immutable", "append_only"),
    ),
    Limit(
        "STATX: no method and no time of birth in EntryAttributes",
        r"birth\(.*\): bare \(1, True\), mount \(0, False\)",
        ("births",),
    ),
    Limit(
        "SETXATTR: pyfuse3 drops FUSE_SETXATTR_ACL_KILL_SGID, so an ACL that is set by somebody "
        "outside of the file's group leaves the set-group-id bit in place",
        r"lstat\(.*\): bare .*0o100750.*mount .*0o102750",
        ("who_may_set",),
    ),
    Limit(
        "SETXATTR: pyfuse3 tries XATTR_CREATE and XATTR_REPLACE itself, one of them at a time",
        r"setxattr\(b'f', 'user.b', b'5', 3\): bare ENODATA, mount None",
        ("sizes_and_flags",),
    ),
)
_LIMIT_OF: Final = {name: limit for limit in LIMITS for name in limit.scenarios}


SCENARIOS: Final = all_scenarios()


@pytest.fixture(scope="session", params=list(WAYS))
def way(host: None, request: pytest.FixtureRequest) -> Iterator[Battery]:
    with battery_by(request.param) as made:
        yield made


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_three_ways(way: Battery, scenario: Scenario) -> None:
    limit = _LIMIT_OF.get(scenario.__name__) if way.tier == "pyfuse3" else None
    if limit is None:
        way.run(scenario)
        return
    problems = way.problems(scenario)
    assert problems, f"{scenario.__name__} works now: take it out of the table ({limit.reason})"
    assert re.search(limit.first, problems[0]), f"{limit.reason}, but: {problems[0]}"


def test_every_limit_is_about_a_scenario() -> None:
    names = [scenario.__name__ for scenario in SCENARIOS]
    assert set(_LIMIT_OF) <= set(names)
    assert len(names) == len(set(names))
    assert len(SCENARIOS) > 65


# What has no scenario of its own above: one call each, with what the kernel does instead.
INSTEAD: Final = {
    "rename_exchange": "RENAME2 passes its flags on, so it works",
    "copy_file_range": "COPY_FILE_RANGE: no method, the kernel reads and writes by itself",
    "flock": "GETLK, SETLK: not taken, so locks are the kernel's own, as everywhere in inopt",
}


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_what_pyfuse3_does_instead(host: None, name: str) -> None:
    with in_place("instead") as place, on_pyfuse3(place) as mount:
        one, other = mount.path / "one", mount.path / "other"
        one.write_bytes(b"1" * 10)
        other.write_bytes(b"2" * 10)
        if name == "rename_exchange":
            renameat2(bytes(one), bytes(other), 2)
            assert one.read_bytes() == b"2" * 10
        elif name == "copy_file_range":
            with one.open("rb") as source, other.open("r+b") as target:
                assert os.copy_file_range(source.fileno(), target.fileno(), 5) == 5
            assert other.read_bytes() == b"1" * 5 + b"2" * 5
        else:
            with one.open("rb") as first, one.open("rb") as second:
                fcntl.flock(first, fcntl.LOCK_EX)
                with pytest.raises(BlockingIOError):
                    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert mount.complaints() == []


@pytest.mark.parametrize(
    ("policy", "arguments"),
    [("require: rw\n", ()), ("", ("--tier", "rw"))],
    ids=["require", "tier"],
)
def test_pyfuse3_refuses_what_it_cannot_do(
    place: Path, policy: str, arguments: tuple[str, ...]
) -> None:
    (place / "source").mkdir()
    (place / "mnt").mkdir()
    (place / "p.yaml").write_text("version: 1\n" + policy)
    done = inopt(
        "mount", str(place / "p.yaml"), str(place / "source"), str(place / "mnt"),
        "--transport", "pyfuse3", *arguments,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pyfuse3 has no bypass" in done.stderr
    assert mounts_below(place) == []


def test_pyfuse3_heeds_mount_options(place: Path) -> None:
    with on_pyfuse3(place, "-o", "ro,nosuid,noexec,fsname=mine") as mount:
        with pytest.raises(OSError, match="Read-only"):
            (mount.path / "x").mkdir()
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            line = next(line for line in mounts if line.split()[1] == str(mount.path))
        source, _, _, options, *_ = line.split()
        assert source == "mine"
        assert {"ro", "nosuid", "noexec"} <= set(options.split(","))


_HANDLERS: Final = """
import inopt

class Told(inopt.Handlers):
    async def started(self, session):
        session.nursery.start_soon(self.background)
        self.made = []
        self.place = session.mountpoint

    async def background(self):
        self.made.append("task")

    async def stopped(self):
        open({trace!r}, "w").write(" ".join([*self.made, "stopped"]))

    def lookup(self, parent, name, ctx):
        entry = self.daemon.lookup(parent, name, ctx)
        if name == b"drop":
            self.session.nursery.start_soon(self.drop, parent, name)
        return entry

    async def drop(self, parent, name):
        self.made.append(str(await self.session.invalidate_entry(parent, name)))
"""


def test_pyfuse3_has_hooks_and_notifications(place: Path) -> None:
    (place / "told.py").write_text(_HANDLERS.format(trace=str(place / "trace")))
    (place / "p.yaml").write_text(
        "version: 1\nhandlers: told:Told\nrules: [{handle: lookup}]\ncache: {entry: 60s}\n"
    )
    with on_pyfuse3(place, policy=str(place / "p.yaml")) as mount:
        (mount.source / "drop").touch()
        assert (mount.path / "drop").exists()
        (mount.source / "drop").unlink()
        # Only the notification can have made the kernel forget the name.
        assert within(lambda: not (mount.path / "drop").exists())
    assert (place / "trace").read_text().split()[:2] == ["task", "True"]
    assert (place / "trace").read_text().endswith("stopped")
