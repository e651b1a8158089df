"""Attempts to get round a policy, and what they did to the backing tree.

An attempt is a function of an `Arena`: a directory made afresh for it underneath a mount, with a
guarded file that the policy is to protect, one that is kin to it, and a free one. It ignores the
errors it meets; `Arena.damage` then says what has really happened underneath, and what an attacker
got to see. Each attempt names the damage that it does where nothing is denied, so that a toothless
one is found out.
"""

from __future__ import annotations

import itertools
import mmap
import os
import stat
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support import rawcalls
from support.clients import MEMBER, TEAM, USER, Client, Clients, clients
from support.mounting import Mount, in_place, mounted
from support.sizing import chosen
from support.snapshot import snapshot

MARK: Final = b"the guarded bytes"
CONTENT: Final = (MARK + b"\n").ljust(64, b".") * 256  # four pages
PLAIN: Final = b"free bytes\n" * 800
ACCESS: Final = "system.posix_acl_access"
_NOBODY: Final = 0xFFFFFFFF
# An ACL as the kernel takes it, by which everybody may do everything, execute as well.
ACL_FOR_ALL: Final = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, _NOBODY) for tag in (0x01, 0x04, 0x20)
)

Attempt = Callable[["Arena"], None]
ATTEMPTS: Final[dict[str, tuple[Attempt, frozenset[str]]]] = {}
"""By name: the function, and the damages that it does where nothing is denied (any of them)."""


def attempt(*damages: str) -> Callable[[Attempt], Attempt]:
    """Register an attempt; without *damages* it never does any."""

    def register(function: Attempt) -> Attempt:
        ATTEMPTS[function.__name__] = (function, frozenset(damages))
        return function

    return register


@dataclass(frozen=True)
class Fort:
    """What a policy is to protect, and from whom.

    ``prefix``: where; ``guarded``: the file's name; ``fresh``: a name that would be guarded, too.
    ``forbidden``: the damages that must not be. ``label``: an extended attribute that it has.
    """

    policy: str
    attackers: tuple[str, ...]
    forbidden: frozenset[str]
    prefix: bytes = b""
    guarded: bytes = b"target"
    fresh: bytes = b"fresh"
    mode: int = 0o666
    label: str = ""
    name: str = ""


class Arena:
    """Where one attempt takes place. Paths are relative to the mount's root.

    ``guarded`` is in ``parent`` is in ``grand``; so is ``kin``, another one of its kind. ``free``
    is in ``outside``. Of ``fresh`` and ``elsewhere`` nothing is there yet.
    """

    def __init__(self, camp: Camp, fort: Fort, number: int, client: Client, friend: Client) -> None:
        self.fort = fort
        self.client = client
        self.friend = friend
        self.camp = camp
        home = b"%d" % number
        self.grand = fort.prefix + home
        self.parent = self.grand + b"/inner"
        self.guarded = self.parent + b"/" + fort.guarded
        self.kin = self.parent + b"/kin-" + fort.guarded
        if fort.guarded.startswith(b"."):
            self.kin = self.parent + b"/.kin" + fort.guarded
        self.fresh = self.parent + b"/" + fort.fresh
        self.outside = b"free-" + home
        self.free = self.outside + b"/free"
        self.elsewhere = self.outside + b"/elsewhere"
        self.seen: list[Any] = []
        self._build()

    # --- before ---------------------------------------------------------------------------------

    def under(self, path: bytes) -> bytes:
        """Where a path of the mount is in the backing tree."""
        return os.path.join(os.fsencode(self.camp.mount.source), path)

    def _build(self) -> None:
        for directory in (self.grand, self.parent, self.outside):
            os.mkdir(self.under(directory))
            os.chmod(self.under(directory), 0o777)
            os.chown(self.under(directory), USER, USER)
        for path, content, mode in (
            (self.guarded, CONTENT, self.fort.mode),
            (self.kin, b"kin", self.fort.mode),
            (self.free, PLAIN, 0o666),
        ):
            descriptor = os.open(self.under(path), os.O_CREAT | os.O_WRONLY, 0o600)
            os.write(descriptor, content)
            os.fchmod(descriptor, mode)
            os.fchown(descriptor, USER, USER)
            os.close(descriptor)
        if self.fort.label:
            os.setxattr(self.under(self.guarded), self.fort.label, b"1")
            os.setxattr(self.under(self.kin), self.fort.label, b"1")
        self._held = os.open(self.under(self.guarded), os.O_RDONLY | os.O_NOATIME)
        self._flags = rawcalls.get_flags(self._held)
        self._status = os.fstat(self._held)
        self._xattrs = self._read_xattrs()
        self._before = self._trees()
        for client in (self.client, self.friend):
            client.reset()
            client.enter(os.fsencode(self.camp.mount.path))
            client.watch = self._watch

    def _watch(self, _who: str, _name: str, _arguments: tuple[Any, ...], result: Any) -> None:
        self.seen.append(result)

    def _read_xattrs(self) -> dict[str, bytes]:
        return {name: os.getxattr(self._held, name) for name in os.listxattr(self._held)}

    def _trees(self) -> list[dict[bytes, dict[str, Any]]]:
        return [
            snapshot(Path(os.fsdecode(self.under(directory))))
            for directory in (self.grand, self.outside)
            if os.path.isdir(self.under(directory))
        ]

    # --- after ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let nobody hold anything."""
        for client in (self.client, self.friend):
            client.watch = None
            if client.runs:
                client.reset()
        os.close(self._held)

    def damage(self) -> set[str]:
        """What has happened to the guarded file, and what was seen of it."""
        found: set[str] = set()
        status, earlier = os.fstat(self._held), self._status
        content = os.pread(self._held, len(CONTENT) + 100_000, 0)
        if not content.startswith(CONTENT):
            found.add("bytes")
        if status.st_size > earlier.st_size:
            found.add("grown")
        if status.st_mode != earlier.st_mode:
            found.add("mode")
        if (status.st_uid, status.st_gid) != (earlier.st_uid, earlier.st_gid):
            found.add("owner")
        if status.st_mtime_ns != earlier.st_mtime_ns:
            found.add("times")
        if status.st_nlink > earlier.st_nlink:
            found.add("linked")
        if not status.st_nlink:
            found.add("removed")
        if rawcalls.get_flags(self._held) != self._flags:
            found.add("flags")
        if self._read_xattrs() != self._xattrs:
            found.add("xattr")
        try:
            there = os.lstat(self.under(self.guarded))
        except OSError:
            found.add("gone")
        else:
            if not os.path.samestat(there, status):
                found.add("gone")
        if os.path.lexists(self.under(self.fresh)):
            found.add("made")
        after = self._trees()
        if after != self._before:
            found.add("tree")
        if any(_contains(result) for result in self.seen) or self._leaked(after):
            found.add("read")
        return found

    def _leaked(self, trees: list[dict[bytes, dict[str, Any]]]) -> bool:
        """Whether another inode has the guarded bytes now."""
        return any(
            entry["ino"] != self._status.st_ino and MARK in entry.get("bytes", b"")
            for tree in trees
            for entry in tree.values()
        )


def _contains(result: Any) -> bool:
    if isinstance(result, bytes):
        return MARK in result
    if isinstance(result, (list, tuple)):
        return any(_contains(part) for part in result)
    return False


@dataclass
class Camp:
    """A mount under siege."""

    mount: Mount
    people: Clients
    tier: str
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def arena(self, fort: Fort, attacker: str) -> Iterator[Arena]:
        """A fresh one. Two processes attack."""
        friend = {"root": "root2", "user": "user2"}.get(attacker, attacker)
        arena = Arena(
            self, fort, next(self.numbers), self.people.get(attacker), self.people.get(friend)
        )
        try:
            yield arena
        finally:
            arena.close()

    def assault(self, fort: Fort, names: Collection[str] = ()) -> list[str]:
        """Try *names*, or everything of which it is this tier's turn; returns what got through."""
        turn = ("none", "rw").index(self.tier)
        through: list[str] = []
        for name in names or ATTEMPTS:
            for attacker in fort.attackers:
                if not (names or chosen(turn, 2, fort.policy, fort.name, name, attacker)):
                    continue
                with self.arena(fort, attacker) as arena:
                    ATTEMPTS[name][0](arena)
                    done = arena.damage() & fort.forbidden
                    if done:
                        answers = [result for result in arena.seen if not isinstance(result, bytes)]
                        through.append(f"{attacker}: {name}: {sorted(done)} {answers}")
        return through


@contextmanager
def camp(tier: str, policy: str, *arguments: str) -> Iterator[Camp]:
    """A mount with that policy, with the directories that shipped policies name."""
    with in_place(f"attack-{policy}") as place, clients() as people:
        source = place / "back"
        source.mkdir()
        source.chmod(0o777)
        for name in ("uploads", "developers", "designers", "published", "quarantine"):
            (source / name).mkdir()
            (source / name).chmod(0o777)
        with mounted(source, place / "mnt", "--tier", tier, *arguments, policy=policy) as mount:
            try:
                yield Camp(mount, people, tier)
            finally:
                people.close()


# --- bytes --------------------------------------------------------------------------------------


def _overwriting(name: str, flags: int, *damages: str) -> None:
    def function(arena: Arena) -> None:
        arena.client.open("f", arena.guarded, flags)
        arena.client.pwrite("f", b"X", 0)

    function.__name__ = name
    attempt(*damages)(function)


_overwriting("overwrite", os.O_WRONLY, "bytes")
_overwriting("overwrite_read_write", os.O_RDWR, "bytes")
_overwriting("overwrite_creating", os.O_WRONLY | os.O_CREAT, "bytes")
_overwriting("overwrite_synchronously", os.O_RDWR | os.O_SYNC, "bytes")
_overwriting("pwrite_while_appending", os.O_WRONLY | os.O_APPEND, "grown")
_overwriting("truncate_by_open", os.O_WRONLY | os.O_TRUNC, "bytes")
_overwriting("truncate_by_open_to_read", os.O_RDONLY | os.O_TRUNC, "bytes")
_overwriting("truncate_by_creating", os.O_RDWR | os.O_CREAT | os.O_TRUNC, "bytes")
_overwriting("truncate_by_appending", os.O_WRONLY | os.O_APPEND | os.O_TRUNC, "bytes")


@attempt("bytes")
def truncate(arena: Arena) -> None:
    arena.client.truncate(arena.guarded, 10)


@attempt("bytes")
def truncate_to_nothing_and_rewrite(arena: Arena) -> None:
    arena.client.truncate(arena.guarded, 0)
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.pwrite("f", b"X" * len(CONTENT), 0)


@attempt("bytes")
def ftruncate(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDWR)
    arena.client.ftruncate("f", 1)


@attempt("bytes")
def ftruncate_while_appending(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY | os.O_APPEND)
    arena.client.ftruncate("f", 1)


@attempt("grown")
def truncate_upwards(arena: Arena) -> None:
    arena.client.truncate(arena.guarded, len(CONTENT) + 10)


@attempt("bytes")
def append_flag_cleared(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDWR | os.O_APPEND)
    arena.client.write("f", b"appended")
    arena.client.set_status_flags("f", 0)
    arena.client.pwrite("f", b"X", 5)


@attempt("bytes")
def append_flag_to_and_fro(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.set_status_flags("f", os.O_APPEND)
    arena.client.write("f", b"appended")
    arena.client.set_status_flags("f", 0)
    arena.client.seek("f", 0)
    arena.client.write("f", b"X")


@attempt("grown")
def seek_while_appending(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY | os.O_APPEND)
    arena.client.seek("f", 0)
    arena.client.write("f", b"X")


@attempt("grown")
def append_by_flag_of_the_call(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.pwritev_flags("f", b"X", 0, os.RWF_APPEND)


@attempt("bytes", "grown")
def no_append_by_flag_of_the_call(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY | os.O_APPEND)
    arena.client.pwritev_flags("f", b"X", 0, 0x20)  # RWF_NOAPPEND


@attempt("bytes")
def synchronous_call(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.pwritev_flags("f", b"X", 3, os.RWF_DSYNC)


@attempt("bytes")
def write_across_the_end(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.pwrite("f", b"X" * 20, len(CONTENT) - 10)


@attempt("grown")
def write_behind_the_end(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.pwrite("f", b"X", len(CONTENT) + 5000)


@attempt("bytes")
def direct(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY | os.O_DIRECT)
    arena.client.pwrite_aligned("f", b"X" * 4096, 0)


@attempt("grown")
def direct_while_appending(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
    arena.client.pwrite_aligned("f", b"X" * 4096, 0)


_BOTH: Final = mmap.PROT_READ | mmap.PROT_WRITE


@attempt("bytes")
def store_by_mapping(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDWR)
    arena.client.map("m", "f", 4096, mmap.MAP_SHARED, _BOTH)
    if arena.seen[-1] is None:
        arena.client.map_write("m", 0, b"X")
        arena.client.map_flush("m")


@attempt("bytes")
def mapping_made_writable(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDWR)
    arena.client.protect_and_store("f", 4096, mmap.PROT_READ, b"X")
    arena.client.fsync("f")


@attempt("bytes")
def mapping_of_nothing_made_writable(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDWR | os.O_APPEND)
    arena.client.protect_and_store("f", 4096, 0, b"X")
    arena.client.fsync("f")


@attempt()
def reading_mapping_made_writable(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.protect_and_store("f", 4096, mmap.PROT_READ, b"X")


@attempt()
def store_privately(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.store_privately("f", 4096, b"X")


@attempt("bytes")
def copied_into(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.open("s", arena.free, os.O_RDONLY)
    arena.client.copy_range("s", "f", 100, 0, 0)


@attempt("bytes")
def sent_into(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.open("s", arena.free, os.O_RDONLY)
    arena.client.send_file("s", "f", 100)


@attempt("bytes")
def spliced_into(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.splice_into("f", b"X", 0)


@attempt("bytes")
def vmspliced_into(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_WRONLY)
    arena.client.vmsplice_into("f", b"X" * 4096, 0)


def _fallocating(name: str, mode: int, *damages: str, flags: int = os.O_WRONLY) -> None:
    def function(arena: Arena) -> None:
        arena.client.open("f", arena.guarded, flags)
        arena.client.fallocate("f", mode, 0, 4096)

    function.__name__ = name
    attempt(*damages)(function)


_fallocating("hole_punched", rawcalls.FALLOC_PUNCH_HOLE | rawcalls.FALLOC_KEEP_SIZE, "bytes")
_fallocating("hole_punched_appending", rawcalls.FALLOC_PUNCH_HOLE | rawcalls.FALLOC_KEEP_SIZE,
             "bytes", flags=os.O_RDWR | os.O_APPEND)  # fmt: skip
_fallocating("zeroed", rawcalls.FALLOC_ZERO_RANGE, "bytes")
_fallocating("collapsed", rawcalls.FALLOC_COLLAPSE_RANGE)  # FUSE has neither of these two
_fallocating("inserted", rawcalls.FALLOC_INSERT_RANGE)


@attempt("bytes")
def reopened_from_path_descriptor(arena: Arena) -> None:
    arena.client.open("p", arena.guarded, os.O_PATH)
    arena.client.reopen("f", "p", os.O_RDWR)
    arena.client.pwrite("f", b"X", 0)


@attempt("bytes")
def reopened_from_reading(arena: Arena) -> None:
    arena.client.open("p", arena.guarded, os.O_RDONLY)
    arena.client.reopen("f", "p", os.O_RDWR)
    arena.client.pwrite("f", b"X", 0)


@attempt("bytes")
def reopened_from_appending(arena: Arena) -> None:
    arena.client.open("p", arena.guarded, os.O_WRONLY | os.O_APPEND)
    arena.client.reopen("f", "p", os.O_WRONLY)
    arena.client.pwrite("f", b"X", 0)


@attempt("bytes", "none")
def reopened_from_other_process(arena: Arena) -> None:
    arena.friend.open("p", arena.guarded, os.O_PATH)
    path = arena.friend.by_descriptor("p")
    arena.client.open("f", bytes(path) if isinstance(path, bytes) else b"none", os.O_WRONLY)
    arena.client.pwrite("f", b"X", 0)


@attempt("bytes", "none")
def path_descriptor_sent(arena: Arena) -> None:
    address = b"inopt-%d-%s" % (os.getpid(), arena.grand)
    if arena.friend is arena.client:
        return
    arena.client.expect(address)
    arena.friend.open("p", arena.guarded, os.O_PATH)
    if arena.seen[-1] is None:
        arena.friend.pass_on("p", address)
        arena.client.take("q")
    arena.client.reopen("f", "q", os.O_WRONLY)
    arena.client.pwrite("f", b"X", 0)


def _by_other_name(name: str, path: Callable[[Arena], bytes]) -> None:
    def function(arena: Arena) -> None:
        other = path(arena)
        arena.client.open("r", other, os.O_RDONLY)
        arena.client.read("r", 100)
        arena.client.open("f", other, os.O_WRONLY)
        arena.client.pwrite("f", b"X", 0)
        arena.client.truncate(other, 5)

    function.__name__ = name
    attempt("bytes")(function)


def _linked(arena: Arena, target: bytes) -> bytes:
    arena.client.symlink(target, arena.elsewhere)
    return arena.elsewhere


def _linked_hard(arena: Arena, to: bytes) -> bytes:
    arena.client.link(arena.guarded, to)
    return to


def _moved(arena: Arena, to: bytes, flags: int = 0) -> bytes:
    arena.client.rename(arena.guarded, to, flags)
    return to


def _parent_moved(arena: Arena) -> bytes:
    arena.client.rename(arena.parent, arena.elsewhere)
    return arena.elsewhere + b"/" + arena.fort.guarded


def _grand_moved(arena: Arena) -> bytes:
    arena.client.rename(arena.grand, arena.elsewhere)
    return arena.elsewhere + b"/inner/" + arena.fort.guarded


def _parent_exchanged(arena: Arena) -> bytes:
    arena.client.mkdir(arena.elsewhere)
    arena.client.rename(arena.elsewhere, arena.parent, rawcalls.RENAME_EXCHANGE)
    return arena.elsewhere + b"/" + arena.fort.guarded


def _linked_open(arena: Arena, flags: int) -> bytes:
    arena.client.open("p", arena.guarded, flags)
    arena.client.link_open("p", arena.elsewhere)
    return arena.elsewhere


def _linked_empty(arena: Arena) -> bytes:
    arena.client.open("p", arena.guarded, os.O_PATH)
    arena.client.link_descriptor("p", arena.elsewhere)
    return arena.elsewhere


def _absolute(arena: Arena) -> bytes:
    return os.path.join(os.fsencode(arena.camp.mount.path), arena.guarded)


_by_other_name("by_relative_symlink", lambda a: _linked(a, b"../" + a.guarded))
_by_other_name("by_absolute_symlink", lambda a: _linked(a, _absolute(a)))
_by_other_name(
    "by_symlink_to_parent", lambda a: _linked(a, b"../" + a.parent) + b"/" + a.fort.guarded
)
_by_other_name("by_dots", lambda a: a.outside + b"/../" + a.parent + b"/../inner/" + a.fort.guarded)
_by_other_name("by_slashes", lambda a: a.parent + b"//.//" + a.fort.guarded)
_by_other_name("by_link_outside", lambda a: _linked_hard(a, a.elsewhere))
_by_other_name("by_link_beside", lambda a: _linked_hard(a, a.parent + b"/beside"))
_by_other_name(
    "by_link_of_other_case",
    lambda a: _linked_hard(a, a.parent + b"/" + a.fort.guarded.upper() + b"~"),
)
_by_other_name("by_link_with_newline", lambda a: _linked_hard(a, a.guarded + b"\n"))
_by_other_name("by_link_with_dot", lambda a: _linked_hard(a, a.guarded + b"."))
_by_other_name("by_link_of_odd_bytes", lambda a: _linked_hard(a, a.guarded + b"\xff\xfe"))
_by_other_name("by_link_of_space", lambda a: _linked_hard(a, a.guarded + b" "))
_by_other_name("by_link_of_open_file", lambda a: _linked_open(a, os.O_RDONLY))
_by_other_name("by_link_of_path_descriptor", lambda a: _linked_open(a, os.O_PATH))
_by_other_name("by_moving_outside", lambda a: _moved(a, a.elsewhere))
_by_other_name("by_moving_beside", lambda a: _moved(a, a.parent + b"/beside"))
_by_other_name(
    "by_moving_without_replacing", lambda a: _moved(a, a.elsewhere, rawcalls.RENAME_NOREPLACE)
)
_by_other_name("by_exchanging", lambda a: _moved(a, a.free, rawcalls.RENAME_EXCHANGE))
_by_other_name("by_moving_over", lambda a: _moved(a, a.free))
_by_other_name("by_moving_parent", _parent_moved)
_by_other_name("by_moving_ancestor", _grand_moved)
_by_other_name("by_exchanging_parent", _parent_exchanged)


@attempt("bytes", "none")
def by_link_with_empty_path(arena: Arena) -> None:
    other = _linked_empty(arena)
    arena.client.open("f", other, os.O_WRONLY)
    arena.client.pwrite("f", b"X", 0)


# --- the name -----------------------------------------------------------------------------------


@attempt("removed")
def unlink(arena: Arena) -> None:
    arena.client.unlink(arena.guarded)


@attempt("removed")
def replaced_by_free(arena: Arena) -> None:
    arena.client.rename(arena.free, arena.guarded)


@attempt("removed")
def replaced_by_kin(arena: Arena) -> None:
    arena.client.rename(arena.kin, arena.guarded)


@attempt("gone")
def exchanged_with_kin(arena: Arena) -> None:
    arena.client.rename(arena.kin, arena.guarded, rawcalls.RENAME_EXCHANGE)


@attempt("gone")
def exchanged_by_free(arena: Arena) -> None:
    arena.client.rename(arena.free, arena.guarded, rawcalls.RENAME_EXCHANGE)


@attempt("gone")
def exchanged_by_directory(arena: Arena) -> None:
    arena.client.mkdir(arena.elsewhere)
    arena.client.rename(arena.elsewhere, arena.guarded, rawcalls.RENAME_EXCHANGE)


@attempt("gone")
def moved_to_kin(arena: Arena) -> None:
    arena.client.rename(arena.guarded, arena.kin)


@attempt("gone")
def moved_to_fresh(arena: Arena) -> None:
    arena.client.rename(arena.guarded, arena.fresh)


@attempt("gone", "none")
def whiteout(arena: Arena) -> None:
    arena.client.rename(arena.guarded, arena.elsewhere, rawcalls.RENAME_WHITEOUT)


@attempt("gone")
def parent_replaced_by_symlink(arena: Arena) -> None:
    arena.client.rename(arena.parent, arena.elsewhere)
    arena.client.symlink(b"../" + arena.outside, arena.parent)


@attempt("gone")
def parent_moved(arena: Arena) -> None:
    arena.client.rename(arena.parent, arena.grand + b"/other")


@attempt("gone")
def parent_exchanged_with_file(arena: Arena) -> None:
    arena.client.rename(arena.free, arena.parent, rawcalls.RENAME_EXCHANGE)


@attempt("gone")
def ancestor_moved_and_rebuilt(arena: Arena) -> None:
    arena.client.rename(arena.grand, arena.elsewhere)
    arena.client.mkdir(arena.grand)
    arena.client.mkdir(arena.parent)
    arena.client.open("f", arena.guarded, os.O_CREAT | os.O_WRONLY)


@attempt()
def parent_removed(arena: Arena) -> None:
    arena.client.rmdir(arena.parent)
    arena.client.mkdir(arena.elsewhere)
    arena.client.rename(arena.elsewhere, arena.parent)


# --- attributes ---------------------------------------------------------------------------------


@attempt("mode")
def chmod(arena: Arena) -> None:
    arena.client.chmod(arena.guarded, 0o4755)


@attempt("mode")
def fchmod(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.fchmod("f", 0o700)


@attempt("mode")
def chmod_of_path_descriptor(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_PATH)
    path = arena.client.by_descriptor("f")
    if isinstance(path, bytes):
        arena.client.chmod(bytes(path), 0o700)


@attempt("mode")
def acl(arena: Arena) -> None:
    arena.client.setxattr(arena.guarded, ACCESS, ACL_FOR_ALL)


@attempt("owner", "none")
def chown(arena: Arena) -> None:
    arena.client.chown(arena.guarded, -1, 0 if arena.client.name == "root" else MEMBER)
    arena.client.chown(arena.guarded, MEMBER, TEAM)


@attempt("times")
def utimens(arena: Arena) -> None:
    arena.client.set_times(arena.guarded, (1, 0), (2, 0))


@attempt("times")
def touch(arena: Arena) -> None:
    now = (0, rawcalls.UTIME_NOW)
    arena.client.set_times(arena.guarded, now, now)


@attempt("flags")
def chattr(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.set_flags("f", rawcalls.FS_NODUMP)


@attempt("flags", "none")
def chattr_append_only(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.set_flags("f", rawcalls.FS_APPEND)


@attempt("xattr")
def label(arena: Arena) -> None:
    arena.client.setxattr(arena.guarded, "user.other", b"value")


@attempt("xattr", "none")
def labels_removed_or_changed(arena: Arena) -> None:
    for name in ("user.label", "user.quarantine"):
        arena.client.setxattr(arena.guarded, name, b"changed", os.XATTR_REPLACE)
        arena.client.removexattr(arena.guarded, name)


# --- content that is seen -----------------------------------------------------------------------


@attempt("read")
def read(arena: Arena) -> None:
    arena.client.read_file(arena.guarded)


@attempt("read")
def read_with_update(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDWR | os.O_NONBLOCK)
    arena.client.pread("f", 100, 0)


@attempt("read")
def read_directly(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY | os.O_DIRECT)
    arena.client.pread_aligned("f", 4096, 0)


@attempt("read")
def read_by_mapping(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.map_load("f")


@attempt("read")
def read_by_splice(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.splice_out("f", 100)


@attempt("read", "tree")
def copied_out(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.open("t", arena.free, os.O_WRONLY)
    arena.client.copy_range("f", "t", 1000, 0, 0)


@attempt("read", "tree")
def sent_out(arena: Arena) -> None:
    arena.client.open("f", arena.guarded, os.O_RDONLY)
    arena.client.open("t", arena.free, os.O_WRONLY)
    arena.client.send_file("f", "t", 1000)


@attempt("read")
def read_from_path_descriptor(arena: Arena) -> None:
    arena.client.open("p", arena.guarded, os.O_PATH)
    arena.client.reopen("f", "p", os.O_RDONLY)
    arena.client.pread("f", 100, 0)


@attempt("read", "none")
def read_from_other_process(arena: Arena) -> None:
    arena.friend.open("p", arena.guarded, os.O_PATH)
    path = arena.friend.by_descriptor("p")
    if isinstance(path, bytes):
        arena.client.read_file(bytes(path))


@attempt("read", "none")
def read_by_handle(arena: Arena) -> None:
    handle = arena.client.handle(arena.guarded)
    if isinstance(handle, bytes):
        arena.client.open_handle("f", os.fsencode(arena.camp.mount.path), handle, os.O_RDONLY)
        arena.client.pread("f", 100, 0)


@attempt("read")
def read_what_was_open_for_writing(arena: Arena) -> None:
    arena.client.open("w", arena.guarded, os.O_WRONLY)
    arena.client.reopen("f", "w", os.O_RDONLY)
    arena.client.pread("f", 100, 0)


# --- what is made -------------------------------------------------------------------------------


@attempt("made")
def created(arena: Arena) -> None:
    arena.client.open("f", arena.fresh, os.O_CREAT | os.O_RDONLY, 0o600)


@attempt("made")
def created_alone(arena: Arena) -> None:
    arena.client.open("f", arena.fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)


@attempt("made")
def node_made(arena: Arena) -> None:
    arena.client.mknod(arena.fresh, stat.S_IFREG | 0o644)


@attempt("made")
def fifo_made(arena: Arena) -> None:
    arena.client.mknod(arena.fresh, stat.S_IFIFO | 0o644)


@attempt("made")
def directory_made(arena: Arena) -> None:
    arena.client.mkdir(arena.fresh)


@attempt("made")
def symlink_made(arena: Arena) -> None:
    arena.client.symlink(b"anything", arena.fresh)


@attempt("made")
def free_linked_in(arena: Arena) -> None:
    arena.client.link(arena.free, arena.fresh)


@attempt("made")
def free_moved_in(arena: Arena) -> None:
    arena.client.rename(arena.free, arena.fresh)


@attempt("made")
def free_moved_in_without_replacing(arena: Arena) -> None:
    arena.client.rename(arena.free, arena.fresh, rawcalls.RENAME_NOREPLACE)


@attempt("made")
def directory_moved_in(arena: Arena) -> None:
    arena.client.mkdir(arena.elsewhere)
    arena.client.rename(arena.elsewhere, arena.fresh)


@attempt("made")
def nameless_linked_in(arena: Arena) -> None:
    arena.client.open("f", arena.outside, os.O_TMPFILE | os.O_RDWR, 0o666)
    arena.client.link_open("f", arena.fresh)


@attempt("made")
def nameless_from_within(arena: Arena) -> None:
    arena.client.open("f", arena.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    arena.client.link_open("f", arena.fresh)


@attempt("made", "none")
def nameless_linked_with_empty_path(arena: Arena) -> None:
    arena.client.open("f", arena.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    arena.client.link_descriptor("f", arena.fresh)
