"""From changes to notifications, without a kernel: what would be written is looked at."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from support.notifications import Kernel, Message
from support.waiting import within

from inopt.backing import identity
from inopt.backing import tree as trees
from inopt.backing.attach import Attachments
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.backing.watch.changes import ATTRIBUTES, NAME, Changes
from inopt.handlers.placement import Placement
from inopt.handlers.serve import Context
from inopt.kernel.dialects import PLAIN
from inopt.kernel.negotiate import Terms
from inopt.ops import OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.load import parse_policy
from inopt.policy.rules import compile_rules
from inopt.session.coherence import Coherence
from inopt.wire.replies import Attributes, Validity
from inopt.wire.uapi import InitFlag


class Script:
    """A watch that reports what a test tells it to."""

    kind = "script"

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK)
        self.next: list[Changes | Exception] = []
        self.own: Collection[int] = ()
        self.covered = NAME | ATTRIBUTES
        self.closed = False

    def report(self, *changes: Changes | Exception) -> None:
        self.next += changes
        os.write(self._write, b"x")

    def read(self, own: Collection[int]) -> Changes:
        self.own = own
        with suppress(BlockingIOError):
            os.read(self.descriptor, 100)
        changes = self.next.pop(0) if self.next else Changes()
        if isinstance(changes, Exception):
            raise changes
        return changes

    def covers(self, inode: Inode, attributes: Attributes) -> int:
        return self.covered

    def approach(self, directory: Inode) -> None: ...

    def meet(self, directory: Inode, name: bytes, inode: Inode) -> None: ...

    def forget(self, inode: Inode) -> None: ...

    def facts(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.closed = True
        os.close(self.descriptor)
        os.close(self._write)


class Mounted:
    """A tree, a policy and a session's coherence, with no mount."""

    def __init__(self, source: Path, kernel: Kernel, policy: str) -> None:
        self.kernel = kernel
        self.tree = Tree(str(source), 256)
        loaded = parse_policy(policy.encode(), "p.yaml")
        compiled = CompiledPolicy(compile_rules(loaded), reads_and_writes=True, kernel=OpsMask())
        self.context = Context(
            self.tree,
            Placement(compiled, self.tree),
            Attachments(),
            PLAIN,
            loaded.policy.cache,
            lambda _: None,
        )
        self.watch = Script()
        self.tree.watch = self.watch
        flags = int(InitFlag.HAS_EXPIRE_ONLY)
        terms = Terms(
            minor=45, flags=flags, dialect=PLAIN, max_write=1, max_stack_depth=0, reply=b""
        )
        self.coherence = Coherence(kernel.device, self.context, terms, self.watch, {5})
        self.coherence.start()

    def find(self, name: bytes) -> Inode:
        inode, attributes = self.tree.resolve(self.tree.root, name)
        state = self.context.placement.step(self.tree.root, name)
        self.context.placement.admit(state, inode, attributes)
        return inode

    def validity(self, inode: Inode) -> Validity:
        return self.context.validity_of(inode, self.tree.attributes(inode))

    def close(self) -> None:
        self.coherence.end()
        assert self.watch.closed
        self.tree.close()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def mounted(tmp_path: Path, kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    (tmp_path / "file").write_text("file")
    (tmp_path / "other").write_text("other")
    (tmp_path / "dir").mkdir()
    given = getattr(request, "param", "")
    made = Mounted(tmp_path, kernel, f"version: 1\ncache: {{coherence: notify{given}}}\n")
    threads = threading.active_count()
    yield made
    made.close()
    assert threading.active_count() < threads


def changes(*touched: Inode, data: bool = False) -> Changes:
    made = Changes()
    for inode in touched:
        made.touch(inode, data=data)
    return made


def test_attributes_and_data(mounted: Mounted) -> None:
    file, directory = mounted.find(b"file"), mounted.find(b"dir")
    mounted.watch.report(changes(file, directory))
    expected = [("attributes", directory.nodeid), ("attributes", file.nodeid)]
    assert mounted.kernel.wait(2) == sorted(expected, key=str)
    mounted.watch.report(changes(file, data=True))
    assert mounted.kernel.wait(2) == [("attributes", file.nodeid), ("data", file.nodeid)]
    bypassing = SimpleNamespace(backing_id=lambda inode: 7 if inode is file else 0)
    mounted.context.attachments = bypassing  # type: ignore[assignment]
    mounted.watch.report(changes(file, data=True))
    assert mounted.kernel.wait(1) == [("attributes", file.nodeid)], "it has no pages"
    assert mounted.watch.own == {5}
    facts = mounted.coherence.facts()
    assert (facts["coherence"], facts["invalidated_inodes"]) == ("script", 4)
    assert facts["invalidated_names"] == 0


def test_names(mounted: Mounted) -> None:
    directory = mounted.find(b"dir")
    made = Changes()
    made.rename(directory, b"gone", led=True)
    made.rename(directory, b"appeared", led=False)
    made.rename(mounted.tree.root, b"gone", led=True)
    made.expired.add((directory, b"unwatched"))
    mounted.watch.report(made)
    assert mounted.kernel.wait(3) == [
        ("expire", directory.nodeid, b"unwatched"),
        ("name", 1, b"gone"),
        ("name", directory.nodeid, b"gone"),
    ]
    assert mounted.coherence.facts()["invalidated_names"] == 3


@pytest.mark.parametrize("mounted", [", negative: 5s"], indirect=True)
def test_names_that_the_kernel_knows_to_be_absent(mounted: Mounted) -> None:
    made = Changes()
    made.rename(mounted.tree.root, b"appeared", led=False)
    mounted.watch.report(made)
    assert mounted.kernel.wait(1) == [("name", 1, b"appeared")]


def test_an_answer_under_way(mounted: Mounted) -> None:
    file, other = mounted.find(b"file"), mounted.find(b"other")
    tries: list[Message] = []

    def refuse(message: Message) -> bool:
        tries.append(message)
        return len(tries) < 3 or message[1] == other.nodeid

    mounted.kernel.refuse = refuse
    mounted.watch.report(changes(file, data=True))
    assert mounted.kernel.wait(1) == [("attributes", file.nodeid)]
    assert tries == [("attributes", file.nodeid)] * 3
    tries.clear()
    mounted.watch.report(changes(other))
    within(lambda: len(tries) >= 4)
    time.sleep(0.5)
    assert tries == [("attributes", other.nodeid)] * 4, "not for ever"
    tries.clear()
    mounted.tree.forget(file.nodeid, 1)

    def refuse_all(message: Message) -> bool:
        tries.append(message)
        return True

    mounted.kernel.refuse = refuse_all
    mounted.watch.report(changes(file))
    within(lambda: bool(tries))
    time.sleep(0.2)
    assert tries == [("attributes", file.nodeid)], "forgotten: there is no answer under way"


def test_lost_changes(mounted: Mounted) -> None:
    file, directory = mounted.find(b"file"), mounted.find(b"dir")
    lost, dropped = Changes(), changes(file, data=True)
    lost.lost = True
    lost.rename(directory, b"x", led=True)
    dropped.events = 1
    mounted.watch.report(lost, dropped)
    everything = [("attributes", nodeid) for nodeid in (1, directory.nodeid, file.nodeid)]
    assert mounted.kernel.wait(4) == sorted([*everything, ("epoch",)], key=str)
    assert mounted.coherence.facts()["watch_overflows"] == 1
    mounted.watch.report(changes(file))
    assert mounted.kernel.wait(1) == [("attributes", file.nodeid)], "it goes on"


def test_a_moved_directory(mounted: Mounted) -> None:
    made = Changes()
    made.moved = True
    mounted.watch.report(made)
    assert mounted.kernel.wait(0) == [], "no rule looks at paths"


RULES = """}
rules:
- match: {path: '/sealed/**'}
  deny: [overwrite]
#"""


@pytest.mark.parametrize("mounted", [RULES], indirect=True)
def test_rules_by_path(mounted: Mounted) -> None:
    made = Changes()
    made.moved = True
    mounted.watch.report(made)
    assert mounted.kernel.wait(1) == [("epoch",)], "what is below it is under other rules"
    file = mounted.find(b"file")
    assert file.plan.bypasses
    source = Path(os.readlink(f"/proc/self/fd/{mounted.tree.root.descriptor}"))
    os.link(source / "file", source / "dir" / "another")
    made = changes(file)
    made.linked.add(file)
    mounted.watch.report(made)
    mounted.kernel.wait(1)
    assert not file.plan.bypasses, "by its other name it may be denied"


def test_a_watch_that_fails(mounted: Mounted, capfd: pytest.CaptureFixture[str]) -> None:
    file = mounted.find(b"file")
    assert mounted.validity(file).attribute_seconds == 3600
    mounted.watch.report(OSError(errno.EIO, "broken"))
    expected: list[Message] = [("data", 1), ("data", file.nodeid), ("epoch",)]
    assert mounted.kernel.wait(3) == expected
    assert mounted.validity(file).attribute_seconds == 1
    assert mounted.coherence.has_failed
    assert "failed" in mounted.coherence.facts()["coherence"]


@pytest.mark.parametrize("mounted", ["", ", entry: 5s, attributes: 7m"], indirect=True)
def test_how_long_is_believed(mounted: Mounted, request: pytest.FixtureRequest) -> None:
    given = "5s" in request.node.name
    long, short = ((5, 420), (5, 420)) if given else ((3600, 3600), (1, 1))
    file = mounted.find(b"file")

    def validity(covered: int) -> tuple[int, int]:
        mounted.watch.covered = covered
        found = mounted.validity(file)
        return found.entry_seconds, found.attribute_seconds

    assert validity(NAME | ATTRIBUTES) == long
    assert validity(NAME) == (long[0], short[1])
    assert validity(ATTRIBUTES) == (short[0], long[1])
    assert validity(0) == short
    source = Path(os.readlink(f"/proc/self/fd/{mounted.tree.root.descriptor}"))
    (source / "file").chmod(0o4755)
    assert validity(NAME | ATTRIBUTES) == (long[0], 0), "set-id files are asked for each time"
    assert validity(0) == (short[0], 0)
    (source / "file").chmod(0o755)
    plan = file.plan
    file.plan = msgspec.structs.replace(plan, attributes_unsure=True)
    assert validity(NAME | ATTRIBUTES) == (long[0], 0), "the policy may answer otherwise"
    file.plan = msgspec.structs.replace(plan, unsure=True)
    assert validity(NAME | ATTRIBUTES) == (0, 0)
    file.plan = plan
    mounted.coherence.believe_no_more()
    assert validity(NAME | ATTRIBUTES) == short


def _read_by(monkeypatch: pytest.MonkeyPatch, read: Callable[[int, bytes], Attributes]) -> None:
    """Let the tree read attributes by *read*."""
    identify = identity.identify

    def identified(directory: int, name: bytes) -> tuple[bytes, Attributes] | None:
        found = identify(directory, name)
        return found and (found[0], read(directory, name))

    monkeypatch.setattr(trees, "identify", identified)
    monkeypatch.setattr(trees, "attributes_of", lambda at, name=b"": read(at, name))


def test_attributes_are_not_older_than_the_watch(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change between reading attributes and knowing the inode goes past the watch."""
    source = Path(os.readlink(f"/proc/self/fd/{mounted.tree.root.descriptor}"))
    read = identity.attributes_of
    changed: list[str] = []

    def then_changed(descriptor: int, name: bytes) -> Attributes:
        attributes = read(descriptor, name)
        if not changed:
            changed.append("mode")
            (source / "file").chmod(0o611)
        return attributes

    _read_by(monkeypatch, then_changed)
    _, attributes = mounted.tree.resolve(mounted.tree.root, b"file")
    assert attributes.mode & 0o777 == 0o611
    changed.clear()
    (source / "file").chmod(0o644)
    descriptor = os.open(source / "file", os.O_RDONLY)
    _, attributes = mounted.tree.adopt_open(descriptor)
    os.close(descriptor)
    assert attributes.mode & 0o777 == 0o611
    changed.clear()
    (source / "file").chmod(0o644)
    _, attributes = mounted.tree.adopt(os.open(source / "file", os.O_PATH))
    assert attributes.mode & 0o777 == 0o611


def test_a_name_given_to_another_while_it_is_looked_at(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(os.readlink(f"/proc/self/fd/{mounted.tree.root.descriptor}"))
    read = identity.attributes_of
    changed: list[Path] = []

    def then_replaced(descriptor: int, name: bytes) -> Attributes:
        attributes = read(descriptor, name)
        if not changed:
            changed.append((source / "other").rename(source / "file"))
        return attributes

    number = (source / "other").stat().st_ino
    _read_by(monkeypatch, then_replaced)
    inode, attributes = mounted.tree.resolve(mounted.tree.root, b"file")
    assert (inode.number, attributes.inode) == (number, number)
    assert inode.lookups == 1
    assert len(mounted.tree.table) == 2, "the earlier one is not counted"
