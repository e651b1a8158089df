"""Every dialect on a kernel that speaks it, against the bare tree; one boot for each kernel."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import pytest
from lab.booting import PATIENCE, Boot, Boots
from lab.guest import Mounted, Plan, Report, Wanted

from inopt.ops import Op

pytestmark = [pytest.mark.lab, pytest.mark.timeout(PATIENCE + 120)]

_V2: Final = {"GETATTR", "SETATTR", "READ", "WRITE", "READDIR", "STATX"}


class Expected(NamedTuple):
    """What a kernel is found to be.

    *abi*: what must be said for it to be taken, if anything. *opens*: it opens files alone, and
    keeps the O_APPEND that they are opened with.
    """

    dialect: str
    tier: str
    accepts: set[str]
    one_shot: bool = False
    opens: bool = False
    abi: tuple[str, ...] = ()


KERNELS: Final = {
    "mainline": Expected("mainline", "rw", set()),
    "ino2": Expected("ino-v2", "inode", _V2),
    "ino1": Expected("ino-v1", "inode", _V2 | {"OPEN"}, opens=True),
    "android": Expected("android", "rw", set(), one_shot=True),
    "v7": Expected("rfc-v7", "rw", set(), one_shot=True, abi=("--abi", "rfc-v7")),
}


def plan_for(expected: Expected) -> Plan:
    clears = not expected.opens
    mounts = [Wanted([*expected.abi], ["data"], appends=expected.one_shot, clears_appending=clears)]
    if expected.abi:
        mounts.append(Wanted([], bypasses=False))
    else:
        mounts.append(Wanted(["--abi", expected.dialect], clears_appending=clears))
    if expected.tier == "inode":
        mounts += [Wanted(["--tier", "rw"]), Wanted(["--tier", "none"], bypasses=False)]
    others = sorted({each.dialect for each in KERNELS.values()} - {expected.dialect, "mainline"})
    refused = [["--abi", name] for name in others]
    if expected.tier != "inode":
        refused.append(["--tier", "inode"])
    return Plan(mounts, refused)


def booting(abi: str, plan: Plan, *options: str) -> Boot:
    """Carry out *plan* on a kernel."""
    command = ("-m", "lab.guest", msgspec.json.encode(plan).decode())
    return Boot(abi, command, options, late=abi == "mainline")


BOOTS: Final = {name: booting(name, plan_for(expected)) for name, expected in KERNELS.items()}
OLDEST: Final = booting(
    "mainline", Plan([Wanted([], bypasses=False)]), "--append", "fuse.lab_minor=31"
)


def report_in(output: str) -> Report:
    return msgspec.json.decode(output.strip().splitlines()[-1], type=Report)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.boot(boot)) for name, boot in BOOTS.items()],
)
def found(boots: Boots, request: pytest.FixtureRequest) -> tuple[Expected, Report]:
    name = request.param
    return KERNELS[name], report_in(boots.output_of(BOOTS[name]))


def test_doctor(found: tuple[Expected, Report]) -> None:
    expected, report = found
    told = {name: finding["found"] for name, finding in report.doctor.items()}
    if expected.abi:
        # Its bits mean other things today: it is never taken by itself.
        assert (told["dialect"], told["ops_mask"]) == ("none", [])
        assert told["tier"].startswith("none")
        assert "--abi rfc-v7" in report.doctor["dialect"]["fix"]
        return
    assert (told["dialect"], told["tier"]) == (expected.dialect, expected.tier)
    assert set(told["ops_mask"]) == expected.accepts
    assert report.doctor["tier"]["status"] == "ok"
    assert told["stack_depth"] == 0, "files of the filesystem at /lab bypass"


def test_everything_is_as_on_the_bare_tree(found: tuple[Expected, Report]) -> None:
    for mounted in found[1].mounts:
        assert mounted.problems == [], mounted.stats["dialect"]
    assert found[1].mounts[0].scenarios >= 9


def test_the_kernel_reads_and_writes(found: tuple[Expected, Report]) -> None:
    expected, report = found
    first, *others = report.mounts
    assert (first.stats["dialect"], first.stats["tier"]) == (expected.dialect, expected.tier)
    bypassed = [first]
    if not expected.abi:
        bypassed.append(others[0])
        assert others[0].stats["dialect"] == expected.dialect
    if expected.tier == "inode":
        rw, none = others[1:]
        assert (rw.stats["dialect"], rw.stats["tier"]) == ("mainline", "rw")
        assert (none.stats["dialect"], none.stats["tier"]) == ("none", "none")
        bypassed.append(rw)
    for mounted in bypassed:
        check_bypass(mounted)


def check_bypass(mounted: Mounted) -> None:
    """By the kernel's counts: reads, writes and mappings were served there, none was sent."""
    assert mounted.served["read"] > 10
    assert mounted.served["write"] > 5
    assert mounted.served["mmap"] == 1
    for op in (Op.READ, Op.WRITE):
        assert mounted.asked.get(op.name, 0) == 0
    assert mounted.asked["OPEN"] + mounted.asked["CREATE"] + mounted.served["open"] > 8
    assert mounted.stats["backing_ids"] == 0, "all are given back"
    assert mounted.stats["open_files"] == 0
    assert mounted.served["reject"] == 0


def test_without_bypass(found: tuple[Expected, Report]) -> None:
    expected, report = found
    if expected.abi:
        mounted = report.mounts[1]
        assert (mounted.stats["tier"], mounted.stats["dialect"]) == ("none", "none")
        assert mounted.stats["READ"]["daemon"] > 0


def test_what_the_kernel_contradicts_is_refused(found: tuple[Expected, Report]) -> None:
    expected, report = found
    for arguments, refusal in zip(plan_for(expected).refused, report.refused, strict=True):
        assert refusal.code == 2, (arguments, refusal)
        assert len(refusal.message.splitlines()) == 1
        assert "see 'inopt doctor'" in refusal.message


def test_what_is_remembered_and_what_is_left(found: tuple[Expected, Report]) -> None:
    expected, report = found
    probed = expected.tier == "inode" or expected.dialect == "android"
    assert report.remembered == (["kernel.json"] if probed else [])
    assert report.busy == "", "the backing filesystem can be unmounted at once"


@pytest.mark.boot(OLDEST)
def test_the_oldest_protocol(printed: str) -> None:
    """7.31, as Linux 5.4 to 5.10 speak it: short INIT, no bypass."""
    report = report_in(printed)
    stats: dict[str, Any] = report.mounts[0].stats
    assert report.mounts[0].problems == []
    assert (stats["protocol"], stats["tier"]) == ("7.31", "none")
    assert stats["READ"]["daemon"] > 0
    assert report.busy == ""
