"""What a policy means, evaluated slowly and obviously: nothing is compiled, nothing is shared.

Written from the semantics, not from `inopt.policy`; only the parsed file (`PolicyFile`) is common.
A path is text from the root, such as ``/a/b``; the root itself is ``/``.
"""

from __future__ import annotations

import errno
import grp
import pwd
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any, Final, Literal, TypeAlias

from pathspec import PathSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from inopt.policy.model import Caller, Match, PolicyFile, Rule

Verdict: TypeAlias = Literal["bypass", "handle"] | int
"""An operation bypasses, is handled, or is denied with this errno."""

# --- words -------------------------------------------------------------------------------------

_READING: Final = {"read", "lseek", "readlink", "readdir", "readdirplus"}
_COPYING: Final = {"copy_file_range", "copy_file_range_64"}
_WRITING: Final = {"write", "fallocate", "overwrite", "truncate", *_COPYING}
_SETTING: Final = {"chmod", "chown", "truncate", "utimens", "chattr"}
_NAMING: Final = {
    "create", "tmpfile", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename",
    "rename2",
}  # fmt: skip
_XATTRS: Final = {"setxattr", "getxattr", "listxattr", "removexattr"}
_OTHERS: Final = {
    "lookup", "getattr", "statx", "statfs", "open", "opendir", "fsync", "fsyncdir", "ioctl", "mmap",
    "copy_up",
}  # fmt: skip

SLOTS: Final = frozenset(_READING | _WRITING | _SETTING | _NAMING | _XATTRS | _OTHERS)
"""All slots that can be decided."""

UNHANDLED: Final = frozenset({"mmap", "overwrite", "copy_up"})
"""Slots that no handler serves."""

WORDS: Final[Mapping[str, frozenset[str]]] = {
    **{slot: frozenset({slot}) for slot in SLOTS},
    "read": frozenset(_READING),
    "write": frozenset(_WRITING),
    "metadata": frozenset({"getattr", "statx", "statfs", *_SETTING}),
    "namespace": frozenset(_NAMING),
    "xattr": frozenset(_XATTRS),
    "locks": frozenset(),
    "all": SLOTS,
    "getattr": frozenset({"getattr", "statx"}),
    "setattr": frozenset(_SETTING),
    "readdir": frozenset({"readdir", "readdirplus"}),
    "rename": frozenset({"rename", "rename2"}),
    "create": frozenset({"create", "tmpfile"}),
    "copy_file_range": frozenset(_COPYING),
}
"""Words that are worth writing, and what they cover. ``read`` and ``write`` are groups."""

CHANGING: Final = frozenset({*_WRITING, *_NAMING, *_SETTING, "setxattr", "removexattr"})
"""What a filesystem that is mounted read-only refuses with EROFS."""

# --- what is asked about -----------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What can change of an inode; *mode* is without the type."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Asker:
    """Who asks; *groups* has its primary group, too. An unknown program or cgroup is empty."""

    uid: int
    groups: frozenset[int]
    exe: str = ""
    cgroup: str = ""


_MODE_BITS: Final = {
    "setuid": stat.S_ISUID,
    "setgid": stat.S_ISGID,
    "sticky": stat.S_ISVTX,
    "executable": stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH,
    "group_writable": stat.S_IWGRP,
    "world_readable": stat.S_IROTH,
    "world_writable": stat.S_IWOTH,
}


class Reference:
    """One policy."""

    def __init__(self, policy: PolicyFile) -> None:
        self.rules = policy.rules
        self.otherwise = policy.otherwise

    def decide(self, slot: str, path: str, kind: str, facts: Facts, asker: Asker) -> Verdict:
        """What happens with *slot* at *path*, which is of type *kind*."""
        for rule in self.rules:
            if _covers(rule.match, path, kind) and _true_of(rule.match, facts):
                verdict = said(rule, slot)
                if verdict is not None and _asked_by(rule.match.caller, asker):
                    return verdict
        return self.default(slot)

    def default(self, slot: str) -> Verdict:
        """What happens with what no rule names."""
        if self.otherwise == "deny":
            return errno.EACCES
        return "handle" if self.otherwise == "handle" and slot not in UNHANDLED else "bypass"

    def hidden(self, path: str, kind: str, facts: Facts) -> bool:
        """Whether what is at *path* is not to be seen."""
        for rule in self.rules:
            if (
                rule.visible is not None
                and _covers(rule.match, path, kind)
                and _true_of(rule.match, facts)
            ):
                return not rule.visible
        return False

    def outcomes(self, slot: str, path: str, kind: str, facts: Facts | None) -> list[Verdict]:
        """What may happen with *slot*, for whoever asks; without *facts*, whatever they are."""
        found: list[Verdict] = []
        for rule in self.rules:
            verdict = said(rule, slot)
            if verdict is None or not _covers(rule.match, path, kind):
                continue
            if facts is not None and not _true_of(rule.match, facts):
                continue
            found.append(verdict)
            if rule.match.caller is None and (facts is not None or _asks_no_facts(rule.match)):
                return found
        return [*found, self.default(slot)]

    def is_sure(self, slot: str, path: str, kind: str, facts: Facts | None) -> bool:
        """Whether one rule alone, or none, has a say about *slot*, and it bypasses."""
        return self.outcomes(slot, path, kind, facts) == ["bypass"]

    def is_free(self, slot: str, path: str, kind: str, facts: Facts | None) -> bool:
        """Whether *slot* bypasses for whoever asks."""
        return set(self.outcomes(slot, path, kind, facts)) == {"bypass"}

    # --- what follows for a mount --------------------------------------------------------------

    def may_bypass(self, path: str, kind: str, facts: Facts) -> bool:
        """Whether opens may bypass at tier rw without breaking a promise."""
        handled = any(
            "handle" in self.outcomes(slot, path, kind, facts) for slot in ("read", "write")
        )
        return (
            not handled
            and self.is_free("mmap", path, kind, facts)
            and not self.guards(path, kind, facts)
        )

    def guards(self, path: str, kind: str, facts: Facts) -> bool:
        """Whether anybody there may be who may write, but not overwrite.

        Tried with every combination of rules that are about who asks.
        """
        about = [
            rule
            for rule in self.rules
            if _covers(rule.match, path, kind) and _true_of(rule.match, facts)
        ]
        choices = [(True,) if rule.match.caller is None else (True, False) for rule in about]
        for chosen in product(*choices):
            asked = [rule for rule, holds in zip(about, chosen, strict=True) if holds]
            writing, overwriting = (
                next((each for rule in asked if (each := said(rule, slot)) is not None),
                     self.default(slot))
                for slot in ("write", "overwrite")
            )  # fmt: skip
            if isinstance(writing, str) and isinstance(overwriting, int):
                return True
        return False

    def must_bypass(self, path: str, kind: str, facts: Facts) -> bool:
        """Whether opens should bypass at tier rw: no rule says anything else."""
        return (
            self.may_bypass(path, kind, facts)
            and not self.asks_facts(path, kind)
            and all(self.is_sure(slot, path, kind, facts) for slot in ("overwrite", "mmap"))
        )

    def may_mask(self, path: str, kind: str) -> set[str]:
        """Opcodes that the kernel may serve alone, whoever asks and whatever facts become.

        Whether ``readdir`` may depends on what is beneath, too. All opens of a file bypass, once
        the kernel has it.
        """
        if kind == "file" and not self._opens_always_bypass(path, kind):
            return set()
        return {
            opcode
            for opcode, slots in _SERVED_ALONE.items()
            if all(self.is_free(slot, path, kind, None) for slot in slots)
        }

    def must_mask(self, path: str, kind: str) -> set[str]:
        """Opcodes that the kernel should serve alone: no rule says anything else."""
        opening = ("open", "read", "write", "overwrite", "mmap")
        if kind == "file" and not all(self.is_sure(slot, path, kind, None) for slot in opening):
            return set()
        return {
            opcode
            for opcode, slots in _SERVED_ALONE.items()
            if all(self.is_sure(slot, path, kind, None) for slot in slots)
            and (opcode != "readdir" or all(rule.visible is not False for rule in self.rules))
        }

    def _opens_always_bypass(self, path: str, kind: str) -> bool:
        handled = any(
            "handle" in self.outcomes(slot, path, kind, None) for slot in ("open", "read", "write")
        )
        return not handled and self.is_free("mmap", path, kind, None)

    def about(self, path: str, kind: str) -> list[int]:
        """Which rules are about a place and a type, whatever the facts."""
        return [place for place, rule in enumerate(self.rules) if _covers(rule.match, path, kind)]

    def asks_facts(self, path: str, kind: str) -> bool:
        """Whether any rule about *path* and *kind* asks for facts."""
        return any(
            _covers(rule.match, path, kind) and not _asks_no_facts(rule.match)
            for rule in self.rules
        )

    def asks_caller(self, path: str, kind: str) -> bool:
        """Whether any rule about *path* and *kind* asks who asks."""
        return any(
            _covers(rule.match, path, kind) and rule.match.caller is not None for rule in self.rules
        )


# What the kernel has to be free to do for an opcode to be all its own.
_SERVED_ALONE: Final = {
    "getattr": ("getattr", "statx"),
    "statx": ("getattr", "statx"),
    "setattr": ("chmod", "chown", "truncate", "utimens"),
    "readdir": ("readdir", "opendir"),
    "open": (
        "open",
        "read",
        "write",
        "overwrite",
        "mmap",
        "truncate",
        "getattr",
        "statx",
        "chmod",
        "chown",
        "utimens",
        "chattr",
        "fsync",
        "lseek",
        "fallocate",
        "ioctl",
        *_COPYING,
    ),
}

# --- one rule ----------------------------------------------------------------------------------


def many(given: Any) -> list[Any]:
    """One or several, as a list."""
    return given if isinstance(given, list) else [] if given is None else [given]


def said(rule: Rule, slot: str) -> Verdict | None:
    """What a rule says about a slot; None for nothing."""
    words = [str(word) for word in many(rule.deny or [])] if not isinstance(
        rule.deny, dict
    ) else list(rule.deny)  # fmt: skip
    covering = [word for word in words if slot in WORDS[word]]
    if covering:
        narrowest = min(covering, key=lambda word: len(WORDS[word]))
        if isinstance(rule.deny, dict):
            return int(getattr(errno, rule.deny[narrowest]))
        if slot == "mmap":
            return errno.ENODEV  # what the kernel answers
        return errno.EROFS if slot in CHANGING and rule.match == Match() else errno.EACCES
    if slot not in UNHANDLED and any(slot in WORDS[word] for word in many(rule.handle)):
        return "handle"
    if any(slot in WORDS[word] for word in many(rule.bypass)):
        return "bypass"
    return None


def _covers(match: Match, path: str, kind: str) -> bool:
    """Whether a rule is about a place and a type."""
    if match.type is not None and kind not in many(match.type):
        return False
    if match.path is None:
        return True
    if path == "/":
        return False
    return _spec(tuple(many(match.path))).match_file(
        path[1:] + ("/" if kind == "directory" else "")
    )


@cache
def _spec(patterns: tuple[str, ...]) -> PathSpec[GitIgnoreSpecPattern]:
    return PathSpec.from_lines(GitIgnoreSpecPattern, patterns)


def _asks_no_facts(match: Match) -> bool:
    return match.owner is None and match.mode is None and match.xattr is None and match.size is None


def _true_of(match: Match, facts: Facts) -> bool:
    """Whether the facts that a rule asks for are so."""
    return all(_truths(match, facts))


def _truths(match: Match, facts: Facts) -> Iterator[bool]:
    if match.owner is not None:
        yield match.owner.user is None or facts.uid in map(_user, many(match.owner.user))
        yield match.owner.group is None or facts.gid in map(_group, many(match.owner.group))
    for bit in many(match.mode):
        yield facts.mode & _MODE_BITS[bit] != 0
    if isinstance(match.xattr, dict):
        for name, value in match.xattr.items():
            if isinstance(value, bool):
                yield (name in facts.xattrs) == value
            else:
                yield facts.xattrs.get(name) == value.encode()
    else:
        for name in many(match.xattr):
            yield name in facts.xattrs
    if match.size is not None:
        yield match.size.min is None or facts.size >= size_of(match.size.min)
        yield match.size.max is None or facts.size <= size_of(match.size.max)


def _user(who: Any) -> int:
    return who if isinstance(who, int) else pwd.getpwnam(who).pw_uid


def _group(who: Any) -> int:
    return who if isinstance(who, int) else grp.getgrnam(who).gr_gid


def _asked_by(caller: Caller | None, asker: Asker) -> bool:
    """Whether a rule is about who asks."""
    if caller is None:
        return True
    users = {_user(who) for who in many(caller.user)}
    groups = {_group(who) for who in many(caller.group)}
    return all(
        (
            not users or asker.uid in users,
            not groups or bool(groups & asker.groups),
            not caller.exe or _is_like(caller.exe, asker.exe),
            not caller.cgroup or _is_like(caller.cgroup, asker.cgroup),
            asker.uid not in {_user(who) for who in many(caller.not_user)},
            not asker.groups & {_group(who) for who in many(caller.not_group)},
            not caller.not_exe or not _is_like(caller.not_exe, asker.exe),
            not caller.not_cgroup or not _is_like(caller.not_cgroup, asker.cgroup),
        )
    )


def _is_like(patterns: Any, path: str) -> bool:
    return path != "" and _spec(tuple(many(patterns))).match_file(path.lstrip("/"))


# --- numbers with units ------------------------------------------------------------------------

_UNITS: Final = {
    "B": 1, "K": 2**10, "KiB": 2**10, "kB": 1000, "M": 2**20, "MiB": 2**20, "MB": 1000**2,
    "G": 2**30, "GiB": 2**30, "GB": 1000**3, "T": 2**40, "TiB": 2**40, "TB": 1000**4,
}  # fmt: skip
_TIMES: Final[dict[str, Fraction | int]] = {
    "ms": Fraction(1, 1000),
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
}


def size_of(size: str | int) -> int:
    """Bytes, exactly; what is left of a byte does not count."""
    text = str(size)
    number = text.rstrip("".join({letter for unit in _UNITS for letter in unit}))
    return int(Fraction(number) * _UNITS[text[len(number) :] or "B"])


def seconds_of(duration: str) -> Fraction:
    """Seconds, exactly."""
    number = duration.rstrip("msdh")
    return Fraction(number) * _TIMES[duration[len(number) :]]
