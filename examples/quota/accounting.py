"""What both parts of the quota share: the ledger, and when an inode begins and ceases to count."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import trio
from ledger import Area, Key, Ledger, key_of, size_of

from inopt import EntryAttributes, FileInfo, Handlers, SessionReach

ROOT = 1


class Accounting(Handlers):
    """The accounts of one mount.

    All methods are plain functions, in several threads: ``lock`` is held from looking how much
    there is until it has been counted. ``nameless`` are those that count until their last close.
    """

    def __init__(self) -> None:
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "limits.toml")
        self.ledger = Ledger(os.environ.get("QUOTA_LIMITS", beside))
        self.lock = Lock()
        self.opens: Counter[Key] = Counter()
        self.nameless: set[Key] = set()

    async def started(self, session: SessionReach) -> None:  # noqa: ARG002 - the same is in `self`
        """Find out what is used."""
        with self._at(ROOT, os.O_RDONLY) as root:
            await trio.to_thread.run_sync(self.ledger.scan, root)

    @contextmanager
    def _at(self, inode: int, flags: int = os.O_PATH) -> Iterator[int]:
        descriptor = self.backing.open(inode, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _key(self, inode: int) -> Key:
        with self._at(inode) as descriptor:
            return key_of(os.fstat(descriptor))

    def _area(self, inode: int) -> Area | None:
        return self.ledger.areas.get(self._key(inode))

    def _look(self, parent: int, name: bytes) -> os.stat_result | None:
        """What has a name in a directory now."""
        try:
            with self._at(parent) as directory:
                return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _make(self, parent: int, make: Callable[[], EntryAttributes]) -> EntryAttributes:
        with self.lock:
            area = self._area(parent)
            if area is None:
                return make()
            area.require(0, 1)
            made = make()
            with self._at(made.st_ino) as descriptor:
                status = os.fstat(descriptor)
            self.ledger.areas[key_of(status)] = area
            area.count(size_of(status), 1)
            return made

    def _lost(self, status: os.stat_result, area: Area | None) -> None:
        """An inode in *area*, which was like this before, has lost a name."""
        key = key_of(status)
        if area is None or (status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)):
            return
        if self.opens[key]:
            self.nameless.add(key)
        else:
            self._gone(status, area)

    def _gone(self, status: os.stat_result, area: Area) -> None:
        key = key_of(status)
        self.nameless.discard(key)
        self.ledger.areas.pop(key, None)
        area.count(-size_of(status), -1)

    def _opened(self, info: FileInfo, inode: int, area: Area | None) -> None:
        if area is not None:
            key = self.backing.open_state(info.fh)["key"] = self._key(inode)
            self.opens[key] += 1

    def release(self, fh: int) -> None:
        """Close; what had no name any more is gone with its last open."""
        try:
            key: Key | None = self.backing.open_state(fh).get("key")
            if key is not None:
                with self.lock, self._at(self.backing.inode_of(fh)) as descriptor:
                    self.opens -= Counter([key])
                    if key in self.nameless:
                        self._gone(os.fstat(descriptor), self.ledger.areas[key])
        finally:
            self.daemon.release(fh)
