"""Random policies for tests, as YAML may have them, over few names so that rules overlap."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from support.reference import SLOTS, UNHANDLED, WORDS

NAMES: Final = ("a", "b", "c", "a.x", "b.x", ".h")
KINDS: Final = ("file", "directory", "symlink", "fifo", "socket", "block", "character")
MODES: Final = (0o644, 0o600, 0o755, 0o666, 0o4755, 0o2710, 0o1777, 0o060, 0o004)
IDS: Final = (0, 1001, 2000)
SIZES: Final = (0, 1, 1023, 1024, 1025, 4096, 10_000)
XATTRS: Final = ("user.a", "user.b")
VALUES: Final = ("", "1", "yes")
EXES: Final = ("/usr/bin/cat", "/usr/bin/python3", "/opt/a/b", "")
CGROUPS: Final = ("/user.slice/a", "/system.slice/b.service", "/", "")

Policy = dict[str, Any]
Rule = dict[str, Any]

_SEGMENTS: Final = (*NAMES, "*", "**", "*.x", "a*", "?", "[ab]", "[a-c].x", "*h", "?.x")
_FILE_ERRNOS: Final = ("EPERM", "EACCES", "EROFS", "ENOSPC", "EBUSY", "EIO")
_SIZE_TEXTS: Final = ("0", "1", "1K", "1KiB", "1kB", "4096B", "0.5K", "1M", 0, 1, 1024, 4096)


def one_or_many(values: st.SearchStrategy[Any], *, most: int = 3) -> st.SearchStrategy[Any]:
    """A value, or a list of some."""
    return st.one_of(values, st.lists(values, min_size=1, max_size=most, unique_by=str))


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with some of these keys, mostly one: what asks much is hardly ever true."""
    return st.one_of(
        *(st.fixed_dictionaries({key: value}) for key, value in fields.items()),
        st.fixed_dictionaries({}, optional=fields),
    )


patterns: Final = st.builds(
    lambda bang, root, segments, end: bang + root + "/".join(segments) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(st.sampled_from(_SEGMENTS), min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
_who: Final = one_or_many(st.sampled_from([*IDS, "root"]))
_exes: Final = one_or_many(
    st.sampled_from(["/usr/bin/*", "cat", "!python3", "/opt/", "**", "/usr/**/cat", "!/usr"])
)
_cgroups: Final = one_or_many(st.sampled_from(["user.slice", "/system.slice/*", "!b.service", "*"]))
callers: Final = _some(
    user=_who, group=_who, exe=_exes, cgroup=_cgroups,
    not_user=_who, not_group=_who, not_exe=_exes, not_cgroup=_cgroups,
)  # fmt: skip
facts_asked: Final = _some(
    owner=_some(user=_who, group=_who),
    mode=one_or_many(
        st.sampled_from(
            ["setuid", "setgid", "sticky", "executable", "group_writable", "world_readable",
             "world_writable"]
        )
    ),
    xattr=st.one_of(
        one_or_many(st.sampled_from(XATTRS)),
        st.dictionaries(
            st.sampled_from(XATTRS),
            st.one_of(st.booleans(), st.sampled_from(VALUES)),
            min_size=1,
            max_size=2,
        ),
    ),
    size=_some(min=st.sampled_from(_SIZE_TEXTS), max=st.sampled_from(_SIZE_TEXTS)),
)  # fmt: skip
paths: Final = one_or_many(patterns, most=4)
kinds: Final = one_or_many(st.sampled_from(KINDS))


def words(kind: str, given: frozenset[str] | None = None) -> st.SearchStrategy[str]:
    """A word that rules may have for *kind*: bypass, handle or deny."""
    known = sorted(given if given is not None else WORDS)
    if kind == "handle":
        known = [word for word in known if not WORDS[word] <= UNHANDLED or not WORDS[word]]
    groups = [word for word in known if len(WORDS[word]) > 1]
    return st.one_of(st.sampled_from(groups), st.sampled_from(known))


@st.composite
def rules(draw: st.DrawFn, deniable: frozenset[str] | None = None) -> Rule:
    """One rule. `visible` is not asked together with a caller: it is the same for everybody.

    *deniable*: the only words to be denied.
    """
    rule: Rule = {}
    match: dict[str, Any] = {}
    if draw(st.integers(0, 3)):
        match["path"] = draw(paths)
    if not draw(st.integers(0, 3)):
        match["type"] = draw(kinds)
    if not draw(st.integers(0, 2)):
        match |= draw(facts_asked)
    if not draw(st.integers(0, 2)):
        match["caller"] = draw(callers)
    empty = draw(st.booleans())
    if match or empty:
        rule["match"] = match
    for field in ("bypass", "handle"):
        if not draw(st.integers(0, 2)):
            rule[field] = draw(one_or_many(words(field)))
    if draw(st.booleans()):
        denied = words("deny", deniable)
        rule["deny"] = draw(
            st.one_of(
                one_or_many(denied, most=4),
                st.dictionaries(denied, st.sampled_from(_FILE_ERRNOS), max_size=4),
            )
        )
    if "caller" not in match and not draw(st.integers(0, 3)):
        rule["visible"] = draw(st.booleans())
    return rule


policies: Final[st.SearchStrategy[Policy]] = st.fixed_dictionaries(
    {"version": st.just(1), "rules": st.lists(rules(), max_size=6)},
    optional={"otherwise": st.sampled_from(["bypass", "handle", "deny"])},
)
"""Any policy."""


def random_rule(chance: random.Random, deniable: frozenset[str], *, handles: bool) -> Rule:
    """A rule by *chance* alone, for tests that cannot afford many of hypothesis's small ones."""

    def some(values: Sequence[Any], most: int) -> list[Any]:
        return chance.sample(values, chance.randint(1, min(most, len(values))))

    def maybe(share: float) -> bool:
        return chance.random() < share

    rule: Rule = {}
    match: dict[str, Any] = {}
    if maybe(0.75):
        match["path"] = [_random_pattern(chance) for _ in range(chance.randint(1, 3))]
    if maybe(0.25):
        match["type"] = some(["file", "file", "directory", "symlink", "fifo"], 2)
    if maybe(0.35):
        asked: list[tuple[str, Any]] = [
            ("owner", {"user": some([0, 1001], 1)}),
            ("mode", some(["sticky", "executable", "group_writable", "world_writable"], 1)),
            ("xattr", {chance.choice(XATTRS): chance.choice([True, False, *VALUES])}),
            ("size", {chance.choice(["min", "max"]): chance.choice(_SIZE_TEXTS)}),
        ]
        match |= dict([chance.choice(asked)])
    if maybe(0.25):
        match["caller"] = {chance.choice(["user", "not_user", "group"]): chance.choice([0, 1001])}
    if match:
        rule["match"] = match
    known = sorted(word for word in WORDS if WORDS[word] - UNHANDLED)
    if maybe(0.3):
        rule["bypass"] = some(known, 3)
    if handles and maybe(0.6):
        rule["handle"] = some([*known, "read", "write", "all"], 3)
    if maybe(0.75):
        words_denied = some([*sorted(deniable), "write", "namespace", "overwrite", "mmap"], 4)
        if maybe(0.5):
            rule["deny"] = {word: chance.choice(_FILE_ERRNOS) for word in words_denied}
        else:
            rule["deny"] = words_denied
    if "caller" not in match and maybe(0.2):
        rule["visible"] = maybe(0.3)
    return rule


def _random_pattern(chance: random.Random) -> str:
    segments = [chance.choice(_SEGMENTS) for _ in range(chance.choice([1, 1, 2, 3]))]
    return (
        chance.choice(["", "", "", "!"])
        + chance.choice(["", "/"])
        + "/".join(segments)
        + chance.choice(["", "", "/"])
    )


ALL_SLOTS: Final = tuple(sorted(SLOTS))
