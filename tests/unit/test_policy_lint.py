"""The linter: each code where it should be, and not where it should not."""

from __future__ import annotations

import os
import stat
from textwrap import dedent
from typing import Final

import pyfuse3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.linting import (
    ALL_OPCODES,
    findings_of,
    lines_of,
    marked_lines,
    rules_of,
    with_version,
)

from inopt.handlers.audit import AuditHandlers
from inopt.handlers.base import Handlers
from inopt.handlers.running import methods_of, served_by
from inopt.ops import Op
from inopt.policy.linting.coverage import Coverage
from inopt.policy.linting.findings import CODES, Level, counted, level_of
from inopt.policy.linting.linter import lint
from inopt.policy.load import load_policy, parse_policy, shipped_policies
from inopt.policy.rules import compile_rules
from inopt.policy.words import Part

READING: Final = frozenset({Op.READ})

# Policies whose lines that end with the code are where it is to be found, and nowhere else.
CASES: Final[dict[str, list[str]]] = {
    "INO101": [
        """
        rules:
        - match: {caller: {user: root}}
          deny:
          - read
          - lookup  # INO101
          - getattr  # INO101
        - match: {path: /x, caller: {exe: /bin/sh}}
          deny: all  # INO101
        """,
        """
        otherwise: deny
        rules:
        - match: {caller: {user: root}}
          bypass: all  # INO101
        """,
        """
        rules:
        - match: {caller: {user: root}}
          handle:
            - statx  # INO101
            - open
        """,
    ],
    "INO102": [
        """
        rules:
        - match: {caller: {user: root}}
          visible: false  # INO102
        - match: {path: /x, caller: {user: root}}
          visible: true  # INO102
        """
    ],
    "INO103": [
        """
        rules:
        - match: {caller: {user: root}}
          handle:
          - read  # INO103
          - fsync
          - release  # INO103
        """,
        """
        otherwise: handle
        rules:
        - match: {caller: {user: root}}
          bypass:
          - read  # INO103
          - fsync
        """,
        """
        rules:
        - match: {caller: {user: root}, path: /x}
          bypass: write  # INO103
        - handle: [read, write]
        """,
    ],
    "INO104": [
        """
        rules:
        - match: {size: {min: 1M}}
          deny:
            open: EACCES
            truncate: EFBIG  # INO104
            mmap: ENODEV  # INO104
        - match: {size: {max: 1M}, type: file}
          handle: write  # INO104
        - match: {size: {max: 1K}}
          bypass: read  # INO104
        """
    ],
    "INO105": [
        """
        otherwise: deny
        rules:
        - match: {owner: {user: root}}
          bypass:
          - unlink
          - getattr  # INO105
          - chmod  # INO105
        """,
        """
        rules:
        - match: {path: /a/**, mode: setuid}
          bypass: open  # INO105
        - match: {path: /b/**}
          deny: open
        - match: {path: "*.exe"}
          deny: open
        """,
        """
        rules:
        - match: {caller: {user: root}}
          bypass: opendir  # INO105
        - handle: opendir
        """,
    ],
    "INO106": [
        """
        rules:
        - handle: read
          bypass: write  # INO106
        """,
        """
        rules:
        - match: {mode: sticky}
          bypass: [read]  # INO106
          handle: write
        """,
        """
        rules:
        - match: {path: /a}
          handle: read
        - match: {path: /a}
          bypass: write  # INO106
        """,
        """
        rules:
        - match: {path: /a}
          bypass: write  # INO106
        - match: {path: /a}
          handle: [lseek, read]
        """,
    ],
    "INO107": [
        """
        require: inode
        rules:
        - bypass:
          - chmod  # INO107
          - utimens  # INO107
          deny: chown
        """,
        """
        require: inode
        rules:
        - bypass: setattr  # INO107
          handle: truncate
        """,
    ],
    "INO108": [
        """
        rules:
        - match: {path: "*.log"}
          bypass: write  # INO108
          deny: overwrite
        - match: {path: /x}
          bypass: read  # INO108
          deny: mmap
        """
    ],
    "INO109": [
        """
        rules:
        - deny:
          - flush  # INO109
          - unlink
          - setlk  # INO109
        """
    ],
    "INO110": [
        """
        rules:
        - handle:
          - release
          - mmap  # INO110
          - forget  # INO110
        """
    ],
    "INO114": [
        """
        rules:
        - deny:
            rename2: EPERM  # INO114
        - handle: readdirplus  # INO114
        """
    ],
    "INO113": [
        """
        rules:
        - deny:
            mmap: EPERM  # INO113
        """
    ],
    "INO201": [
        """
        rules:
        - bypass: [read, write]
        - match: {path: /x}  # INO201
          deny: read
        """,
        """
        rules:
        - match: {path: /a}
          deny: all
        - match: {path: [/a/b, /a/c/**], type: file}  # INO201
          bypass: all
        - match: {path: /b}
          bypass: all
        """,
        """
        rules:
        - match: {path: ["*.log"]}
          deny: unlink
        - match: {path: [/var/x.log, "/y.log/z"]}
          deny:
          - rename
          - unlink  # INO201
        """,
        """
        rules:
        - match: {path: ["*.log", "!a.log"]}
          deny: unlink
        - match: {path: ["*.log", "!a.log"]}  # INO201
          bypass: unlink
        - match: {path: "**"}
          visible: true
        - match: {path: x}
          visible: false  # INO201
          deny: open
        """,
        """
        rules:
        - match: {path: "!a"}  # INO201
          deny: open
        - deny: write
          bypass: overwrite  # INO201
        """,
        """
        rules:
        - match: {type: file}
          deny: [read, chmod]
        - match: {type: [file, directory]}
          handle:
          - lseek  # INO201
          - chmod
        """,
    ],
    "INO202": [
        """
        rules:
        - match: {path: /x}  # INO202
        - deny:
          - unlink
          - locks  # INO202
        """
    ],
    "INO203": [
        """
        rules:
        - match: {path: /x}
          deny: lookup  # INO203
        - match: {path: /y}
          deny: {metadata: EPERM}  # INO203
        """
    ],
    "INO204": [
        """
        otherwise: deny  # INO204
        rules:
        - match: {path: "**"}
          bypass: all
        """,
        """
        otherwise: deny  # INO204
        rules:
        - bypass: [getattr, read]
        """,
        """
        otherwise: deny
        rules:
        - match: {type: directory, path: "*"}
          bypass: getattr
        - match:
            path:
            - /a/b/c  # INO204
          bypass: all
        - bypass: getattr
        """,
        """
        otherwise: deny
        rules:
        - match: {path: /a, type: directory}
          bypass: [lookup, getattr]
        - match:
            type: file
            path: /a/b  # INO204
          bypass: [getattr, read]
        - match: {path: /z}
          bypass: all
        - bypass: getattr
        """,
    ],
    "INO205": [
        """
        rules:
        - name: one
          deny: unlink
        - name: two
          deny: rmdir
        - deny: rename
          name: one  # INO205
        """
    ],
    "INO206": [
        """
        rules:
        - deny: open  # INO206
          handle: read
        """
    ],
    "INO207": [
        """
        rules:
        - match: {type: directory}
          deny:
          - create  # INO207
          - mkdir
          - write  # INO207
        - match: {type: [file, fifo]}
          bypass: readlink  # INO207
        """
    ],
    "INO208": [
        """
        rules:
        - match:
            size:
              max: 1K
              min: 1M  # INO208
          deny: open
        """
    ],
    "INO209": [
        """
        rules:
        - match: {caller: {user: root}}
          deny: mmap  # INO209
        """
    ],
    "INO210": [
        """
        require: rw  # INO210
        otherwise: deny
        rules:
        - bypass: [lookup, getattr]
        """,
        """
        otherwise: handle
        require: inode  # INO210
        """,
    ],
    "INO301": [
        """
        rules:
        - match: {path: /x}
          bypass: all
        - match: {path: [/y, /z]}  # INO301
          deny: unlink
        - match: {path: /a}
          deny: unlink
        """
    ],
    "INO302": [
        """
        rules:
        - match:
            path: /a  # INO302
          visible: false
        """
    ],
    "INO303": [
        """
        rules:
        - match: {caller: {user: root}}
          deny:
          - write  # INO303
          - unlink
        - match: {owner: {user: root}, path: /x}
          deny: read  # INO303
        """
    ],
    "INO304": [
        """
        rules:
        - bypass: [read, unlink, rename]  # INO304
        """
    ],
    "INO305": [
        """
        rules:
        - match: {path: /x}
          handle: read  # INO305
        - match: {path: /y}
          bypass: all
          handle: write  # INO305
        """
    ],
    "INO306": [
        """
        rules:
        - bypass: utimens  # INO306
          deny: chmod
        """
    ],
    "INO307": [
        """
        rules:
        - match: {owner: {user: root}}
          bypass: metadata  # INO307
        - deny: setattr
        """
    ],
    "INO308": [
        """
        rules:
        - match:
            xattr: [user.a, user.b]  # INO308
          deny: open
        - match: {mode: setuid}  # INO308
          deny: [write, chown]
        """
    ],
}

# Policies that come close, and in which the code must not be found.
NEAR_MISSES: Final[dict[str, list[str]]] = {
    "INO101": [
        "rules: [{match: {caller: {user: root}}, deny: [read, write, namespace, setattr, xattr]}]",
        "rules: [{match: {path: /x}, deny: [lookup, getattr, readlink]}]",
        "rules: [{match: {caller: {user: root}}, deny: readlink}]",
        "rules: [{match: {owner: {user: root}}, deny: [lookup, getattr]}]",
        "rules: [{match: {caller: {user: root}}, bypass: all}]",
        """
        otherwise: deny
        rules:
        - bypass: [lookup, getattr]
        - match: {caller: {user: root}}
          bypass: all
        """,
    ],
    "INO102": ["rules: [{match: {mode: setuid}, visible: false}]"],
    "INO103": [
        "rules: [{match: {caller: {user: root}}, deny: [read, write], handle: [fsync, open]}]",
        "rules: [{match: {owner: {user: root}}, handle: read}]",
        "rules: [{match: {caller: {user: root}}, deny: read}, {handle: [read, write]}]",
        "rules: [{match: {caller: {user: root}}, bypass: read}, {deny: read}, {handle: read}]",
    ],
    "INO104": [
        "rules: [{match: {size: {min: 1M}}, deny: [open, unlink, setattr, setxattr]}]",
        "rules: [{match: {size: {min: 1M}, type: symlink}, deny: read}]",
        "rules: [{deny: write}, {match: {size: {min: 1M}}, deny: write}]",
    ],
    "INO105": [
        "rules: [{match: {owner: {user: root}}, bypass: [getattr, chmod]}]",
        """
        otherwise: deny
        rules:
        - match: {owner: {user: root}, path: /a/b}
          bypass: [getattr, open]
        - match: {path: /a}
          bypass: all
        """,
        """
        rules:
        - match: {owner: {user: root}, path: /a/**}
          bypass: open
        - match: {path: /b/**}
          deny: open
        """,
        """
        otherwise: deny
        rules:
        - match: {owner: {user: root}}
          bypass: [read, write, unlink]
        """,
        "{otherwise: deny, rules: [{match: {owner: {user: root}}, bypass: all}]}",
    ],
    "INO106": [
        "rules: [{handle: [read, write]}]",
        "rules: [{handle: read, deny: write}]",
        "rules: [{handle: read}]",
        "rules: [{handle: read, bypass: all}]",
        "rules: [{match: {path: /a}, handle: read}, {match: {path: /b}, bypass: write}]",
    ],
    "INO107": [
        "{require: rw, rules: [{bypass: chmod, deny: chown}]}",
        "{require: inode, rules: [{deny: chown}]}",
        "{require: inode, rules: [{bypass: chmod, deny: chattr}]}",
    ],
    "INO108": [
        "rules: [{deny: [overwrite, mmap]}]",
        "rules: [{deny: overwrite, bypass: all}]",
        "rules: [{deny: write, bypass: read}]",
    ],
    "INO109": ["rules: [{deny: [all, locks]}]", "rules: [{handle: flush, bypass: access}]"],
    "INO110": ["rules: [{handle: [all, flush]}]"],
    "INO114": ["rules: [{deny: rename, handle: readdir}]", "rules: [{deny: [rename2, namespace]}]"],
    "INO113": ["rules: [{deny: {mmap: ENODEV}}]", "rules: [{deny: [mmap]}]"],
    "INO201": [
        "rules: [{match: {path: /a}, deny: read}, {match: {path: /ab}, bypass: read}]",
        "rules: [{match: {path: /a/}, deny: chmod}, {match: {path: /a}, bypass: chmod}]",
        "rules: [{match: {path: /a, type: file}, deny: chmod}, {match: {path: /a}, bypass: chmod}]",
        "rules: [{match: {path: /a, mode: sticky}, deny: read}, {match: {path: /a}, bypass: read}]",
        "rules: [{match: {path: '**'}, deny: chmod}, {bypass: chmod}]",
        "rules: [{match: {path: ['*', '!x']}, deny: open}, {match: {path: y}, bypass: open}]",
        "rules: [{match: {path: a}, visible: false}, {match: {path: a}, deny: open}]",
    ],
    "INO202": ["rules: [{visible: false, match: {path: x}}, {deny: [all]}]"],
    "INO203": ["rules: [{deny: [all]}, {deny: [setattr, open]}]"],
    "INO204": [
        """
        otherwise: deny
        rules:
        - match: {path: /a/b/c}
          bypass: all
        - bypass: [lookup, getattr]
        """,
        "rules: [{match: {path: /a}, deny: lookup}, {match: {path: /a/b}, bypass: all}]",
        "{otherwise: deny, rules: [{deny: read}]}",
    ],
    "INO205": [
        "rules: [{name: a, deny: open}, {deny: chmod}, {deny: chown}, {name: b, deny: link}]"
    ],
    "INO206": ["rules: [{deny: opendir, handle: read}]", "rules: [{deny: open}]"],
    "INO207": [
        "rules: [{match: {type: directory}, deny: [read, mkdir, rename, chmod]}]",
        "rules: [{deny: readlink}]",
    ],
    "INO208": ["rules: [{match: {size: {min: 5, max: 5}}, deny: open}]"],
    "INO209": ["rules: [{deny: mmap}]", "rules: [{match: {owner: {user: root}}, deny: mmap}]"],
    "INO210": [
        "require: inode",
        "{require: rw, otherwise: deny, rules: [{bypass: [lookup, read, write]}]}",
        "{otherwise: handle}",
    ],
    "INO301": ["rules: [{deny: unlink}, {match: {path: /x}, bypass: all}]"],
    "INO302": ["rules: [{match: {path: /x, type: directory}, deny: mkdir}]"],
    "INO303": ["rules: [{deny: read}]", "rules: [{match: {caller: {user: 0}}, deny: unlink}]"],
    "INO304": ["rules: [{bypass: [all, namespace, getattr, open, setlk]}]"],
    "INO305": ["rules: [{handle: [read, write]}]", "{otherwise: handle, rules: [{handle: read}]}"],
    "INO306": ["rules: [{bypass: [chmod, chown]}]", "rules: [{bypass: metadata, deny: chmod}]"],
    "INO307": ["rules: [{match: {owner: {user: root}}, bypass: metadata}]"],
    "INO308": [
        "rules: [{match: {xattr: trusted.a}, deny: open}]",
        "rules: [{match: {xattr: user.a}, deny: [open, setxattr, removexattr]}]",
        "rules: [{match: {mode: setuid}, bypass: open}]",
    ],
}


@pytest.mark.parametrize(
    ("code", "text"), [(code, text) for code, texts in CASES.items() for text in texts]
)
def test_is_found(code: str, text: str) -> None:
    assert marked_lines(text, code), "nothing is expected"
    assert sorted(lines_of(text, code)) == marked_lines(text, code)


@pytest.mark.parametrize(
    ("code", "text"), [(code, text) for code, texts in NEAR_MISSES.items() for text in texts]
)
def test_is_not_found(code: str, text: str) -> None:
    if text.startswith("{"):
        text = text.removeprefix("{").removesuffix("}").replace(", rules:", "\nrules:")
        text = text.replace(", otherwise:", "\notherwise:")
    assert lines_of(text, code) == []


def test_columns_are_those_of_the_words() -> None:
    text = """
    rules:
    - name: the first
      match: {caller: {user: root}}
      deny: {unlink: EPERM, lookup: EACCES}
    - bypass: [chmod, link]
    """
    columns = {each.code: each.place.column for each in findings_of(text)}
    lines = with_version(text).splitlines()
    assert columns["INO101"] == lines[4].index("lookup") + 1
    assert columns["INO304"] == lines[5].index("link") + 1
    found = findings_of(text)[0]
    assert (found.rule, found.level) == ("the first", Level.ERROR)
    assert str(found).startswith("policy.yaml:5:25: INO101 error: ")


# --- handler classes ---------------------------------------------------------------------------


def test_handling_without_a_class() -> None:
    text = """
    otherwise: handle  # INO111
    rules:
    - handle: read  # INO111
    - handle:
      - unlink  # INO111
      - rmdir
    """
    assert lines_of(text, "INO111", None) == marked_lines(text, "INO111")
    assert lines_of(text, "INO111") == []
    assert lines_of("rules: [{deny: read}]", "INO111", None) == []


def test_handling_what_the_class_does_not_serve() -> None:
    text = """
    rules:
    - handle:
      - unlink  # INO112
      - write  # INO112
      - read  # INO309
      - xattr  # INO112
    """
    assert lines_of(text, "INO112", READING) == marked_lines(text, "INO112")
    assert lines_of(text, "INO309", READING) == marked_lines(text, "INO309")
    assert lines_of(text, "INO112", ALL_OPCODES) == []
    assert lines_of("rules: [{handle: create}]", "INO112", frozenset({Op.CREATE})) == [2]
    assert lines_of("rules: [{handle: chmod}]", "INO112", frozenset({Op.SETATTR})) == []
    assert lines_of("rules: [{handle: chattr}]", "INO112", frozenset({Op.SETATTR})) == [2]
    assert lines_of("otherwise: handle", "INO112", frozenset({Op.INIT})) == [2]
    assert lines_of("otherwise: handle", "INO112", READING) == []


def test_locks_and_poll_are_for_handlers_that_have_them() -> None:
    ranges = frozenset[int]({Op.GETLK, Op.SETLK, Op.SETLKW})
    whole = frozenset[int]({Part.FLOCK})
    text = """
    rules:
    - handle:
      - setlk  # INO112
      - getlk  # INO112
      - flock
      - poll  # INO112
    """
    assert lines_of(text, "INO112", whole) == marked_lines(text, "INO112")
    assert lines_of("rules: [{handle: [setlk, getlk]}]", "INO112", ranges) == []
    assert lines_of("rules: [{handle: flock}]", "INO112", ranges) == [2]
    # A group word: what is missing is the kernel's.
    for some in (ranges, whole):
        assert lines_of("rules: [{handle: locks}]", "INO112", some) == []
        (found,) = [
            each for each in findings_of("rules: [{handle: locks}]", some) if each.code == "INO309"
        ]
        assert found.message.endswith("the kernel does")
    assert lines_of("rules: [{handle: locks}]", "INO112", READING) == [2]
    assert lines_of("rules: [{handle: locks}]", "INO309", ranges | whole) == []
    # Of which nobody thinks who says "all".
    assert lines_of("rules: [{handle: all}]", "INO309", ALL_OPCODES - ranges - {Op.POLL}) == []
    assert lines_of("otherwise: handle", "INO112", whole) == []
    # Not for some callers only, nor one half of them; and nobody can deny them.
    for word in ("setlk", "flock", "getlk", "poll", "locks"):
        rule = f"rules: [{{match: {{caller: {{user: root}}}}, handle: {word}}}]"
        assert lines_of(rule, "INO103", ranges | whole | {Op.POLL}) == [2]
    assert lines_of("rules: [{handle: setlkw}]", "INO114", ranges) == [2]
    assert lines_of("rules: [{handle: setlk}]", "INO114", ranges) == []
    for word in ("setlk", "flock", "poll"):
        (found,) = [
            each for each in findings_of(f"rules: [{{deny: {word}}}]") if each.code == "INO109"
        ]
        assert "a handler can refuse it" in found.message
    (found,) = [each for each in findings_of("rules: [{handle: forget}]") if each.code == "INO110"]
    assert "is told of all" in found.message


def test_audit_serves_what_rules_can_hand_to_it() -> None:
    text = "rules: [{handle: [all, namespace, setattr, read, write, xattr]}]"
    for code in ("INO112", "INO309"):
        assert lines_of(text, code, served_by(AuditHandlers)) == []


# --- the table ---------------------------------------------------------------------------------


def test_every_code_has_its_tests() -> None:
    elsewhere = {
        "INO001",
        "INO002",
        "INO003",
        "INO111",
        "INO112",
        "INO213",
        "INO309",
    }  # here, in test_check
    of_trees = {"INO211", "INO212", "INO310"}  # test_policy_against
    assert set(CASES) == set(NEAR_MISSES)
    assert set(CASES) | elsewhere | of_trees == set(CODES)


def test_levels() -> None:
    assert level_of("INO001") is level_of("INO114") is Level.ERROR
    assert level_of("INO201") is Level.WARNING
    assert level_of("INO301") is Level.NOTE
    assert all(level_of(code) for code in CODES)


def test_findings_are_one_line_each() -> None:
    for texts in CASES.values():
        for text in texts:
            for finding in findings_of(text, None):
                assert "\n" not in str(finding)
                assert finding.code in CODES
                assert finding.level is Level.NOTE or finding.fix


def test_shipped_policies_are_clean() -> None:
    for path in shipped_policies().values():
        rules = compile_rules(load_policy(str(path)))
        findings = lint(rules, served_by(AuditHandlers))
        assert [str(each) for each in findings if each.level is not Level.NOTE] == []


def test_counts() -> None:
    findings = findings_of("rules: [{deny: [flush, forget, lookup]}]")
    assert counted(findings) == "2 errors, 1 warning"
    assert counted([]) == ""


def test_places_in_included_files(tmp_path: os.PathLike[str]) -> None:
    base = os.path.join(tmp_path, "base.yaml")
    with open(base, "w", encoding="utf-8") as file:
        file.write("version: 1\nrules:\n- deny: unlink\n- deny: flush\n")
    text = with_version(
        """
        include: base.yaml
        rules: [{name: mine, deny: init}, {deny: chmod}]
        """
    )
    main = os.path.join(tmp_path, "main.yaml")
    findings = lint(compile_rules(parse_policy(text.encode(), main)), None)
    assert [(each.place.path, each.place.line, each.rule) for each in findings] == [
        (main, 3, "mine"),
        (base, 4, "rule 2"),
    ]


# --- what is called unreachable is unreachable -------------------------------------------------

_SEGMENTS = st.sampled_from(["a", "b", "*", "**", "?", "a*", "*b"])
_PATTERNS = st.builds(
    lambda anchor, parts, end: anchor + "/".join(parts) + end,
    st.sampled_from(["", "/"]),
    st.lists(_SEGMENTS, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)
_PATHS = [
    [name.encode() for name in path.split("/")]
    for first in ("a", "b", "ab", "c")
    for path in (
        first,
        *(f"{first}/{second}" for second in ("a", "b", "ba")),
        *(f"{first}/{second}/{third}" for second in "ab" for third in ("a", "b", "ab")),
        f"{first}/a/b/a",
    )
]


@st.composite
def _policies(draw: st.DrawFn) -> str:
    rules = []
    for _ in range(draw(st.integers(2, 5))):
        patterns = draw(st.lists(_PATTERNS, max_size=2))
        if patterns and draw(st.integers(0, 5)) == 0:
            patterns.append("!" + draw(_PATTERNS))
        match = f"path: {patterns}" if patterns else ""
        kind = draw(st.sampled_from(["", "type: file", "type: directory"]))
        match = ", ".join(filter(None, [match, kind]))
        rules.append(f"- {{match: {{{match}}}, deny: [chmod]}}")
    return "rules:\n" + "\n".join(rules)


@given(_policies())
def test_only_what_is_decided_is_called_unreachable(text: str) -> None:
    rules = rules_of(dedent(text))
    coverage = Coverage(rules.rules)
    taken = []
    for rule in rules.rules:
        taken.append(bool(coverage.earlier(rule)))
        coverage.add(rule)
    for names in _PATHS:
        state = rules.matcher.start
        for name in names:
            state = state.step(name)
        for format_ in (stat.S_IFREG, stat.S_IFDIR):
            places = state.matched_directory if format_ == stat.S_IFDIR else state.matched
            matched = {rules.by_path[place].index for place in places}
            matched |= {rule.index for rule in rules.everywhere}
            deciding = [index for index in sorted(matched) if format_ in rules.rules[index].types]
            if deciding:
                assert not taken[deciding[0]], f"{deciding[0]} decides {names}"


def test_many_rules_take_no_time() -> None:
    text = "rules:\n" + "\n".join(
        f"- {{match: {{path: /a{number}/**}}, deny: [write, namespace], bypass: read}}"
        for number in range(2000)
    )
    assert lines_of(text, "INO201") == []


def test_methods_that_nothing_is_handed_to() -> None:
    methods = {
        "unlink": frozenset({Op.UNLINK}),
        "rename": frozenset({Op.RENAME, Op.RENAME2}),
        "setattr": frozenset({Op.SETATTR}),
        "ioctl": frozenset({Op.IOCTL}),
        "release": frozenset({Op.RELEASE}),
    }

    def never_routed(text: str) -> list[str]:
        found = lint(rules_of("handlers: m:C\n" + text), ALL_OPCODES, methods)
        assert all(each.place.line == 2 for each in found if each.code == "INO213")
        return [each.message.split("'")[1] for each in found if each.code == "INO213"]

    assert never_routed("rules: [{handle: [unlink, release, chmod]}]") == ["rename", "ioctl"]
    assert never_routed("rules: [{handle: [rename, setattr, unlink]}]") == ["release"]
    assert never_routed("rules: [{handle: all}]") == []
    assert never_routed("otherwise: handle") == []
    # What an earlier rule takes away does not come to the handler.
    assert "unlink" in never_routed("rules: [{deny: unlink}, {handle: [unlink, rename]}]")
    assert [each.code for each in lint(rules_of("rules: []"), ALL_OPCODES)] == []


def test_which_methods_are_there_for_a_policy() -> None:
    class Reads(Handlers):
        async def read(self, fh: int, off: int, size: int) -> bytes:
            return await super().read(fh, off, size)

    class ReadsMaybe(Reads):
        for_any_policy = True

    assert methods_of(Reads) == {"read": frozenset({Op.READ})}
    assert methods_of(ReadsMaybe) == methods_of(AuditHandlers) == methods_of(Handlers) == {}
    assert methods_of(pyfuse3.Operations) == {}
