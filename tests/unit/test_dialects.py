"""Each dialect's bytes, read back as its kernel reads them, and which one is chosen for what."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.wire_strategies import ATTRIBUTES, U32, U64, VALIDITIES, seen_by_stat, seen_by_statx

import inopt
from inopt.exceptions import UsageError
from inopt.kernel.abilities import Abilities, choose_dialect, needs_probe
from inopt.kernel.device import Device
from inopt.kernel.dialects import (
    BY_NAME,
    KNOWN,
    NO_OPS,
    PLAIN,
    Android,
    Dialect,
    InoV1,
    InoV2,
    Mainline,
    Plain,
    RfcV7,
    Tier,
)
from inopt.kernel.negotiate import Wishes, negotiate
from inopt.ops import Op, OpsMask
from inopt.wire import kernel_side, layouts, uapi
from inopt.wire.bodies import Init
from inopt.wire.kernel_side import Entry2Reply, EntryReply
from inopt.wire.replies import Attributes, Validity
from inopt.wire.uapi import InitFlag

calm = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

V2_OPS: Final = OpsMask.of(Op.GETATTR, Op.SETATTR, Op.READ, Op.WRITE, Op.READDIR, Op.STATX)
V1_OPS: Final = V2_OPS | OpsMask.of(Op.OPEN)
BIT_43: Final = 1 << 43

NARROW: Final = [Plain(), Mainline(), Android(), RfcV7()]
POSITIVE: Final = st.integers(1, 2**31 - 1)


def name_of(dialect: Dialect) -> str:
    return dialect.name


# --- entries ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", NARROW, ids=name_of)
@calm
@given(U64, U64, ATTRIBUTES, VALIDITIES, U64, POSITIVE)
def test_entries_that_name_nothing(
    dialect: Dialect,
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    number: int,
    backing_id: int,
) -> None:
    expected = EntryReply(nodeid, generation, validity, seen_by_stat(attributes, number), 0)
    for payload in (
        dialect.entry(nodeid, generation, attributes, validity, number),
        dialect.entry(nodeid, generation, attributes, validity, number, backing_id),
    ):
        assert kernel_side.decode_entry(payload) == expected


@calm
@given(U64, U64, ATTRIBUTES, VALIDITIES, U64, st.just(0) | POSITIVE)
def test_entries_of_ino_v2(
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    number: int,
    backing_id: int,
) -> None:
    payload = InoV2(V2_OPS).entry(nodeid, generation, attributes, validity, number, backing_id)
    seen = seen_by_statx(attributes, number)
    assert kernel_side.decode_entry2(payload) == Entry2Reply(
        nodeid, generation, validity, seen, backing_id, 0
    )
    assert payload[48:56] == bytes(8), "reserved"
    mask = layouts.ENTRY2_OUT.unpack(payload)[8]
    assert mask & uapi.STATX_BASIC_STATS == uapi.STATX_BASIC_STATS


@calm
@given(U64, U64, ATTRIBUTES, VALIDITIES, U64, POSITIVE)
def test_entries_of_ino_v1(
    nodeid: int,
    generation: int,
    attributes: Attributes,
    validity: Validity,
    number: int,
    backing_id: int,
) -> None:
    one, two = InoV1(V1_OPS), InoV2(V2_OPS)
    fixed = (nodeid, generation, attributes, validity, number)
    assert one.entry(*fixed, backing_id) == two.entry(*fixed, backing_id)
    assert one.entry(*fixed) == PLAIN.entry(*fixed)


@pytest.mark.parametrize("kind", [Plain, *KNOWN])
@given(U64, U32)
def test_negative_entries(kind: type[Plain], seconds: int, nanoseconds: int) -> None:
    validity = Validity(seconds, nanoseconds, 7, 8)
    payload = kind().negative_entry(validity)
    assert len(payload) == (312 if kind is InoV2 else 128)
    reply = kernel_side.decode_any_entry(payload)
    assert (reply.nodeid, reply.validity) == (0, Validity(seconds, nanoseconds, 0, 0))


# --- opens -----------------------------------------------------------------------------------

FLAGS: Final = st.integers(0, 127)


@pytest.mark.parametrize("kind", [Mainline, InoV1, InoV2])
@given(U64, FLAGS, POSITIVE)
def test_opens_of_mainline(kind: type[Plain], handle: int, flags: int, backing_id: int) -> None:
    reply = kernel_side.decode_open(kind().open(handle, flags, backing_id))
    assert (reply.handle, reply.backing_id) == (handle, backing_id)
    assert reply.open_flags & uapi.FOPEN_PASSTHROUGH
    assert not reply.open_flags & uapi.FOPEN_KEEP_CACHE
    kept = flags & ~uapi.FOPEN_KEEP_CACHE
    assert reply.open_flags == kept | uapi.FOPEN_PASSTHROUGH


@pytest.mark.parametrize("kind", [Plain, Mainline, InoV1, InoV2, Android])
@given(U64, FLAGS)
def test_opens_without_bypass(kind: type[Plain], handle: int, flags: int) -> None:
    assert kernel_side.decode_open(kind().open(handle, flags, 0)) == kernel_side.OpenReply(
        handle, flags, 0
    )


@given(U64, FLAGS, POSITIVE)
def test_opens_of_android(handle: int, flags: int, backing_id: int) -> None:
    reply = kernel_side.decode_open(Android().open(handle, flags, backing_id))
    assert reply == kernel_side.OpenReply(handle, flags, backing_id), "no flag tells of it"


@given(U64, FLAGS, st.just(0) | POSITIVE)
def test_opens_of_rfc_v7(handle: int, flags: int, backing_id: int) -> None:
    """What is FOPEN_NOFLUSH today was the posting's FOPEN_PASSTHROUGH."""
    reply = kernel_side.decode_open(RfcV7().open(handle, flags, backing_id))
    assert (reply.handle, reply.backing_id) == (handle, backing_id)
    assert bool(reply.open_flags & 1 << 5) == bool(backing_id)
    assert reply.open_flags & ~(1 << 5) == flags & 0x1F


# --- registering -----------------------------------------------------------------------------


class _Device(Device):
    """Notes the calls."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        super().__init__(-1)
        self.calls: list[tuple[object, ...]] = []

    def backing_open(self, descriptor: int, ops_mask: int = 0) -> int:
        self.calls.append(("open", descriptor, ops_mask))
        return 7

    def backing_close(self, backing_id: int) -> None:
        self.calls.append(("close", backing_id))

    def passthrough_open(self, descriptor: int) -> int:
        self.calls.append(("passthrough", descriptor))
        return 8


def test_registering() -> None:
    device = _Device()
    mask = OpsMask.of(Op.GETATTR)
    for dialect in (Mainline(), InoV1(V1_OPS), InoV2(V2_OPS)):
        assert dialect.register(device, 3, mask) == 7
        dialect.release(device, 7)
    bits = int(mask)
    assert device.calls == [
        ("open", 3, 0), ("close", 7), ("open", 3, bits), ("close", 7), ("open", 3, bits),
        ("close", 7),
    ]  # fmt: skip
    device.calls.clear()
    assert Android().register(device, 3, mask) == 8
    Android().release(device, 8)
    assert device.calls == [("passthrough", 3)], "used up by the reply: there is no way back"


def test_rfc_v7_registers_a_descriptor_above_zero(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    device = _Device()
    first = os.open(tmp_path / "file", os.O_RDWR)
    try:
        backing_id = RfcV7().register(device, first)
        assert backing_id not in (0, first)
        assert os.pread(backing_id, 9, 0) == b"data"
        assert not os.get_inheritable(backing_id)
        RfcV7().release(device, backing_id)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(backing_id)
    finally:
        os.close(first)
    assert device.calls == []


# --- choosing --------------------------------------------------------------------------------

MAINLINE_FLAGS: Final = 1 << 37
INO_FLAGS: Final = MAINLINE_FLAGS | BIT_43
ANDROID_FLAGS: Final = 1 << 31
V7_FLAGS: Final = 1 << 27
EVERYTHING: Final = 2**64 - 1


def proof(dialect: str, accepts: OpsMask = NO_OPS) -> Abilities:
    return Abilities(7, 45, 0, 0, dialect, accepts)


@pytest.mark.parametrize(
    ("offered", "found", "expected"),
    [
        (0, None, "none"),
        (MAINLINE_FLAGS, None, "mainline"),
        (INO_FLAGS, None, "mainline"),
        (INO_FLAGS, proof("mainline"), "mainline"),
        (INO_FLAGS, proof("ino-v2", V2_OPS), "ino-v2"),
        (INO_FLAGS, proof("ino-v1", V1_OPS), "ino-v1"),
        (MAINLINE_FLAGS, proof("ino-v2", V2_OPS), "mainline"),
        (ANDROID_FLAGS, None, "none"),
        (ANDROID_FLAGS, proof("none"), "none"),
        (ANDROID_FLAGS, proof("android"), "android"),
        (ANDROID_FLAGS | MAINLINE_FLAGS, proof("android"), "mainline"),
        (V7_FLAGS, None, "none"),
        (V7_FLAGS, proof("rfc-v7"), "none"),
    ],
)
def test_the_best_there_is(offered: int, found: Abilities | None, expected: str) -> None:
    dialect = choose_dialect(offered, None, privileged=True, proof=found)
    assert dialect.name == expected
    assert dialect.accepts == (found.accepts if found and expected.startswith("ino") else OpsMask())
    none = choose_dialect(offered, Tier.NONE, privileged=True, proof=found)
    assert none is PLAIN, "the kill switch is above all"


def test_a_tier_is_demanded() -> None:
    ino = proof("ino-v2", V2_OPS)
    for wanted, name in ((Tier.RW, "mainline"), (Tier.INODE, "ino-v2")):
        assert choose_dialect(INO_FLAGS, wanted, privileged=True, proof=ino).name == name
    for wanted, offered, found in (
        (Tier.INODE, INO_FLAGS, proof("mainline")),
        (Tier.INODE, MAINLINE_FLAGS, None),
        (Tier.RW, 0, None),
    ):
        with pytest.raises(UsageError, match=f"tier '{wanted.label}': this kernel does not give"):
            choose_dialect(offered, wanted, privileged=True, proof=found)
    with pytest.raises(UsageError, match="mainline: registering backing files needs CAP_SYS_ADMIN"):
        choose_dialect(INO_FLAGS, Tier.RW, privileged=False, proof=ino)
    assert choose_dialect(INO_FLAGS, None, privileged=False, proof=ino) is PLAIN


@pytest.mark.parametrize(
    ("abi", "offered", "found"),
    [
        ("mainline", INO_FLAGS, proof("ino-v2", V2_OPS)),
        ("ino-v1", INO_FLAGS, proof("ino-v1", V1_OPS)),
        ("ino-v2", INO_FLAGS, proof("ino-v2", V2_OPS)),
        ("android", ANDROID_FLAGS, proof("android")),
        ("rfc-v7", V7_FLAGS, None),
    ],
)
def test_by_name(abi: str, offered: int, found: Abilities | None) -> None:
    dialect = choose_dialect(offered, None, privileged=True, abi=abi, proof=found)
    assert dialect.name == abi
    wrong = Tier.RW if dialect.tier is Tier.INODE else Tier.INODE
    with pytest.raises(UsageError, match=f"--abi {abi}: gives tier '{dialect.tier.label}'"):
        choose_dialect(offered, wrong, privileged=True, abi=abi, proof=found)


@pytest.mark.parametrize(
    ("abi", "offered", "found", "reason"),
    [
        ("mainline", ANDROID_FLAGS, None, r"does not offer INIT flag 37 \(PASSTHROUGH\)"),
        ("ino-v2", MAINLINE_FLAGS, None, "does not offer INIT flag 43:"),
        ("ino-v2", INO_FLAGS, None, "could not be asked"),
        ("ino-v2", INO_FLAGS, proof("ino-v1", V1_OPS), "to speak ino-v1"),
        ("ino-v1", INO_FLAGS, proof("ino-v2", V2_OPS), "to speak ino-v2"),
        ("ino-v2", INO_FLAGS, proof("mainline"), "to speak mainline"),
        ("android", EVERYTHING, proof("android"), "has mainline's FUSE_PASSTHROUGH"),
        ("android", ANDROID_FLAGS, proof("none"), "to speak none"),
        ("rfc-v7", EVERYTHING, proof("rfc-v7"), "has mainline's FUSE_PASSTHROUGH"),
        ("rfc-v7", ANDROID_FLAGS, None, "does not offer INIT flag 27"),
    ],
)
def test_a_name_that_the_kernel_contradicts(
    abi: str, offered: int, found: Abilities | None, reason: str
) -> None:
    with pytest.raises(
        UsageError, match=f"^--abi {abi}: .*{reason}.*see 'inopt doctor'$"
    ) as caught:
        choose_dialect(offered, None, privileged=True, abi=abi, proof=found)
    assert "\n" not in str(caught.value)


def test_when_to_ask() -> None:
    assert not needs_probe(MAINLINE_FLAGS, None, None)
    assert needs_probe(INO_FLAGS, None, None)
    assert needs_probe(INO_FLAGS, Tier.INODE, "ino-v1")
    assert not needs_probe(INO_FLAGS, Tier.RW, None)
    assert not needs_probe(INO_FLAGS, None, "mainline")
    assert not needs_probe(INO_FLAGS, Tier.NONE, "ino-v2")
    assert needs_probe(ANDROID_FLAGS, None, None)
    assert not needs_probe(ANDROID_FLAGS | MAINLINE_FLAGS, Tier.RW, None)
    assert not needs_probe(V7_FLAGS, None, "rfc-v7")


@given(st.integers(0, EVERYTHING), st.sampled_from([None, *Tier]), st.booleans())
def test_flags_alone_never_lead_further_than_mainline(
    offered: int, wanted: Tier | None, privileged: bool
) -> None:
    try:
        dialect = choose_dialect(offered, wanted, privileged=privileged)
    except UsageError:
        assert wanted in (Tier.RW, Tier.INODE)
        return
    expected = offered & MAINLINE_FLAGS and privileged and wanted is not Tier.NONE
    assert dialect.name == ("mainline" if expected else "none")


# --- negotiating -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KNOWN)
def test_negotiated(kind: type[Plain]) -> None:
    others = 0
    for other in KNOWN:
        others |= other.init_flags
    offered = EVERYTHING & ~others | kind.init_flags
    found = proof(kind.name, V1_OPS if kind is InoV1 else V2_OPS)
    terms = negotiate(
        Init(7, 46, 1 << 17, offered), Wishes(abi=kind.name), privileged=True, proof=found
    )
    assert terms.dialect.name == kind.name
    assert terms.flags & others == kind.init_flags
    assert not terms.has(InitFlag.WRITEBACK_CACHE)
    plus = terms.flags & (InitFlag.DO_READDIRPLUS | InitFlag.READDIRPLUS_AUTO)
    assert bool(plus) == (kind.tier < Tier.INODE), "an inode met so would have no backing"
    reply = kernel_side.decode_init(terms.reply)
    assert reply.flags == terms.flags
    assert reply.max_stack_depth == 1
    assert bool(reply.flags & InitFlag.INIT_EXT)


@pytest.mark.parametrize(
    ("export", "like_libfuse", "expected"),
    [
        (True, False, InitFlag.EXPORT_SUPPORT),
        (False, False, InitFlag.NO_EXPORT_SUPPORT),
        (True, True, InitFlag.EXPORT_SUPPORT),
        (False, True, InitFlag(0)),  # what it never said it does not say now
    ],
)
def test_file_handles(export: bool, like_libfuse: bool, expected: InitFlag) -> None:
    offered = InitFlag.EXPORT_SUPPORT | InitFlag.NO_EXPORT_SUPPORT
    wishes = Wishes(tier=Tier.NONE, export=export, like_libfuse=like_libfuse)
    terms = negotiate(Init(7, 45, 1 << 17, offered), wishes, privileged=True)
    assert terms.flags & offered == expected


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="abi 'solaris': not a dialect: known are ino-v1, ino-v2"):
        negotiate(Init(7, 45, 0, 0), Wishes(abi="solaris"), privileged=True)


# --- the room --------------------------------------------------------------------------------


def test_names_are_whole() -> None:
    assert list(BY_NAME) == ["ino-v1", "ino-v2", "mainline", "android", "rfc-v7"]


def test_nothing_else_knows_how_bypass_is_spelled() -> None:
    """Neither by the names of flags, nor by asking which dialect there is."""
    package = Path(inopt.__file__).parent
    spelled = {"FOPEN_PASSTHROUGH", "PASSTHROUGH", "backing_open", "passthrough_open"}
    homes = {"kernel/dialects", "kernel/device.py", "wire/uapi.py", "testing/fake.py"}
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        if any(name.startswith(home) for home in homes):
            continue
        words = {
            node.attr if isinstance(node, ast.Attribute) else node.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute | ast.Name)
        }
        texts = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant)
        }
        assert not words & spelled, name
        assert not texts & (set(BY_NAME) | spelled), name
