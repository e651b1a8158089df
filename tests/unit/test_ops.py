"""Opcodes, their groups and the bitset of them."""

from __future__ import annotations

import operator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire_strategies import fuse_header

from inopt.ops import GROUPS, NO_REPLY, OPCODE_LIMIT, Op, OpsMask, op_name

OPS: Final = st.sets(st.sampled_from(sorted(Op)))
NUMBERS: Final = st.sets(st.integers(1, 64))
BITS: Final = st.integers(0, (1 << 64) - 1)


# --- opcodes ---------------------------------------------------------------------------------


def test_opcodes_are_the_kernels() -> None:
    header = fuse_header()
    if header is None:
        pytest.skip("linux/fuse.h is not installed")
    ours = {op.name: int(op) for op in Op}
    # The reserved byte-swapped INIT opcode is no opcode of a request.
    theirs = {name: number for name, number in header.opcodes.items() if number < 4096}
    assert theirs.items() <= ours.items() or header.minor > 45
    newer = {"STATX", "COPY_FILE_RANGE_64"}
    assert ours.keys() - theirs.keys() <= newer


def test_opcodes_newer_than_most_headers() -> None:
    # enum fuse_opcode of 7.37, 7.39 and 7.45.
    assert (Op.TMPFILE, Op.STATX, Op.COPY_FILE_RANGE_64) == (51, 52, 53)


def test_numbers_that_never_were_opcodes() -> None:
    assert {0, 7, 19}.isdisjoint(Op)
    assert len(Op) == 51


def test_every_opcode_fits_a_table_and_a_mask() -> None:
    assert all(0 < op < OPCODE_LIMIT for op in Op)
    assert OPCODE_LIMIT == 64


def test_unanswered_opcodes() -> None:
    # fuse_retrieve() queues NOTIFY_REPLY without FR_ISREPLY, so it may be listed as well.
    assert {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT} <= NO_REPLY
    assert {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY} >= NO_REPLY


@pytest.mark.parametrize("op", Op)
def test_known_opcodes_are_named(op: Op) -> None:
    assert op_name(int(op)) == op.name


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 63, 64, 77, 4096, 0xFFFF_FFFF])
def test_unknown_opcodes_are_numbered(opcode: int) -> None:
    assert op_name(opcode) == f"opcode {opcode}"


# --- groups ----------------------------------------------------------------------------------


def test_groups() -> None:
    assert set(GROUPS) == {"read", "write", "metadata", "namespace", "xattr", "locks", "all"}
    assert GROUPS["all"] == set(Op)
    assert GROUPS["read"] == {Op.READ, Op.LSEEK, Op.READLINK, Op.READDIR, Op.READDIRPLUS}
    assert GROUPS["write"] == {
        Op.WRITE,
        Op.FALLOCATE,
        Op.COPY_FILE_RANGE,
        Op.COPY_FILE_RANGE_64,
    }
    assert GROUPS["metadata"] == {Op.GETATTR, Op.STATX, Op.SETATTR, Op.ACCESS, Op.STATFS}
    assert GROUPS["locks"] == {Op.GETLK, Op.SETLK, Op.SETLKW}
    assert GROUPS["xattr"] == {Op.SETXATTR, Op.GETXATTR, Op.LISTXATTR, Op.REMOVEXATTR}
    assert {Op.CREATE, Op.TMPFILE, Op.RENAME2} < GROUPS["namespace"]
    assert len(GROUPS["namespace"]) == 10


def test_groups_but_all_are_disjoint() -> None:
    parts = [ops for name, ops in GROUPS.items() if name != "all"]
    assert sum(map(len, parts)) == len(frozenset().union(*parts))


def test_groups_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        operator.setitem(GROUPS, "mine", frozenset())  # type: ignore[call-overload]


# --- OpsMask ---------------------------------------------------------------------------------


@given(OPS)
def test_mask_is_a_set_of_opcodes(ops: set[Op]) -> None:
    mask = OpsMask.of(*ops)
    assert list(mask) == sorted(ops)
    assert all(isinstance(op, Op) for op in mask)
    assert [op for op in Op if op in mask] == sorted(ops)
    assert bool(mask) == bool(ops)
    assert int(mask) == operator.index(mask) == mask.bits == sum(1 << (op - 1) for op in ops)


@given(NUMBERS, NUMBERS)
def test_mask_algebra_is_that_of_sets(left: set[int], right: set[int]) -> None:
    a, b = OpsMask.of(*left), OpsMask.of(*right)
    assert a | b == OpsMask.of(*(left | right))
    assert a & b == OpsMask.of(*(left & right))
    assert a - b == OpsMask.of(*(left - right))
    assert (a == b) == (left == right)


@given(BITS)
def test_mask_keeps_bits_without_a_name(bits: int) -> None:
    mask = OpsMask(bits)
    assert OpsMask.of(*(number for number in range(1, 65) if number in mask)) == mask
    assert OpsMask.of(*mask).bits & ~bits == 0
    assert len({mask, OpsMask(bits)}) == 1


@pytest.mark.parametrize("op", [0, -1, 65, 4096])
def test_opcodes_without_a_bit(op: int) -> None:
    assert op not in OpsMask((1 << 64) - 1)
    with pytest.raises(ValueError, match="has no bit"):
        OpsMask.of(op)


@pytest.mark.parametrize("bits", [-1, 1 << 64, 1 << 70])
def test_mask_has_64_bits(bits: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        OpsMask(bits)


def test_mask_bits_are_those_of_the_posting() -> None:
    # FUSE_PASSTHROUGH_OP(op) is 1 << (op - 1).
    assert OpsMask.of(Op.LOOKUP).bits == 1
    assert OpsMask.of(Op.READ, Op.WRITE).bits == 0xC000
    assert OpsMask.of(Op.COPY_FILE_RANGE_64).bits == 1 << 52


def test_mask_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        setattr(OpsMask(1), "bits", 2)  # noqa: B010


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (OpsMask(), "OpsMask(0)"),
        (OpsMask.of(Op.READ, Op.LOOKUP), "OpsMask(LOOKUP|READ)"),
        (OpsMask.of(7, 64, Op.OPEN), "OpsMask(7|OPEN|64)"),
    ],
)
def test_mask_shows_names_and_numbers(mask: OpsMask, text: str) -> None:
    assert repr(mask) == text
