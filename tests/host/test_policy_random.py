"""Random policies over random operations: the mount answers what the reference says, or as bare.

Each operation is made through the mount first. What the policy denies must fail with the errno of
something that stands in the way, and change nothing; all else is repeated on a bare copy of the
tree, and must come out the same there.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from support import policies
from support.clients import PEOPLE, USER, Clients, Errno, clients
from support.mounting import Mount, in_place
from support.prediction import Opened, Oracle, Prediction
from support.rawcalls import RENAME_EXCHANGE, RENAME_NOREPLACE
from support.reference import WORDS, Asker, Reference
from support.sizing import STRESS
from support.snapshot import differences, snapshot

from inopt.exceptions import UsageError
from inopt.policy.load import parse_policy
from inopt.policy.model import PolicyFile
from inopt.session.policing import prepare
from inopt.session.settings import Settings

pytestmark = pytest.mark.host

_SECONDS: Final = 300.0 if STRESS else 25.0
_LENGTH: Final = 100  # operations under one policy
_numbers: Final = itertools.count()

# Whoever may not see a mode gets nowhere, as the kernel checks permissions by it; and which of some
# opcodes is sent is the kernel's choice.
_DENIABLE: Final = frozenset(WORDS) - {
    "all", "metadata", "getattr", "statx", "readdirplus", "copy_file_range_64",
}  # fmt: skip
_HANDLERS: Final = "inopt.handlers.audit:AuditHandlers"

# --- operations ----------------------------------------------------------------------------------

_NAMES: Final = [
    b"a", b"b", b"b/a", b"b/b.x", b"b/.h", b"b/c", b"b/c/a", b"c", b"c/a", b"c/b", b"c/a.x",
    b"c/a/b", b"c/a/a.x", b"a.x", b"b.x", b".h",
]  # fmt: skip
_MODES: Final = [0o666, 0o644, 0o600, 0o755, 0o1666, 0o640, 0o777]
_FLAGS: Final = [
    0, 0, 0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC, os.O_APPEND,
]  # fmt: skip
_OFFSETS: Final = [0, 0, 1, 100, 1024, 4096]
_COUNTS: Final = [1, 10, 1024, 5000]
_DATA: Final = [b"x", b"yz" * 100, b"0" * 1024]
_OWNERS: Final = [0, USER]
_SPECIAL: Final = [stat.S_IFREG, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK]
_TIMES: Final = [(1, 2), (3_000_000_000, 0)]

Step = tuple[str, list[Any]]


class Steps:
    """Random operations: mostly on what is there, and mostly making what is not."""

    def __init__(self, chance: random.Random, source: Path) -> None:
        self._one = chance.choice
        self._chance = chance
        self._source = os.fsencode(source)

    def next(self) -> Step:
        one, old, new = self._one, self._name(there=0.9), self._name(there=0.2)
        other = self._name(there=0.5)
        xattr = one(policies.XATTRS)
        steps: list[Step] = [
            ("mkdir", [new, one(_MODES) | 0o700]),
            ("mknod", [new, one(_SPECIAL) | one(_MODES)]),
            ("symlink", [b"/nowhere/x", new]),
            ("link", [old, new]),
            ("link", [old, new]),
            ("unlink", [old]),
            ("rmdir", [old]),
            ("rename", [old, other, one([0, 0, 0, RENAME_NOREPLACE])]),
            ("rename", [old, other, 0]),
            ("rename", [old, self._name(there=1), RENAME_EXCHANGE]),
            ("set_mode", [old, one(_MODES)]),
            ("set_owner", [old, one(_OWNERS), one(_OWNERS)]),
            ("set_size", [old, one(_COUNTS)]),
            ("set_times", [old, one(_TIMES), one(_TIMES), 0]),
            ("setxattr", [old, xattr, one(policies.VALUES).encode(), 0, False]),
            ("setxattr", [old, xattr, one(policies.VALUES).encode(), 0, False]),
            ("getxattr", [old, xattr, False]),
            ("removexattr", [old, xattr, False]),
            ("listxattr", [old, False]),
            ("readlink", [one([old, b".h"])]),
            ("lstat", [old]),
            ("listdir", [one([old, b".", b"b", b"c"])]),
            ("listdir", [one([b".", b"b", b"c"])]),
            ("temporary", [one([old, b".", b"b", b"c"]), one(_MODES), new]),
            ("copy", [old, self._name(there=1), one(_COUNTS), one(_OFFSETS), one(_OFFSETS)]),
        ]
        if self._chance.random() < 0.4:
            access = one([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
            actions = [self._action() for _ in range(self._chance.randint(1, 4))]
            return "open", [self._name(there=0.8), access | one(_FLAGS), one(_MODES), actions]
        return one(steps)

    def _action(self) -> Step:
        one = self._one
        actions: list[Step] = [
            ("pwrite", [one(_DATA), one(_OFFSETS)]),
            ("pwrite", [one(_DATA), one(_OFFSETS)]),
            ("pread", [one(_COUNTS), one(_OFFSETS)]),
            ("map_store", [one(_OFFSETS), one(_DATA)]),
            ("map_privately", [one(_OFFSETS), one(_DATA)]),
            ("map_load", []),
            ("ftruncate", [one(_COUNTS)]),
            ("fallocate", [one([0, 1, 3, 16, 17]), one(_OFFSETS), one(_COUNTS)]),
        ]
        return one(actions)

    def _name(self, *, there: float) -> bytes:
        """A name, which is there with this probability."""
        wanted = self._chance.random() < there
        found = [
            name for name in _NAMES if os.path.lexists(os.path.join(self._source, name)) == wanted
        ]
        return self._one(found or _NAMES)


def _policy(chance: random.Random) -> policies.Policy:
    """A policy that the linter lets be mounted."""
    while True:
        policy = _any_policy(chance)
        try:
            loaded = parse_policy(yaml.safe_dump(policy).encode(), "random.yaml")
            prepare(loaded, Settings(source="/", mountpoint="/", policy=loaded))
        except UsageError:
            continue
        return policy


def _any_policy(chance: random.Random) -> policies.Policy:
    handles = chance.random() < 0.4
    rules = [
        policies.random_rule(chance, _DENIABLE, handles=handles)
        for _ in range(chance.randint(1, 5))
    ]
    policy: policies.Policy = {"version": 1, "rules": rules}
    if handles:
        policy["handlers"] = _HANDLERS
        policy["otherwise"] = chance.choice(["bypass", "bypass", "handle"])
    return policy


def _plant(root: Path) -> None:
    """The tree that all begins with."""
    for path, mode in (("b", 0o777), ("c", 0o777), ("c/a", 0o1777)):
        (root / path).mkdir()
        (root / path).chmod(mode)
    for path, size, mode, owner in (
        ("a", 3000, 0o666, 0), ("b/a", 1024, 0o644, USER), ("b/b.x", 0, 0o600, USER),
        ("c/a/b", 5000, 0o777, USER), ("a.x", 1, 0o644, 0), ("c/b", 1025, 0o1666, USER),
    ):  # fmt: skip
        file = root / path
        file.write_bytes(b"%05d" % size * (size // 5) + b"." * (size % 5))
        file.chmod(mode)
        os.chown(file, owner, owner)
    os.setxattr(root / "a", "user.a", b"1")
    os.setxattr(root / "c/b", "user.b", b"yes")
    os.link(root / "b/a", root / "c/a.x")
    os.symlink("/nowhere/x", root / ".h")
    os.mkfifo(root / "b/.h")


# --- one mount -----------------------------------------------------------------------------------


class Trial:
    """One policy over one tree, with a bare copy beside it."""

    def __init__(self, mount: Mount, bare: Path, reference: Reference, people: Clients) -> None:
        self.mount = mount
        self.bare = bare
        bypass = mount.stats()["tier"] == "rw"
        exe = os.path.realpath(sys.executable)
        self.sides = {}
        self.oracles = {}
        for name in ("root", "user"):
            uid, gid, groups = PEOPLE[name]
            asker = Asker(uid, frozenset({gid, *groups}), exe, _own_cgroup())
            self.oracles[name] = Oracle(reference, mount.source, asker, bypass=bypass)
            self.sides[name] = (people.get(name), people.get(name + "2"))
            for client, path in zip(self.sides[name], (mount.path, bare), strict=True):
                client.reset()
                client.enter(os.fsencode(path))
        self.done: list[str] = []
        self._complaints = len(mount.complaints())  # of the linter

    def perform(self, who: str, step: Step) -> None:
        """One step of one person."""
        for oracle in self.oracles.values():
            oracle.look_around()
        kind, arguments = step
        if kind in ("open", "temporary", "copy"):
            try:
                getattr(self, f"_{kind}")(who, *arguments)
            finally:
                for client in self.sides[who]:
                    client.discard("f")
                    client.discard("g")
            return
        oracle = self.oracles[who]
        expected: Prediction = getattr(oracle, kind)(*arguments)
        self._compare(who, kind, arguments, expected)

    def _compare(self, who: str, operation: str, arguments: list[Any], expected: Prediction) -> Any:
        """Make a call on both sides, or only through the mount if it is denied; the answer."""
        mounted, bare = self.sides[who]
        before = snapshot(self.mount.source) if expected.denied or expected.perhaps else {}
        got = mounted.call(operation, *arguments)
        told = f"{who}.{operation}{tuple(arguments)} -> {got!r}, expected {expected}"
        self.done.append(told)
        if isinstance(got, Errno) and got in expected.denied | expected.perhaps:
            after = snapshot(self.mount.source)
            changed = differences(before, after, ("before", "after"), same_tree=True)
            assert not changed, f"{told}: refused, yet {changed}"
            return got
        assert isinstance(got, Errno) or not expected.denied, f"{told}: should be denied"
        plain = bare.call(operation, *arguments)
        if operation == "listdir" and isinstance(plain, list):
            plain = self.oracles[who].shown_in(arguments[0], plain)
        if expected.hides and isinstance(got, Errno):
            assert isinstance(plain, Errno), f"{told}: bare {plain!r}"
        else:
            assert got == plain, f"{told}: bare {plain!r}"
        return got

    def _open_file(self, who: str, slot: str, path: bytes, flags: int, mode: int) -> Opened | None:
        """Open a regular file, if it may be; directories and others are only tried."""
        oracle = self.oracles[who]
        flags |= os.O_NONBLOCK | os.O_NOFOLLOW
        expected, thing = oracle.open(path, flags, mode)
        got = self._compare(who, "open", [slot, path, flags, mode], expected)
        if isinstance(got, Errno) or thing is None:
            return None
        return oracle.opened(thing, flags)

    def _open(self, who: str, path: bytes, flags: int, mode: int, actions: list[Step]) -> None:
        opened = self._open_file(who, "f", path, flags, mode)
        if opened is None:
            return
        for operation, arguments in actions:
            expected = getattr(self.oracles[who], operation)(opened, *arguments)
            self._compare(who, operation, ["f", *arguments], expected)

    def _temporary(self, who: str, where: bytes, mode: int, name: bytes) -> None:
        opened = self._open_file(who, "f", where, os.O_TMPFILE | os.O_RDWR, mode)
        if opened is not None:
            expected = self.oracles[who].link_open(opened, name)
            self._compare(who, "link_open", ["f", name], expected)

    def _copy(self, who: str, one: bytes, other: bytes, size: int, start: int, to: int) -> None:
        source = self._open_file(who, "f", one, os.O_RDONLY, 0)
        target = self._open_file(who, "g", other, os.O_RDWR, 0)
        if source is not None and target is not None:
            expected = self.oracles[who].copy_range(source, target, size, start, to)
            self._compare(who, "copy_range", ["f", "g", size, start, to], expected)

    def finish(self) -> None:
        """Both trees are the same in the end, and the daemon has nothing to complain of."""
        found = differences(
            snapshot(self.bare), snapshot(self.mount.source), ("bare", "backing"), same_tree=False
        )
        assert not found, found
        assert not self.mount.complaints()[self._complaints :]

    def leave(self) -> None:
        """Let nobody hold the mount."""
        for client in itertools.chain.from_iterable(self.sides.values()):
            if client.runs:
                client.reset()


def _own_cgroup() -> str:
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        return next((line[3:].rstrip("\n") for line in lines if line.startswith("0::")), "")


@contextmanager
def _trial(place: Path, policy: policies.Policy, tier: str, people: Clients) -> Iterator[Trial]:
    number = next(_numbers)
    here = place / f"{tier}-{number}"
    source, path, bare = here / "back", here / "mnt", here / "bare"
    for each in (here, source, path, bare):
        each.mkdir()
    for root in (source, bare):
        _plant(root)
        root.chmod(0o777)
    file = here / "policy.yaml"
    file.write_text(yaml.safe_dump(policy), encoding="utf-8")
    mount = Mount(source, path, "--tier", tier, policy=str(file))
    try:
        trial = Trial(mount, bare, Reference(msgspec.convert(policy, PolicyFile)), people)
        try:
            yield trial
        finally:
            trial.leave()
    finally:
        mount.close()


@pytest.mark.timeout(int(_SECONDS * 3 + 120))
@pytest.mark.parametrize("tier", ["none", "rw"])
def test_random_policies(host: None, tier: str) -> None:
    first = int(os.environ.get("INOPT_SEED") or time.time_ns() % 1_000_000_000)
    deadline = time.monotonic() + _SECONDS
    with in_place(f"policy-{tier}") as place, clients() as people:
        for seed in itertools.count(first):
            _try(place, tier, people, seed)
            if time.monotonic() > deadline:
                break


def _try(place: Path, tier: str, people: Clients, seed: int) -> None:
    chance = random.Random(seed)
    policy = _policy(chance)
    with _trial(place, policy, tier, people) as trial:
        steps = Steps(chance, trial.mount.source)
        try:
            for _ in range(_LENGTH):
                trial.perform(chance.choice(["root", "user", "user"]), steps.next())
            trial.finish()
        except AssertionError as error:
            error.add_note(f"INOPT_SEED={seed}, tier {tier}, under {json.dumps(policy)}")
            error.add_note("after " + "\n      ".join(trial.done[-12:]))
            raise
