"""Real locks on backing files, for those who lock through the mount.

Record locks belong to an *owner*: a process, or an open file (F_OFD_SETLK), which the kernel names
by a number. Each owner of locks on an inode gets an open file description of its own here, and its
locks are taken on that with F_OFD_SETLK. So owners exclude each other, and programs on the backing
tree; and what closing one description drops is nobody else's. Which ranges an owner has, the kernel
knows best: it is read from fdinfo (proc(5)) where it matters.

Nothing here waits. Sources: fcntl(2), flock(2); fs/locks.c for when a circle is a deadlock.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final, NamedTuple

from inopt.backing.files import OpenFile
from inopt.backing.inodes import Inode
from inopt.backing.ranges import LAST_BYTE, Conflict, Range, held_by, in_the_way, take
from inopt.backing.tree import Tree

_F_OFD_SETLKW: Final = 38


class _Claim:
    """The locks of one owner on one inode.

    ``handles`` are the opens by which it has locked; ``pid`` is who did so last; ``holds``: it has
    got a lock and not given back everything since.
    """

    __slots__ = ("descriptor", "handles", "holds", "pid", "writes")

    def __init__(self, descriptor: int, *, writes: bool) -> None:
        self.descriptor = descriptor
        self.writes = writes
        self.handles: set[int] = set()
        self.pid = 0
        self.holds = False


class Waiting(NamedTuple):
    """An owner's wish that waits. ``thread`` is the id of the thread that waits."""

    nodeid: int
    owner: int
    range: Range
    thread: int


class Locks:
    """The locks of one mount. Thread-safe.

    *posix* and *flock* tell which kinds come here; else the kernel keeps them by itself.
    ``released`` is called with a nodeid, by any thread, when somebody may get a lock that could
    not before.
    """

    def __init__(self, tree: Tree, *, posix: bool, flock: bool) -> None:
        self.posix = posix
        self.flocks = flock
        self.released: Callable[[int], None] = _nobody_waits
        self._tree = tree
        self._lock = Lock()
        self._claims: dict[int, dict[int, _Claim]] = {}
        self._waiting: dict[int, list[Waiting]] = {}

    def __len__(self) -> int:
        """How many owners have a description, each for one inode."""
        return sum(len(claims) for claims in self._claims.values())

    # --- record locks --------------------------------------------------------------------------

    def conflict(self, file: OpenFile, owner: int, wanted: Range) -> Conflict | None:
        """A lock of another owner that keeps *owner* from *wanted*; None if nothing does."""
        with self._lock:
            claims = self._claims.get(file.inode.nodeid, {})
            own = claims.get(owner)
            descriptor = file.any_fileno(self._tree) if own is None else own.descriptor
            found = in_the_way(descriptor, wanted)
            if found is None or found.pid >= 0:
                return found
            # An owner of ours, or an open file underneath, of which nobody tells whose it is.
            for claim in claims.values():
                if claim is not own and claim.holds and found.range in held_by(claim.descriptor):
                    return Conflict(found.range, claim.pid)
            return Conflict(found.range, 0)

    def set(self, file: OpenFile, handle: int, owner: int, wanted: Range, pid: int) -> None:
        """Take a lock, change it, or give it back (``F_UNLCK``), as *owner* by the open *handle*.

        Raises `OSError`: ``EAGAIN`` while another owner, or somebody underneath, has it.
        """
        nodeid = file.inode.nodeid
        unlocks = wanted.kind == fcntl.F_UNLCK
        with self._lock:
            claim = self._claims.get(nodeid, {}).get(owner)
            if claim is None and unlocks:
                return
            claim = self._able(claim, file, owner, writes=wanted.kind == fcntl.F_WRLCK)
            claim.handles.add(handle)
            take(claim.descriptor, wanted)
            if not unlocks:
                claim.pid = pid
                claim.holds = True
            elif wanted.start == 0 and wanted.end == LAST_BYTE:
                claim.holds = False
        if wanted.kind != fcntl.F_WRLCK:
            self.released(nodeid)

    def _able(self, claim: _Claim | None, file: OpenFile, owner: int, *, writes: bool) -> _Claim:
        """The claim of *owner*, made or made able to lock for writing."""
        if claim is None:
            # A description that can write would keep others from executing the file.
            writes = writes or file.flags & os.O_ACCMODE != os.O_RDONLY
            try:
                self._tree.descriptors.hold()
            except OSError:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None
            try:
                claim = _Claim(self._open(file.inode, writes=writes), writes=writes)
            except BaseException:
                self._tree.descriptors.held -= 1
                raise
            self._claims.setdefault(file.inode.nodeid, {})[owner] = claim
        elif writes and not claim.writes:
            descriptor = self._open(file.inode, writes=True)
            try:
                # They can only be locks for reading, which the new description may have as well.
                for held in held_by(claim.descriptor):
                    take(descriptor, held)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(claim.descriptor)
            claim.descriptor, claim.writes = descriptor, True
        return claim

    def _open(self, inode: Inode, *, writes: bool) -> int:
        if not writes:
            return self._tree.open(inode, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._tree.open(inode, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            # An append-only file (chattr +a) can only be opened for appending.
            return self._tree.open(inode, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def drop(self, nodeid: int, owner: int) -> None:
        """An owner gives back all its record locks on an inode: it has closed a descriptor."""
        with self._lock:
            claim = self._claims.get(nodeid, {}).get(owner)
            if claim is None:
                return
            self._remove(nodeid, owner)
        self.released(nodeid)

    def drop_open(self, nodeid: int, handle: int, file: OpenFile | None) -> None:
        """An open file is about to be closed for good, and with it go the locks that were its own.

        Those of processes that locked by it have gone before: each has closed its descriptor.
        """
        if file is not None and file.flocked:
            # Not left to close(2): a duplicate, or the kernel that bypasses by it, would keep it.
            self.flock(file, fcntl.LOCK_UN)
        with self._lock:
            claims = self._claims.get(nodeid, {})
            gone = [owner for owner, claim in claims.items() if handle in claim.handles]
            for owner in gone:
                self._remove(nodeid, owner)
        if gone:
            self.released(nodeid)

    def _remove(self, nodeid: int, owner: int) -> None:
        claims = self._claims[nodeid]
        os.close(claims.pop(owner).descriptor)
        self._tree.descriptors.held -= 1
        if not claims:
            del self._claims[nodeid]

    def close(self) -> None:
        """Drop all locks."""
        with self._lock:
            for nodeid, claims in list(self._claims.items()):
                for owner in list(claims):
                    self._remove(nodeid, owner)

    # --- flock(2) ------------------------------------------------------------------------------

    def flock(self, file: OpenFile, operation: int) -> None:
        """flock(2) on a whole file, as its open; *operation* is ``LOCK_SH``, ``_EX`` or ``_UN``.

        Raises `OSError`: ``EAGAIN`` while another open, or somebody underneath, has it; what this
        one had is then lost, as with flock(2).
        """
        had = file.flocked
        if operation == fcntl.LOCK_UN and not had:
            return
        try:
            fcntl.flock(file.fileno(self._tree), operation | fcntl.LOCK_NB)
            file.flocked = operation != fcntl.LOCK_UN
        finally:
            if had:
                self.released(file.inode.nodeid)

    # --- who waits for whom --------------------------------------------------------------------

    def wait(self, waiting: Waiting) -> None:
        """Note that an owner waits, until `wait_no_more`.

        Raises `OSError` ``EDEADLK`` if whom it waits for waits for it, perhaps by way of others;
        then it is not noted. Locks of open files (F_OFD_SETLKW) are not looked at: another thread
        may well give them back.
        """
        with self._lock:
            self._end_wait(waiting)
            if self._comes_back(waiting) and not _is_of_open_file(waiting.thread):
                raise OSError(errno.EDEADLK, os.strerror(errno.EDEADLK))
            self._waiting.setdefault(waiting.owner, []).append(waiting)

    def wait_no_more(self, waiting: Waiting) -> None:
        """It has got its lock, or has given up."""
        with self._lock:
            self._end_wait(waiting)

    def _end_wait(self, waiting: Waiting) -> None:
        waits = self._waiting.get(waiting.owner, [])
        if waiting in waits:
            waits.remove(waiting)
            if not waits:
                del self._waiting[waiting.owner]

    def _comes_back(self, first: Waiting) -> bool:
        """Whether who waits for whom leads back to the owner of *first*."""
        seen: set[int] = set()
        left = [first]
        while left:
            for blocker in self._blockers(left.pop(), first.owner):
                if blocker == first.owner:
                    return True
                if blocker not in seen:
                    seen.add(blocker)
                    others = self._waiting[blocker]
                    left += [each for each in others if not _is_of_open_file(each.thread)]
        return False

    def _blockers(self, waiting: Waiting, first: int) -> Iterator[int]:
        """The owners that have what *waiting* waits for, if they wait, too, or are *first*."""
        for owner, claim in self._claims.get(waiting.nodeid, {}).items():
            if owner == waiting.owner or not claim.holds:
                continue
            if owner != first and owner not in self._waiting:
                continue
            if any(waiting.range.excludes(held) for held in held_by(claim.descriptor)):
                yield owner


def _nobody_waits(_nodeid: int) -> None:
    return


def _is_of_open_file(thread: int) -> bool:
    """Whether a thread that waits does so for an open file's lock, not for its process's.

    The request does not tell; the system call that the thread is in does (proc(5), syscall).
    """
    try:
        with open(f"/proc/{thread}/syscall", encoding="ascii") as file:
            words = file.read().split()
        return len(words) > 2 and int(words[2], 16) == _F_OFD_SETLKW
    except (OSError, ValueError):
        return False
