"""What `inopt explain` tells: the rule and the word that decide, and the reasons of the kernel."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inopt.ops import Op, OpsMask
from inopt.policy.callers import Caller
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.explaining.applicable import AT_OPEN, asked_for, on_inode, opcode_of
from inopt.policy.explaining.explain import explain
from inopt.policy.explaining.identity import Identity, parse_identity
from inopt.policy.explaining.lines import DEPENDS, Line
from inopt.policy.explaining.matrix import MIXED, matrix
from inopt.policy.explaining.subjects import Subject, make_up, names_of, walk
from inopt.policy.facts import TYPES
from inopt.policy.load import parse_policy
from inopt.policy.plan import HANDLER, KERNEL
from inopt.policy.rules import Rules, compile_rules
from inopt.policy.words import SETATTR_PARTS, WORDS, Part, slot_name

DRAFT = OpsMask.of(Op.GETATTR, Op.STATX, Op.SETATTR, Op.READDIR)
HANDLERS = "handlers: 'inopt.handlers.audit:AuditHandlers'\n"


def rules_of(text: str) -> Rules:
    return compile_rules(parse_policy(f"version: 1\n{text}".encode(), "p.yaml"))


def policy_of(text: str, tier: str = "rw") -> CompiledPolicy:
    return CompiledPolicy(
        rules_of(text),
        reads_and_writes=tier != "none",
        kernel=DRAFT if tier == "inode" else OpsMask(),
    )


def lines_of(
    text: str,
    path: str = "/a",
    *,
    tier: str = "rw",
    type_name: str = "file",
    caller: Identity | None = None,
    handled: frozenset[int] | None = None,
) -> dict[str, Line]:
    """Lines by operation, for what is not there."""
    policy = policy_of(text, tier)
    subjects = make_up(policy, [], names_of(path), TYPES[type_name])
    return {line.operation: line for line in explain(policy, subjects, caller, handled)}


def lines_in(text: str, root: Path, path: str, *, tier: str = "rw") -> dict[str, Line]:
    """Lines by operation, for a file that is there."""
    policy = policy_of(text, tier)
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        with walk(policy, descriptor, names_of(path)) as found:
            lines = explain(policy, found)
    finally:
        os.close(descriptor)
    return {line.operation: line for line in lines}


def at(line: Line) -> tuple[str, str, int, int]:
    assert line.place is not None
    return line.route, line.rule, line.place.line, line.place.column


# --- which word decides --------------------------------------------------------------------------


def test_the_word_that_decides() -> None:
    text = (
        "otherwise: handle\n"
        "rules:\n"
        "- name: first\n"
        "  match: {path: /a}\n"
        "  deny: {write: EROFS, overwrite: EPERM}\n"
        "  handle: [getattr, metadata]\n"
        "  bypass: readdir\n"
        "- deny: [xattr, getxattr]\n"
    )
    lines = lines_of(HANDLERS + text)
    assert at(lines["write"]) == ("deny EROFS", "first", 7, 10)
    assert at(lines["overwrite"]) == ("deny EROFS", "first", 7, 10), "write is asked first"
    assert at(lines["getattr"]) == ("handler", "first", 8, 12)
    assert at(lines["statfs"]) == ("handler", "first", 8, 21)
    assert at(lines["getxattr"]) == ("deny EACCES", "rule 2", 10, 17)
    assert at(lines["setxattr"]) == ("deny EROFS", "rule 2", 10, 10)
    assert at(lines["read"]) == ("handler", "otherwise", 3, 1)
    listed = lines_of(HANDLERS + text, type_name="directory")
    assert at(listed["readdir"]) == ("daemon", "first", 9, 11)


def test_what_the_kernel_does_by_itself_is_only_told_of_where_a_handler_does_it() -> None:
    words = {"getlk", "setlk", "setlkw", "flock", "poll"}
    assert words.isdisjoint(lines_of("rules: [{deny: [open, all]}]"))
    lines = lines_of(HANDLERS + "rules: [{name: mine, handle: [flock, setlk]}]\n")
    assert lines.keys() & words == {"setlk", "setlkw", "flock"}
    assert at(lines["flock"]) == ("handler", "mine", 3, 31)
    assert at(lines["setlkw"]) == ("handler", "mine", 3, 38)
    lines = lines_of(HANDLERS + "rules: [{name: mine, handle: locks, deny: open}]\n")
    assert (lines["getlk"].route, lines["getlk"].why) == ("deny EACCES", "refused at open")
    assert words.isdisjoint(lines_of(HANDLERS + "rules: [{handle: poll}]\n", type_name="directory"))


def test_a_default_that_nobody_wrote_has_no_place() -> None:
    line = lines_of("")["read"]
    assert (line.route, line.rule, line.place, line.why) == ("kernel", "otherwise", None, "")


def test_places_in_included_files(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("version: 1\nrules:\n- deny: [chmod]\n")
    main = tmp_path / "main.yaml"
    main.write_text("version: 1\ninclude: base.yaml\nrules:\n- {handle: read}\n")
    loaded = parse_policy(main.read_bytes(), str(main))
    policy = CompiledPolicy(compile_rules(loaded), reads_and_writes=True, kernel=OpsMask())
    subjects = make_up(policy, [], [b"a"], stat.S_IFREG)
    place = {line.operation: line for line in explain(policy, subjects)}["chmod"].place
    assert place is not None
    assert (Path(place.path).name, place.line, place.column) == ("base.yaml", 3, 10)


# --- why the kernel does not serve it -----------------------------------------------------------

WHYS: list[tuple[str, str, str, str, str]] = [
    # policy, tier, operation, route, part of the reason
    ("", "none", "read", "daemon", "tier none"),
    ("", "none", "getattr", "daemon", "tier none"),
    ("", "rw", "getattr", "daemon", "tier rw: only read, write and mmap can bypass"),
    ("", "rw", "unlink", "daemon", "no kernel can bypass unlink: served by the daemon"),
    ("", "inode", "open", "daemon", "tier inode: of what looks at an inode, only getattr"),
    ("rules: [{name: r, handle: read}]", "rw", "write", "daemon",
     "read is handled (rule 'r'), and read and write bypass together or not at all"),
    ("rules: [{name: w, handle: [write]}]", "rw", "mmap", "daemon", "write is handled (rule 'w')"),
    ("otherwise: handle\nrules: [{bypass: read}]", "rw", "read", "daemon",
     "write is handled (otherwise)"),
    ("rules: [{match: {caller: {user: 7}}, handle: [write]}]", "rw", "write", "handler", ""),
    ("rules: [{name: w, match: {caller: {user: 7}}, handle: [write]}]", "rw", "read", "daemon",
     "write for some callers is handled (rule 'w')"),
    ("rules: [{name: o, deny: [overwrite]}]", "rw", "read", "daemon",
     "overwrite is denied (rule 'o'), so each write is looked at"),
    ("rules: [{name: m, deny: [mmap]}]", "rw", "read", "daemon", "mmap is denied (rule 'm')"),
    ("rules: [{name: m, deny: [mmap]}]", "rw", "mmap", "deny ENODEV", "shared mappings"),
    ("rules: [{name: c, deny: [chown]}]", "inode", "chmod", "daemon",
     "one part of setattr is denied (rule 'c'): chown"),
    ("rules: [{name: c, match: {mode: setuid}, handle: [chmod]}]", "inode", "chown", "daemon",
     "chmod, which bypasses together with it, depends on the file's mode, which can change"),
    ("rules: [{match: {caller: {user: 7}}, deny: [statx]}]", "inode", "getattr", "daemon",
     "depends on the caller"),
    ("rules: [{deny: [write]}]", "rw", "write", "deny EROFS", "refused at open"),
    ("rules: [{deny: [open]}]", "rw", "lseek", "deny EACCES", "refused at open"),
    ("rules: [{deny: [write]}]", "rw", "fallocate", "deny EROFS", "write is denied"),
    ("rules: [{deny: [open]}]", "rw", "create", "deny EACCES", "refused at open"),
    ("rules: [{deny: [lookup]}]", "rw", "chmod", "deny EACCES", "refused at lookup"),
    ("rules: [{match: {path: /a}, visible: false}]", "rw", "lookup", "deny ENOENT", "hidden"),
    ("rules: [{match: {path: /a}, visible: false}]", "rw", "unlink", "deny ENOENT", "hidden"),
    ("rules: [{match: {path: /a}, visible: false}]", "rw", "create", "deny EACCES", "hidden"),
    ("rules: [{handle: read}]", "rw", "copy_file_range", "daemon", "read and write instead"),
    ("rules: [{match: {path: /b}, deny: [chmod]}]", "rw", "rename", "daemon", "EXDEV"),
    ("rules: [{deny: [getattr]}]", "rw", "read", "deny EACCES", "attributes of the root"),
    ("rules: [{match: {path: /a}, deny: [getattr]}]", "rw", "read", "deny EACCES",
     "to check permissions, the kernel asks for the denied attributes"),
    ("rules: [{deny: [getxattr]}]", "rw", "getxattr", "deny EACCES", "except ACLs"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tier", "operation", "route", "why"), WHYS)
def test_whys(text: str, tier: str, operation: str, route: str, why: str) -> None:
    line = lines_of(HANDLERS + text, tier=tier)[operation]
    assert (line.route, line.alternatives) == (route, ())
    assert why in line.why


def test_what_the_draft_gives() -> None:
    lines = lines_of("", tier="inode")
    for name in ("getattr", "statx", "chmod", "chown", "truncate", "utimens", "read", "write"):
        assert (lines[name].route, lines[name].why) == ("kernel", ""), name
    assert lines_of("", tier="inode", type_name="directory")["readdir"].route == "kernel"


def test_attributes_of_directories_can_be_cached() -> None:
    text = "cache: {directory_attributes: cached}"
    lines = lines_of(text, tier="inode", type_name="directory")
    why = "the policy has attributes of directories cached"
    for name in ("getattr", "statx"):
        assert (lines[name].route, lines[name].why) == ("daemon", why)
    assert (lines["chmod"].route, lines["readdir"].route) == ("kernel", "kernel")
    assert lines_of(text, tier="inode")["getattr"].route == "kernel"


def test_listings_are_filtered_above_what_is_hidden() -> None:
    text = "rules: [{match: {path: /d/x}, visible: false}]"
    line = lines_of(text, "/d", tier="inode", type_name="directory")["readdir"]
    assert (line.route, line.why) == (
        "daemon", "the directory may have hidden entries, so listings are filtered",
    )  # fmt: skip


def test_a_name_above_that_cannot_be_found() -> None:
    text = "rules: [{name: h, match: {path: [/d, '!/d/x']}, visible: false}]"
    lines = lines_of(text, "/d/x")
    assert {line.route for line in lines.values()} == {"deny ENOENT"}
    assert lines["read"].why == "hidden: refused at lookup of 'd' above it"
    text = "rules: [{name: h, match: {path: /d, type: directory}, deny: {lookup: EPERM}}]"
    assert lines_of(text, "/d/x")["create"].route == "deny EPERM"


def test_handlers_that_do_not_serve_it() -> None:
    text = "rules: [{handle: [chmod, read]}]"
    lines = lines_of(HANDLERS + text, handled=frozenset({Op.READ}))
    assert (lines["read"].route, lines["read"].why) == ("handler", "")
    assert (lines["chmod"].route, lines["chmod"].why) == (
        "daemon", "the handlers do not serve chmod",
    )  # fmt: skip
    assert lines_of(text)["read"].why == "the policy names no handlers"


# --- what is not known ---------------------------------------------------------------------------

CALLERS = (
    "rules:\n"
    "- {name: ours, match: {caller: {not_user: 0}}, deny: {write: EROFS, chmod: EPERM}}\n"
    "- {name: tools, match: {caller: {exe: /usr/bin/*}}, deny: [truncate]}\n"
)


def test_without_a_caller_there_are_alternatives() -> None:
    line = lines_of(CALLERS)["chmod"]
    assert line.route == DEPENDS
    assert line.why == "depends on the caller: deny EPERM unless user 0; else daemon"
    assert [each.when for each in line.alternatives] == ["unless user 0", ""]
    assert [each.route for each in line.alternatives] == ["deny EPERM", "daemon"]


def test_with_a_caller_there_are_none_but_by_program() -> None:
    root = lines_of(CALLERS, caller=parse_identity("0"))
    other = lines_of(CALLERS, caller=parse_identity("4711:4711"))
    assert root["chmod"].route == "daemon"
    assert (other["chmod"].route, other["write"].route) == ("deny EPERM", "deny EROFS")
    assert root["truncate"].why.startswith(
        "depends on the caller: deny EACCES if program /usr/bin/*; else daemon"
    )


def test_facts_of_what_is_not_there() -> None:
    text = (
        "rules:\n"
        "- {name: s, match: {mode: setuid, owner: {user: 0}}, handle: read}\n"
        "- {name: big, match: {size: {min: 1MiB}}, deny: [write]}\n"
        "- {name: marked, match: {xattr: {user.a: b}}, deny: [unlink]}\n"
    )
    lines = lines_of(HANDLERS + text)
    read = lines["read"]
    assert read.why == (
        "depends on the file's owner and the file's mode: "
        "handler if owner 0 and mode setuid; else daemon"
    )
    write = lines["write"]
    assert [(each.when, each.route) for each in write.alternatives] == [
        ("if size at least 1MiB", "deny EACCES"),
        ("if owner 0 and mode setuid", "daemon"),
        # It could become setuid while it is open, and then could not stop bypassing.
        ("", "daemon"),
    ]
    assert lines["unlink"].alternatives[0].when == "if xattr user.a=b"
    assert lines["create"].route == "daemon", "a new file is empty, and has no attributes"


def test_facts_of_what_is_there(tmp_path: Path) -> None:
    text = HANDLERS + (
        "rules:\n"
        "- {name: s, match: {mode: executable}, handle: read}\n"
        "- {name: big, match: {size: {min: 3}}, deny: {write: EFBIG}}\n"
    )
    for name, content in (("small", b"1"), ("big", b"123"), ("tool", b"")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tool").chmod(0o755)
    small = lines_in(text, tmp_path, "small")["read"]
    assert small.route == "daemon", "it may become executable while it is open"
    assert small.why.startswith("a rule that depends on facts, which can change")
    assert lines_in(text, tmp_path, "big")["write"].route == "deny EFBIG"
    assert lines_in(text, tmp_path, "tool")["read"].route == "handler"
    assert "'s'" in lines_in(text, tmp_path, "tool")["write"].why
    modes = lines_in("rules: [{match: {mode: setuid}, deny: [getattr]}]", tmp_path, "small",
                     tier="inode")  # fmt: skip
    assert modes["getattr"].why == "depends on the file's mode, which can change"


def test_hard_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    text = "rules: [{name: l, match: {path: '*.log'}, deny: [overwrite, chmod]}]"
    line = lines_in(text, tmp_path, "a")["read"]
    assert line.why == (
        "the file has several names (hard links), and at some paths overwrite is denied (rule 'l')"
    )
    assert "at some paths chmod" in lines_in(text, tmp_path, "a", tier="inode")["chown"].why


def test_several_names_in_different_places() -> None:
    text = HANDLERS + (
        "rules:\n"
        "- {name: l, match: {path: /l/}, handle: read, deny: [chmod]}\n"
        "- {name: m, match: {path: /m/}, deny: {chmod: EPERM, chown: EPERM}}\n"
    )
    policy = policy_of(text)
    one, other = (make_up(policy, [], names_of(path), stat.S_IFREG)[-1] for path in ("l/a", "m/b"))
    joint = Subject(
        b"b", other.state, policy.join(one.state, other.state), stat.S_IFREG, attributes(links=2)
    )
    lines = {line.operation: line for line in explain(policy, [one, joint])}
    assert lines["read"].route == "handler"
    assert (lines["chmod"].route, lines["chmod"].rule) == ("deny EACCES", "l"), (
        "the first of equals"
    )
    assert (lines["chown"].route, lines["chown"].rule) == ("deny EPERM", "m")


# --- it says what plans say ---------------------------------------------------------------------


def attributes(mode: int = stat.S_IFREG | 0o644, links: int = 1, size: int = 0) -> Any:
    return SimpleNamespace(mode=mode, uid=0, gid=0, size=size, links=links)


_WORDS = st.sampled_from(sorted(set(WORDS) - {"init", "destroy", "forget"}))
_MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(["/a", "/b", "*"]),
        "type": st.sampled_from(["file", "directory", "symlink"]),
        "mode": st.sampled_from(["setuid", "executable"]),
        "size": st.just({"min": 1}),
        "caller": st.sampled_from([{"user": 0}, {"not_user": 0}, {"group": 7}]),
    },
)
_RULES = st.lists(
    st.fixed_dictionaries(
        {"match": _MATCHES},
        optional={
            "bypass": st.lists(_WORDS, max_size=2),
            "handle": st.lists(_WORDS, max_size=2),
            "deny": st.dictionaries(_WORDS, st.sampled_from(["EPERM", "EIO"]), max_size=2),
            "visible": st.booleans(),
        },
    ),
    max_size=4,
)


@given(
    rules=_RULES,
    otherwise=st.sampled_from(["bypass", "handle", "deny"]),
    tier=st.sampled_from(["none", "rw", "inode"]),
    found=st.builds(
        attributes,
        st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO]).flatmap(
            lambda format_: st.sampled_from([format_ | 0o644, format_ | 0o4755])
        ),
        st.sampled_from([1, 2]),
        st.sampled_from([0, 1]),
    ),
    caller=st.sampled_from([Identity(0, 0, frozenset({0})), Identity(5, 7, frozenset({7}))]),
    several=st.booleans(),
    kept=st.sampled_from(["bypass", "cached"]),
)
def test_routes_are_those_of_plans(
    rules: Any, otherwise: str, tier: str, found: Any, caller: Identity, several: bool, kept: str
) -> None:
    cache = {"directory_attributes": kept}
    text = msgspec.json.encode(
        {"otherwise": otherwise, "rules": rules, "version": 1, "cache": cache}
    )
    with_handlers = text[:-1] + b',"handlers":"inopt.handlers.audit:AuditHandlers"}'
    loaded = parse_policy(with_handlers, "p.yaml")
    policy = CompiledPolicy(
        compile_rules(loaded),
        reads_and_writes=tier != "none",
        kernel=DRAFT if tier == "inode" else OpsMask(),
    )
    format_ = stat.S_IFMT(found.mode)
    state = policy.start.step(b"a")
    asking = Caller(caller.uid, caller.gid, 0)
    above = attributes(stat.S_IFDIR | 0o755)
    root = Subject(b"", policy.start, policy.start, stat.S_IFDIR, above)
    searched = policy.plan(policy.start, above, root.xattr, linked=False).code(Op.GETATTR, asking)
    position = policy.join(policy.start.step(b"b"), state) if several else state
    subject = Subject(b"a", state, position, format_, found)
    named = policy.plan(state, found, subject.xattr, linked=subject.is_linked)
    plan = policy.plan(position, found, subject.xattr, linked=subject.is_linked)
    lines = {line.operation: line for line in explain(policy, [root, subject], caller)}

    def code(slot: int) -> int:
        return plan.code(slot, asking)

    for slot in on_inode(format_):
        if slot_name(slot) not in lines:
            continue
        line = lines[slot_name(slot)]
        assert not line.alternatives
        asked = [code(each) for each in asked_for(slot, format_)]
        denied = [n for n in (named.code(Op.LOOKUP, asking), *asked) if n > 0]
        served = Op.WRITE if slot == Part.OVERWRITE else slot
        if searched > 0:
            route = f"deny {errno.errorcode[searched]}"
        elif named.hidden:
            route = "deny ENOENT"
        elif denied:
            route = f"deny {errno.errorcode[denied[0]]}"
        elif plan.is_handled(served) if served in AT_OPEN else code(served) == HANDLER:
            route = "handler"
        elif served in (Op.READ, Op.WRITE, Part.MMAP):
            route = "kernel" if plan.bypasses else "daemon"
        elif served in SETATTR_PARTS - {Part.CHATTR}:
            route = "kernel" if Op.SETATTR in plan.mask else "daemon"
        else:
            route = "kernel" if code(served) == KERNEL else "daemon"
        assert line.route == route, (line, plan.mask)
        assert (line.route == "daemon") <= bool(line.why), "what the daemon serves has a reason"


def test_every_slot_reaches_a_handler_by_an_opcode() -> None:
    for format_ in TYPES.values():
        for slot in on_inode(format_):
            assert opcode_of(slot) in {*Op, Part.FLOCK, Part.COPY_UP}


# --- all rules -----------------------------------------------------------------------------------


def test_matrix() -> None:
    table = matrix(
        rules_of(
            "otherwise: deny\n"
            "rules:\n"
            "- {name: logs, match: {path: '*.log', type: file}, deny: {overwrite: EPERM},"
            " handle: [write], bypass: [chmod]}\n"
            "- {match: {path: /x, caller: {not_user: 0}}, visible: false}\n"
            "- {deny: all}\n"
        )
    )
    logs, hidden, everything, otherwise = table.rows
    assert (logs.rule, logs.match, logs.hides) == ("logs", "*.log, file", False)
    assert logs.cells["write"].text == MIXED
    assert logs.cells["overwrite"].text == "deny EPERM"
    assert logs.cells["chmod"].text == "bypass"
    assert (logs.cells["setattr"].text, logs.cells["setattr"].partly) == (MIXED, True)
    assert "read" not in logs.cells
    assert logs.operations["truncate"] == "handle"
    assert (hidden.rule, hidden.match) == ("rule 2", "/x, unless user 0")
    assert (hidden.hides, hidden.cells) == (True, {})
    assert everything.cells["read"].text == "deny EACCES"
    assert everything.cells["namespace"].text == "deny EROFS"
    assert (otherwise.rule, otherwise.match) == ("otherwise", "everything else")
    assert otherwise.place is not None
    assert otherwise.place.line == 2
    assert set(table.columns) >= {"write", "overwrite", "chmod", "others"}
    covered = [name for slots in table.columns.values() for name in slots]
    assert set(covered) == set(everything.operations)


def test_the_matrix_fits_a_page() -> None:
    words = sorted(set(WORDS) - {"all"})
    table = matrix(rules_of("rules:\n" + "".join(f"- bypass: [{word}]\n" for word in words)))
    assert len(table.columns) <= 20
