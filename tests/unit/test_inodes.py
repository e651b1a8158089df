"""The inode table against a plain model: any order of lookups, forgets and number reuse."""

import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from support.sizing import examples

from inopt.backing.filesystems import Filesystem
from inopt.backing.inodes import FOREIGN, ROOT_NODEID, Inode, InodeTable, generation_of

ROOT_KEY = (10, 8, 1, 2)
INODE_NUMBERS = st.sampled_from([1, 2, 11, 12, 13, FOREIGN + (1 << 40), (1 << 53) + 1])
DEVICES = st.sampled_from([(10, 8, 1), (10, 8, 2), (11, 8, 1), (12, 0, 40)])


def handle_for(inode: int, generation: int) -> bytes:
    return struct.pack("<IiII", 8, 1, inode & 0xFFFFFFFF, generation)


def new_table() -> InodeTable:
    filesystem = Filesystem(10, 8, 1, -1)
    root = Inode(ROOT_NODEID, 2, filesystem, handle_for(2, 1))
    root.lookups = 1
    return InodeTable(root)


class TableMachine(RuleBasedStateMachine):
    """What lives in the model: nodeid → (sum of lookups, key, generation of the newest)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = new_table()
        self.filesystem = Filesystem(10, 8, 1, -1)
        self.model: dict[int, tuple[int, tuple[int, ...], int]] = {}
        self.alive: dict[tuple[int, ...], int] = {}

    known = Bundle("known")

    @rule(target=known, device=DEVICES, number=INODE_NUMBERS)
    def lookup(self, device: tuple[int, int, int], number: int) -> int:
        key = (*device, number)
        generation = self.alive.setdefault(key, 1)
        handle = handle_for(number, generation)
        before = {nodeid for nodeid, entry in self.model.items() if entry[1] == key}
        inode, new = self.table.adopt(key, self.filesystem, handle, -1)
        count, _, earlier = self.model.get(inode.nodeid, (0, key, generation))
        assert earlier == generation, "a nodeid never changes its inode"
        assert new == (inode.nodeid not in before)
        newest = [nodeid for nodeid in before if self.model[nodeid][2] == generation]
        assert newest in ([], [inode.nodeid]), "a known inode keeps its nodeid"
        self.model[inode.nodeid] = (count + 1, key, generation)
        assert inode.generation == generation
        native = device == ROOT_KEY[:3]
        if native and number != ROOT_NODEID and number < FOREIGN and not before:
            assert inode.nodeid == number
        assert inode.number == (number if native else inode.nodeid)
        assert self.table.find(key) is inode
        return inode.nodeid

    @rule(device=DEVICES, number=INODE_NUMBERS)
    def reuse_number(self, device: tuple[int, int, int], number: int) -> None:
        key = (*device, number)
        if key in self.alive:
            self.alive[key] += 1

    @rule(nodeid=consumes(known))
    def forget_one(self, nodeid: int) -> None:
        self._forget(nodeid, 1)

    @rule(nodeid=known)
    def forget_all(self, nodeid: int) -> None:
        if nodeid in self.model:
            self._forget(nodeid, self.model[nodeid][0])

    def _forget(self, nodeid: int, count: int) -> None:
        if nodeid not in self.model:
            assert self.table.forget(nodeid, count) is None
            return
        total, key, generation = self.model[nodeid]
        gone = self.table.forget(nodeid, count)
        if total == count:
            assert gone is not None
            assert gone.nodeid == nodeid
            del self.model[nodeid]
        else:
            assert gone is None
            self.model[nodeid] = (total - count, key, generation)

    @invariant()
    def agrees(self) -> None:
        found = {inode.nodeid: inode.lookups for inode in self.table.snapshot()}
        found.pop(ROOT_NODEID)
        assert found == {nodeid: entry[0] for nodeid, entry in self.model.items()}
        inodes = [entry[1:] for entry in self.model.values()]
        assert len(inodes) == len(set(inodes)), "one nodeid for each backing inode"


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)


def test_the_root_is_never_forgotten() -> None:
    table = new_table()
    assert table.forget(ROOT_NODEID, 1 << 60) is None
    assert table.get(ROOT_NODEID) is table.root


def test_an_unknown_nodeid_is_stale() -> None:
    with pytest.raises(OSError, match="Stale"):
        new_table().get(77)


def test_generations_tell_reused_numbers_apart() -> None:
    assert generation_of(handle_for(12, 7)) == 7
    assert generation_of(b"") == 0
    longer = struct.pack("<IiQQ", 16, 0x4D, 12, 7)
    assert generation_of(longer) != generation_of(struct.pack("<IiQQ", 16, 0x4D, 12, 8))


def test_foreign_inodes_are_found_by_their_key() -> None:
    table = new_table()
    key = (99, 0, 50, 2)
    inode, _ = table.adopt(key, Filesystem(99, 0, 50, -1), handle_for(2, 1), -1)
    assert inode.nodeid >= FOREIGN
    assert table.find(key) is inode
    table.forget(inode.nodeid, 1)
    assert table.find(key) is None
