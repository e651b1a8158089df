"""Directory by directory, by inotify(7): where a filesystem cannot be watched as a whole.

A directory is watched from the first look at something in it, and what the kernel has been told
of it is remembered by name: so an event leads to an inode without looking again. There is a
budget; the directory that was used least recently is given up, with all that was said about it.

What inotify does not tell: who makes a change (so the daemon's own are told again), and changes
by names in directories that are not watched (so files with several names are not covered).
"""

from __future__ import annotations

import errno
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from threading import Lock
from typing import Final

from inopt.backing.filesystems import Filesystem
from inopt.backing.identity import attributes_of, key_of
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.backing.watch import calls
from inopt.backing.watch.changes import ATTRIBUTES, NAME, Changes
from inopt.wire.attributes import Attributes

_DATA: Final = calls.MODIFY | calls.CLOSE_WRITE
_LED: Final = calls.DELETE | calls.MOVED_FROM | calls.MOVED_TO
_NAMES: Final = _LED | calls.CREATE
_MOVED: Final = calls.MOVED_FROM | calls.MOVED_TO
MASK: Final = _DATA | _NAMES | calls.ATTRIB | calls.MOVE_SELF | calls.DELETE_SELF

_EVENT: Final = struct.Struct("<iIII")  # watch, mask, cookie, length of the name with its padding
_LARGEST_READ: Final = 64 << 10
_MOST_READS: Final = 16
_MAX_WATCHES: Final = "/proc/sys/fs/inotify/max_user_watches"
SMALLEST_BUDGET: Final = 8


def default_budget() -> int:
    """Half of the directories that this user may watch (fs.inotify.max_user_watches)."""
    try:
        with open(_MAX_WATCHES, encoding="ascii") as limit:
            return max(SMALLEST_BUDGET, int(limit.read()) // 2)
    except (OSError, ValueError):
        return SMALLEST_BUDGET


def parse(events: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Take apart what was read: watch, mask and name. Raises `ValueError` for what is cut off."""
    at = 0
    while at < len(events):
        if at + _EVENT.size > len(events):
            raise ValueError("an event is cut off")
        watch, mask, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        if at + length > len(events):
            raise ValueError("a name is cut off")
        yield watch, mask, events[at : at + length].partition(b"\0")[0]
        at += length


class _Watched:
    """One directory that is watched, and what the kernel was told that its names lead to."""

    __slots__ = ("children", "inode", "number")

    def __init__(self, inode: Inode, number: int) -> None:
        self.inode = inode
        self.number = number
        self.children: dict[bytes, Inode] = {}


class Inotify:
    """A watch of at most *budget* directories of a tree. Raises `OSError` if it cannot be had.

    *wake* is called when `read` has something to tell although `descriptor` is silent.
    """

    kind = "inotify"

    def __init__(
        self, tree: Tree, budget: int | None = None, wake: Callable[[], None] = lambda: None
    ) -> None:
        self.budget = default_budget() if budget is None else budget
        self.wake = wake
        self._tree = tree
        self._filesystem: Filesystem = tree.root.filesystem
        self._lock = Lock()
        self._watched: OrderedDict[int, _Watched] = OrderedDict()
        self._by_number: dict[int, _Watched] = {}
        self._places: dict[int, tuple[_Watched, bytes]] = {}
        self._pending = Changes()
        self.descriptor = calls.inotify_init()
        try:
            self._add(tree.root)
        except BaseException:
            os.close(self.descriptor)
            raise

    # --- what readers say ----------------------------------------------------------------------

    def approach(self, directory: Inode) -> None:
        """Watch *directory* from now on, if that can be done."""
        with self._lock:
            if directory.nodeid in self._watched:
                self._watched.move_to_end(directory.nodeid)
                return
            if directory.filesystem is not self._filesystem or self.descriptor < 0:
                return
            try:
                self._add(directory)
            except OSError as error:
                if error.errno != errno.ENOSPC or len(self._watched) <= 1:
                    return
                # Others use the rest of the limit: this is all there is.
                self.budget = len(self._watched)
                self._give_up_oldest()
                with suppress(OSError):
                    self._add(directory)
        self.wake()

    def _add(self, directory: Inode) -> None:
        while len(self._watched) >= self.budget:
            self._give_up_oldest()
        number = calls.inotify_add(self.descriptor, self._tree.descriptor(directory), MASK)
        watched = _Watched(directory, number)
        self._watched[directory.nodeid] = watched
        self._by_number[number] = watched
        # Somebody may just be saying what it was like before.
        self._pending.touch(directory)

    def _give_up_oldest(self) -> None:
        _, watched = self._watched.popitem(last=False)
        with suppress(OSError):
            calls.inotify_remove(self.descriptor, watched.number)
        self._unwatched(watched, self._pending)

    def _unwatched(self, watched: _Watched, changes: Changes) -> None:
        """Nobody watches a directory any more: what was said about it may not be believed."""
        self._by_number.pop(watched.number, None)
        changes.touch(watched.inode)
        for name, child in watched.children.items():
            self._places.pop(child.nodeid, None)
            changes.expired.add((watched.inode, name))
            changes.touch(child)
        watched.children = {}

    def meet(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Remember where an inode is, if its directory is watched."""
        if inode is directory or inode is self._tree.root:
            return
        with self._lock:
            self._leave(inode)
            watched = self._watched.get(directory.nodeid)
            if watched is not None and inode.filesystem is self._filesystem:
                self._drop(watched, name, self._pending)
                watched.children[name] = inode
                self._places[inode.nodeid] = (watched, name)

    def _leave(self, inode: Inode) -> None:
        place = self._places.pop(inode.nodeid, None)
        if place is not None:
            place[0].children.pop(place[1], None)

    def forget(self, inode: Inode) -> None:
        """The kernel knows an inode no more."""
        with self._lock:
            self._leave(inode)
            watched = self._watched.pop(inode.nodeid, None)
            if watched is None:
                return
            if self.descriptor >= 0:
                with suppress(OSError):
                    calls.inotify_remove(self.descriptor, watched.number)
            had_children = bool(watched.children)
            self._unwatched(watched, self._pending)
            self._pending.inodes.pop(inode, None)
        if had_children:
            self.wake()

    def covers(self, inode: Inode, attributes: Attributes) -> int:
        """Names in watched directories; attributes of those, and of files with one name."""
        place = inode.nodeid in self._places
        if inode.is_directory:
            watched = inode.nodeid in self._watched
            return (NAME if place else 0) | (ATTRIBUTES if watched else 0)
        return NAME | ATTRIBUTES if place and attributes.links == 1 else 0

    # --- what the kernel says ------------------------------------------------------------------

    def read(self, own: Collection[int]) -> Changes:  # noqa: ARG002 - it is not told
        """What has changed since the last call; does not wait."""
        made: list[tuple[Inode, bytes]] = []
        with self._lock:
            changes, self._pending = self._pending, Changes()
        for _ in range(_MOST_READS):
            try:
                events = os.read(self.descriptor, _LARGEST_READ)
            except BlockingIOError:
                break
            with self._lock:
                for number, mask, name in parse(events):
                    self._take(number, mask, name, changes, made)
        for directory, name in made:
            self._look_for_links(directory, name, changes)
        return changes

    def _take(
        self,
        number: int,
        mask: int,
        name: bytes,
        changes: Changes,
        made: list[tuple[Inode, bytes]],
    ) -> None:
        changes.events += 1
        if mask & calls.OVERFLOW:
            changes.lost = True
            self._places.clear()
            for other in self._watched.values():
                other.children.clear()
            return
        watched = self._by_number.get(number)
        if watched is None:
            return
        directory = watched.inode
        if mask & calls.IN_IGNORED:
            # It has been removed; the watch is gone with it.
            self._watched.pop(directory.nodeid, None)
            self._unwatched(watched, changes)
        elif not name:
            changes.touch(directory)
        elif mask & _NAMES:
            changes.touch(directory)
            changes.rename(directory, name, led=bool(mask & _LED))
            if mask & _MOVED and mask & calls.ON_DIRECTORY:
                changes.moved = True
            if mask & _LED:
                self._drop(watched, name, changes)
            elif not mask & calls.ON_DIRECTORY:
                made.append((directory, name))
        else:
            child = watched.children.get(name)
            if child is not None:
                changes.touch(child, data=bool(mask & _DATA))

    def _drop(self, watched: _Watched, name: bytes, changes: Changes) -> None:
        """A name leads elsewhere: where its inode is now, and what becomes of it, is not known."""
        child = watched.children.pop(name, None)
        if child is not None:
            self._places.pop(child.nodeid, None)
            changes.touch(child)

    def _look_for_links(self, directory: Inode, name: bytes, changes: Changes) -> None:
        """A new name may be one more of an inode that is known: its link count has changed."""
        try:
            with self._tree.descriptors.use():
                attributes = attributes_of(self._tree.descriptor(directory), name)
        except OSError:
            return
        if attributes.links > 1:
            inode = self._tree.table.find(key_of(attributes))
            if inode is not None:
                changes.touch(inode)
                changes.linked.add(inode)

    def facts(self) -> dict[str, int]:
        """How many directories are watched, and how many may be."""
        return {"watched_directories": len(self._watched), "watch_budget": self.budget}

    def close(self) -> None:
        """End all watches."""
        with self._lock:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)
            self._watched.clear()
            self._places.clear()
