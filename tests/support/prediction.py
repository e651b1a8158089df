"""What an operation through a mount must answer, by the reference and by what is there now.

A prediction is made of the names of errnos: of *denied* ones at least one stands in the way; one of
*perhaps* may (an inode is known by other names, too; places may be treated alike or not).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.rawcalls import RENAME_EXCHANGE
from support.reference import SLOTS, Asker, Facts, Reference, Verdict
from support.worker import name_of

# Stands for the name of a file without one (O_TMPFILE): only wildcards match it.
NAMELESS: Final = b"\x7f"
_KINDS: Final = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFBLK: "block",
    stat.S_IFCHR: "character",
}  # fmt: skip
_MAKING: Final = {"file": "create", "directory": "mkdir", "symlink": "symlink"}
_REWRITING: Final = 0x02 | 0x10  # fallocate(2): punch holes, zero ranges
_UMASK: Final = 0o022


@dataclass
class Prediction:
    """None of both: the answer is that of a bare tree.

    *hides*: the mount does not show what is in the way on a bare tree, so that its kernel may have
    another reason to refuse.
    """

    denied: set[str] = field(default_factory=set)
    perhaps: set[str] = field(default_factory=set)
    hides: bool = False


@dataclass(frozen=True)
class Thing:
    """An inode by one of its names: what rules see of it."""

    path: bytes
    kind: str
    facts: Facts
    number: int = 0

    @property
    def text(self) -> str:
        return os.fsdecode(self.path) or "/"

    def at(self, path: bytes) -> Thing:
        """The same with another name."""
        return Thing(_absolute(path), self.kind, self.facts)


def _absolute(path: bytes) -> bytes:
    return b"/" + path if path not in (b"", b".") else b""


class Opened:
    """An open file, and whether its open may bypass: then only the kernel serves it."""

    def __init__(self, thing: Thing, flags: int, *, bypasses: bool, direct: bool) -> None:
        self.path = thing.path[1:]
        self.nameless = thing.path.endswith(b"/" + NAMELESS)
        self.thing = thing
        self.flags = flags
        self.bypasses = bypasses
        self.direct = direct


class Oracle:
    """Predictions for one caller. *backing* is the tree below the mount, looked at directly."""

    def __init__(self, reference: Reference, backing: Path, asker: Asker, *, bypass: bool) -> None:
        self.reference = reference
        self.backing = os.fsencode(backing)
        self.asker = asker
        self.bypass = bypass
        self.names: dict[int, set[bytes]] = {}
        self._has_paths = any(rule.match.path is not None for rule in reference.rules)

    # --- what is there -------------------------------------------------------------------------

    def look_around(self) -> None:
        """Remember by which names inodes are, or were, known."""
        found: dict[int, set[bytes]] = {}
        for directory, subdirectories, files in os.walk(self.backing):
            for name in (*subdirectories, *files):
                path = os.path.join(directory, name)
                number = os.lstat(path).st_ino
                found.setdefault(number, set()).add(path[len(self.backing) :])
        self.names = {
            number: paths | self.names.get(number, set()) for number, paths in found.items()
        }

    def thing(self, path: bytes) -> Thing | None:
        """What has this name now."""
        where = os.path.join(self.backing, path) if path else self.backing
        try:
            status = os.lstat(where)
        except OSError:
            return None
        return _thing(_absolute(path), status, where)

    def new(self, path: bytes, kind: str, mode: int) -> Thing:
        """What the caller is about to make."""
        own = self.asker.uid
        return Thing(_absolute(path), kind, Facts(mode & 0o7777, own, own, 0, {}))

    # --- what is needed ------------------------------------------------------------------------

    def verdict(self, slot: str, thing: Thing) -> Verdict:
        """What the reference says."""
        assert slot in SLOTS
        return self.reference.decide(slot, thing.text, thing.kind, thing.facts, self.asker)

    def hidden(self, thing: Thing) -> bool:
        """Whether it is not to be seen by this name."""
        return self.reference.hidden(thing.text, thing.kind, thing.facts)

    def need_name(self, found: Prediction, slot: str, thing: Thing) -> None:
        """This may be done with what is there by just this name."""
        verdict = self.verdict(slot, thing)
        if isinstance(verdict, int):
            found.denied.add(name_of(verdict))

    def need(self, found: Prediction, slot: str, thing: Thing) -> None:
        """This may be done with the inode, of which there may be other names."""
        self.need_name(found, slot, thing)
        for path in self.names.get(thing.number, ()):
            verdict = self.verdict(slot, thing.at(path[1:]))
            if isinstance(verdict, int):
                found.perhaps.add(name_of(verdict))

    def walk(self, found: Prediction, path: bytes, *, follow: bool, shown: bool = True
             ) -> Thing | None:  # fmt: skip
        """Look a path up; *shown*: what it leads to must not be hidden."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        thing = self.thing(b"")
        for depth in range(1, len(parts) + 1):
            thing = self.thing(b"/".join(parts[:depth]))
            if thing is None:
                return None
            last = depth == len(parts)
            if self.hidden(thing):
                found.hides = True
                if shown or not last:
                    found.denied.add("ENOENT")
            else:
                self.need_name(found, "lookup", thing)
            if thing.kind == "symlink" and (follow or not last):
                self.need(found, "readlink", thing)
        return thing

    # --- names ---------------------------------------------------------------------------------

    def make(self, slots: list[str], path: bytes, kind: str, mode: int) -> Prediction:
        """A new name."""
        found = Prediction()
        there = self.walk(found, path, follow=False, shown=False)
        made = self.new(path, kind, mode)
        if self.hidden(made) or (there is not None and self.hidden(there)):
            found.denied.add("EACCES")
        for slot in slots:
            self.need_name(found, slot, made)
        return found

    def mkdir(self, path: bytes, mode: int) -> Prediction:
        return self.make(["mkdir"], path, "directory", mode & ~_UMASK)

    def mknod(self, path: bytes, mode: int) -> Prediction:
        kind = _KINDS[stat.S_IFMT(mode)]
        slots = ["mknod", "create"] if kind == "file" else ["mknod"]
        return self.make(slots, path, kind, mode & ~_UMASK)

    def symlink(self, _target: bytes, path: bytes) -> Prediction:
        return self.make(["symlink"], path, "symlink", 0o777)

    def link(self, old: bytes, new: bytes) -> Prediction:
        found = Prediction()
        thing = self.walk(found, old, follow=False)
        self._link(found, thing, new)
        return found

    def link_open(self, opened: Opened, new: bytes) -> Prediction:
        found = Prediction()
        self._link(found, self.current(opened), new)
        return found

    def _link(self, found: Prediction, thing: Thing | None, new: bytes) -> None:
        target = self.walk(found, new, follow=False, shown=False)
        if thing is None:
            return
        there = thing.at(new)
        if self.hidden(there) or (target is not None and self.hidden(target)):
            found.denied.add("EACCES")
        self.need(found, "link", thing)
        self.need_name(found, "link", there)
        for path in {thing.path, *self.names.get(thing.number, ())}:
            alike = self.alike(thing.at(path[1:]), there)
            if path == thing.path and alike is False:
                found.denied.add(self._elsewhere(there))
            elif not alike:
                found.perhaps.add(self._elsewhere(there))

    def unlink(self, path: bytes) -> Prediction:
        return self._remove("unlink", path)

    def rmdir(self, path: bytes) -> Prediction:
        return self._remove("rmdir", path)

    def _remove(self, slot: str, path: bytes) -> Prediction:
        found = Prediction()
        thing = self.walk(found, path, follow=False)
        if thing is not None:
            self.need_name(found, slot, thing)
        return found

    def rename(self, old: bytes, new: bytes, flags: int) -> Prediction:
        found = Prediction()
        thing = self.walk(found, old, follow=False)
        target = self.walk(found, new, follow=False, shown=False)
        if thing is None:
            return found
        slot = "rename2" if flags else "rename"
        self.need_name(found, slot, thing)
        if target is not None:
            if self.hidden(target):
                found.denied |= {"EACCES", "ENOENT"}  # with EXCHANGE, the kernel says so
            removing = "rmdir" if target.kind == "directory" else "unlink"
            self.need_name(found, slot if flags & RENAME_EXCHANGE else removing, target)
        self._move(found, thing, new)
        if target is not None and flags & RENAME_EXCHANGE:
            self._move(found, target, old)
        if target is not None and target.number == thing.number:
            # Two names of one inode: the kernel does nothing, and does not ask.
            found.perhaps |= found.denied
            found.denied.clear()
        return found

    def _move(self, found: Prediction, thing: Thing, new: bytes) -> None:
        there = thing.at(new)
        if there.path == thing.path:
            return
        if self.hidden(there):
            found.denied.add("EACCES")
        alike = self.alike(thing, there)
        if not alike:
            (found.perhaps if alike is None else found.denied).add(self._elsewhere(there))

    def _elsewhere(self, there: Thing) -> str:
        """What is not to come to a place that is treated otherwise gets, as if it were made."""
        verdict = self.verdict(_MAKING.get(there.kind, "mknod"), there)
        return name_of(verdict) if isinstance(verdict, int) else "EXDEV"

    def alike(self, one: Thing, other: Thing) -> bool | None:
        """Whether two places are treated alike; None if only the engine can tell."""
        reference = self.reference
        if one.path == other.path or not self._has_paths:
            return True
        rules = [reference.about(thing.text, thing.kind) for thing in (one, other)]
        if rules[0] == rules[1]:
            return None if one.kind == "directory" else True
        if self.hidden(one) != self.hidden(other):
            return False
        differ = any(self.verdict(slot, one) != self.verdict(slot, other) for slot in SLOTS)
        return False if differ else None

    # --- attributes ----------------------------------------------------------------------------

    def _on_inode(self, slot: str, path: bytes, *, follow: bool = False) -> Prediction:
        found = Prediction()
        thing = self.walk(found, path, follow=follow)
        if thing is not None:
            self.need(found, slot, thing)
        return found

    def set_mode(self, path: bytes, _mode: int) -> Prediction:
        return self._on_inode("chmod", path, follow=True)

    def set_owner(self, path: bytes, _uid: int, _gid: int) -> Prediction:
        return self._on_inode("chown", path)

    def set_size(self, path: bytes, _size: int) -> Prediction:
        return self._on_inode("truncate", path, follow=True)

    def set_times(self, path: bytes, *_times: object) -> Prediction:
        return self._on_inode("utimens", path)

    def setxattr(self, path: bytes, *_what: object) -> Prediction:
        return self._on_inode("setxattr", path)

    def getxattr(self, path: bytes, *_what: object) -> Prediction:
        return self._on_inode("getxattr", path)

    def listxattr(self, path: bytes, *_what: object) -> Prediction:
        return self._on_inode("listxattr", path)

    def removexattr(self, path: bytes, *_what: object) -> Prediction:
        return self._on_inode("removexattr", path)

    def readlink(self, path: bytes) -> Prediction:
        return self._on_inode("readlink", path)

    def lstat(self, path: bytes) -> Prediction:
        found = Prediction()
        self.walk(found, path, follow=False)
        return found

    def listdir(self, path: bytes) -> Prediction:
        found = Prediction()
        thing = self.walk(found, path, follow=True)
        if thing is not None:
            self.need(found, "opendir", thing)
            self.need(found, "readdir", thing)
        return found

    def shown_in(self, path: bytes, names: list[bytes]) -> list[bytes]:
        """What a listing has of *names*."""
        things = {name: self.thing(os.path.normpath(os.path.join(path, name))) for name in names}
        return [name for name, thing in things.items() if thing and not self.hidden(thing)]

    # --- open files ----------------------------------------------------------------------------

    def open(self, path: bytes, flags: int, mode: int) -> tuple[Prediction, Thing | None]:
        """An open, and what it opens if that is a regular file."""
        found = Prediction()
        thing: Thing | None
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self.walk(found, path, follow=True)
            thing = self.new(os.path.normpath(path + b"/" + NAMELESS), "file", mode & ~_UMASK)
            slots = ["tmpfile", "create"]
        else:
            thing = self.walk(found, path, follow=False, shown=not flags & os.O_CREAT)
            slots = []
            if thing is None and flags & os.O_CREAT:
                thing = self.new(path, "file", mode & ~_UMASK)
                flags &= ~os.O_TRUNC  # there is nothing yet to be truncated
                slots = ["create"]
            if thing is None:
                return found, None
        if self.hidden(thing):
            found.denied.add("EACCES" if flags & os.O_CREAT or slots else "ENOENT")
        if thing.kind == "directory":
            self.need(found, "opendir", thing)
        if thing.kind != "file":
            return found, None
        for slot in (*slots, *opening(flags)):
            self.need(found, slot, thing)
        return found, thing

    def opened(self, thing: Thing, flags: int) -> Opened:
        """A file that has just been opened. What the policy says now holds for the open."""
        now = thing if thing.path.endswith(b"/" + NAMELESS) else self.thing(thing.path[1:])
        assert now is not None
        place = (now.text, "file", now.facts)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        return Opened(
            now,
            flags,
            bypasses=self.bypass and self.reference.may_bypass(*place),
            direct=not self.reference.is_free("mmap", *place)
            or (writes and self.reference.guards(*place)),
        )

    def current(self, opened: Opened) -> Thing:
        """The open file as it is now."""
        if opened.nameless:
            return opened.thing
        return self.thing(opened.path) or opened.thing

    def pwrite(self, opened: Opened, data: bytes, offset: int) -> Prediction:
        found = Prediction()
        self._overwrite(found, opened, offset, len(data))
        return found

    def _overwrite(self, found: Prediction, opened: Opened, offset: int, count: int) -> None:
        thing = self.current(opened)
        if not count or offset >= thing.facts.size or opened.flags & os.O_APPEND:
            return
        self.need(found, "overwrite", thing)
        if opened.bypasses or not self.reference.guards(thing.text, thing.kind, thing.facts):
            # Since the open, facts have changed. Who was let write then is not asked again.
            found.perhaps |= found.denied
            found.denied.clear()

    def pread(self, _opened: Opened, _size: int, _offset: int) -> Prediction:
        return Prediction()

    def map_load(self, opened: Opened) -> Prediction:
        """Shared mappings are denied to all opens alike, by the kernel."""
        found = Prediction()
        if self.current(opened).facts.size:
            self._map(found, opened)
        return found

    def map_store(self, opened: Opened, start: int, data: bytes) -> Prediction:
        found = Prediction()
        if data and self.current(opened).facts.size >= start + len(data):
            self._map(found, opened)
        return found

    def _map(self, found: Prediction, opened: Opened) -> None:
        if opened.direct:
            found.denied.add("ENODEV")
        thing = opened.thing
        slots = ("mmap", "overwrite")
        places = [thing.text, *map(os.fsdecode, self.names.get(thing.number, ()))]
        if not all(
            self.reference.is_sure(slot, place, "file", thing.facts)
            for slot in slots
            for place in places
        ):
            found.perhaps.add("ENODEV")

    def map_privately(self, _opened: Opened, _start: int, _data: bytes) -> Prediction:
        return Prediction()

    def ftruncate(self, opened: Opened, _size: int) -> Prediction:
        found = Prediction()
        self.need(found, "truncate", self.current(opened))
        return found

    def fallocate(self, opened: Opened, mode: int, _offset: int, _length: int) -> Prediction:
        found = Prediction()
        thing = self.current(opened)
        self.need(found, "fallocate", thing)
        if mode & _REWRITING:
            self.need(found, "overwrite", thing)
        return found

    def copy_range(
        self, source: Opened, target: Opened, size: int, start: int, to: int
    ) -> Prediction:
        found = Prediction()
        one, other = self.current(source), self.current(target)
        if start >= one.facts.size:
            return found  # there is nothing to copy, and the kernel does not ask
        self.need(found, "copy_file_range", other)
        self._overwrite(found, target, to, min(size, one.facts.size - start))
        return found


def opening(flags: int) -> list[str]:
    """What an open of a regular file needs."""
    slots = ["open"]
    access = flags & os.O_ACCMODE
    if access != os.O_WRONLY:
        slots.append("read")
    if access != os.O_RDONLY or flags & os.O_TRUNC:
        slots.append("write")
    if flags & os.O_TRUNC:
        slots.append("truncate")
    return slots


def _thing(path: bytes, status: os.stat_result, where: bytes) -> Thing:
    xattrs: dict[str, bytes] = {}
    for name in os.listxattr(where, follow_symlinks=False):
        try:
            xattrs[name] = os.getxattr(where, name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
    facts = Facts(status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_size, xattrs)
    return Thing(path, _KINDS[stat.S_IFMT(status.st_mode)], facts, status.st_ino)
