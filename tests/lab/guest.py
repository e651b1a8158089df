"""Runs inside the lab: mounts, compares with the bare tree, and asks the kernel's own counters.

python -m lab.guest PLAN    a `Plan` in JSON; the last line of the output is a `Report`

One process does it all, since starting Python takes seconds here: see `support.forking`.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from lab.everyday import everyday
from lab.within import SCRATCH, Counters, begin, command
from support.batteries import Scenario, all_scenarios
from support.battery import Battery, Stage
from support.clients import Clients, clients
from support.mounting import Mount, in_place, inopt, mounted

_SIZE: Final = 20_000


class Wanted(msgspec.Struct, frozen=True):
    """One mount. *batteries*: which files of scenarios; *appends*: O_APPEND is to bypass, too.

    *clears_appending*: by fcntl(2), it is cleared for the backing file, too.
    """

    arguments: list[str]
    batteries: list[str] = []
    appends: bool = False
    clears_appending: bool = True
    bypasses: bool = True
    policy: str = "mirror"


class Plan(msgspec.Struct, frozen=True):
    """*refused*: arguments of mounts that must not come about."""

    mounts: list[Wanted]
    refused: list[list[str]] = []


class Mounted(msgspec.Struct):
    """What a mount was like. *served* and *asked* are the kernel's counts for the bypass part."""

    stats: dict[str, Any]
    scenarios: int
    problems: list[str]
    served: dict[str, int]
    asked: dict[str, int]


class Refusal(msgspec.Struct):
    """How a mount was refused."""

    code: int
    message: str


class Report(msgspec.Struct):
    """*busy*: why the backing filesystem could not be unmounted afterwards."""

    doctor: dict[str, Any]
    mounts: list[Mounted]
    refused: list[Refusal]
    remembered: list[str]
    busy: str


def bypassing(path: Path, *, appends: bool) -> None:
    """Read and write by opens of all kinds at once: what is written by one, all others see."""
    content = bytearray(os.urandom(_SIZE))
    (path / "f").write_bytes(content)
    kinds = [os.O_RDWR, os.O_RDWR | os.O_SYNC, os.O_RDWR | os.O_CREAT, os.O_WRONLY, os.O_RDONLY]
    if appends:
        kinds += [os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_APPEND]
    opened = [(flags, os.open(path / "f", flags)) for flags in kinds]
    reader = os.open(path / "f", os.O_RDONLY)
    for turn, (flags, descriptor) in enumerate(opened):
        if flags & os.O_ACCMODE != os.O_RDONLY:
            data = b"turn %d" % turn
            written = os.pwrite(descriptor, data, 1000 * turn)
            assert written == len(data)
            if flags & os.O_APPEND:
                content += data
            else:
                content[1000 * turn : 1000 * turn + len(data)] = data
        for other, looking in [*opened, (os.O_RDONLY, reader)]:
            if other & os.O_ACCMODE != os.O_WRONLY:
                assert os.pread(looking, 2 * _SIZE, 0) == content, (oct(flags), oct(other))
    with mmap.mmap(opened[0][1], len(content)) as mapped:
        mapped[10:20] = b"mapped it."
        content[10:20] = b"mapped it."
        mapped.flush()
        assert os.pread(reader, 2 * _SIZE, 0) == content
    direct = os.open(path / "f", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        assert os.preadv(direct, [page], 4096) == 4096
        assert page[:] == content[4096:8192]
    truncating = os.open(path / "f", os.O_WRONLY | os.O_TRUNC)
    assert os.write(truncating, b"anew") == 4
    assert os.pread(reader, 10, 0) == b"anew"
    for descriptor in (*(descriptor for _, descriptor in opened), reader, direct, truncating):
        os.close(descriptor)
    assert (path / "f").read_bytes() == b"anew"
    os.unlink(path / "f")


def set_id_bits(stage: Stage) -> None:
    """Somebody writes to a set-id file that others have open, and so bypasses."""
    root, user = stage.clients("root", "user")
    for name in (b"suid", b"sgid"):
        root.write_file(name, b"0123456789", 0o666)
        root.chmod(name, 0o4777 if name == b"suid" else 0o2777)
        root.open("r", name, os.O_RDONLY)
        root.pread("r", 10, 0)
        user.open("w", name, os.O_WRONLY)
        user.pwrite("w", b"x", 3)
        user.fstat("w")
        root.pread("r", 10, 0)
        root.close("r")
        user.close("w")
        root.lstat(name)


def appending_switched(stage: Stage) -> None:
    """O_APPEND is set and cleared on files that are open, beside others that are."""
    one, other = stage.clients("user", "user2")
    one.write_file(b"log", b"begin ", 0o666)
    one.open("a", b"log", os.O_RDWR | os.O_APPEND)
    other.open("b", b"log", os.O_RDWR)
    for turn in range(3):
        one.write("a", b"one%d " % turn)
        other.pwrite("b", b"B", turn)
        one.set_status_flags("a", os.O_APPEND if turn % 2 else 0)
        other.set_status_flags("b", 0 if turn % 2 else os.O_APPEND)
        one.pwrite("a", b"A", 3 + turn)
        other.write("b", b"two%d " % turn)
        one.pread("a", 100, 0)
        one.fstat("a")


def _mounted(wanted: Wanted, place: Path, people: Clients, number: int) -> Mounted:
    source, path = place / f"back{number}", place / f"mnt{number}"
    (place / str(number)).mkdir()
    with mounted(source, path, *wanted.arguments, policy=wanted.policy) as mount:
        tier = mount.stats()["tier"]
        excused_as = "none" if tier == "none" else "rw"
        battery = Battery(place / str(number), mount, tier, people, excused_as=excused_as)
        scenarios: list[Scenario] = [set_id_bits]
        if wanted.clears_appending:
            scenarios.append(appending_switched)
        for pattern in wanted.batteries:
            scenarios += all_scenarios(pattern)
        problems = []
        for scenario in scenarios:
            problems += [f"{scenario.__name__}: {each}" for each in battery.problems(scenario)]
        problems += _foreign(source / "foreign", path / "foreign")
        problems += _everyday(place / f"everyday{number}", path / "everyday")
        counters = Counters(path)
        if wanted.bypasses:
            bypassing(path, appends=wanted.appends)
        counted = counters.since()
        stats = _settled(mount)
        people.close()
    return Mounted(stats, len(scenarios), problems, counted["served"], counted["requests"])


def _foreign(source: Path, path: Path) -> list[str]:
    """A filesystem below the source: its inodes have other numbers in the mount."""
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(source)], check=True)
    try:
        (source / "old").write_bytes(b"old")
        (path / "new").write_bytes(b"new")
        with (path / "old").open("r+b") as file:
            file.write(b"OLD and more")
        found = [(source / "new").read_bytes(), (path / "old").read_bytes()]
    except OSError as error:
        return [f"foreign: {error}"]
    finally:
        subprocess.run(["umount", "-l", str(source)], check=True)
    return [] if found == [b"new", b"OLD and more"] else [f"foreign: {found}"]


def _everyday(bare: Path, through: Path) -> list[str]:
    for root in (bare, through):
        root.mkdir()
    expected, found = everyday(bare), everyday(through)
    pairs = zip(expected, found, strict=True)
    return [f"everyday: bare {one}, mount {other}" for one, other in pairs if one != other]


def _settled(mount: Mount) -> dict[str, Any]:
    """The statistics, without opcodes that never came."""
    return {
        name: value
        for name, value in mount.stats().items()
        if not isinstance(value, dict) or any(value.values())
    }


def _refused(arguments: Sequence[str], place: Path) -> Refusal:
    source, path = place / "back", place / "mnt"
    source.mkdir(exist_ok=True)
    path.mkdir(exist_ok=True)
    done = inopt("mount", "mirror", str(source), str(path), *arguments)
    return Refusal(done.returncode, done.stderr)


def main() -> None:
    """Carry out the plan."""
    begin("cli.doctor")
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    report = Report(json.loads(command("doctor", SCRATCH, "--json")), [], [], [], "")
    with in_place("lab") as place, clients() as people:
        for number, wanted in enumerate(plan.mounts):
            report.mounts.append(_mounted(wanted, place, people, number))
        for arguments in plan.refused:
            report.refused.append(_refused(arguments, place))
    report.remembered = [path.name for path in Path("/run/inopt").iterdir()]
    # Nothing may be pinned any more.
    umount = subprocess.run(["umount", SCRATCH], check=False, capture_output=True, text=True)
    report.busy = umount.stderr
    print(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
