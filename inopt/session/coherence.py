"""Changes underneath, told to the kernel: so it may believe for long what it was told.

One thread waits for the watch, and tells what has changed: that attributes have is written at
once, for which the kernel waits on nothing; the rest is the business of `Tellers`.

Three things keep an answer that is older than a change from being believed after it:

* Attributes are read after the inode is known to the watch (`inopt.backing.tree`), so a change
  that the watch did not know to whom it belonged is in them.
* The kernel takes no attributes from an answer to what it asked before it was notified
  (``fi->attr_version``), and drops a name under the lock under which it asks for one. So order
  does not matter for what it knows. What it does not know yet (``ENOENT``: the answer that names
  the inode is under way) is notified again.
* Changes are told a moment after they were read: answers of that time are out by then.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Collection
from typing import Any, Final

import structlog

from inopt.backing.inodes import Inode
from inopt.backing.watch.changes import Changes, Watch
from inopt.backing.watch.inotify import Inotify
from inopt.handlers.serve import Context
from inopt.kernel.device import Device
from inopt.kernel.negotiate import Terms
from inopt.session import reload
from inopt.session.telling import Tellers
from inopt.wire import notifications
from inopt.wire.uapi import EXPIRE_ONLY, InitFlag, NotifyCode

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

PAUSE: Final = 0.01  # seconds between reading changes and telling them: they come in bunches
_TICK: Final = 0.02  # seconds between looks at tellers that are behind
_TRIES: Final = (0.02, 0.1, 0.5)  # seconds after which an unknown inode is notified again
_LONGEST_REST: Final = 1.0  # seconds of rest after everything had to be made stale
_OUT: Final = 0.05  # seconds in which answers that are being made have gone out
_GRACE: Final = 5.0
_CODE: Final = slice(4, 8)  # where a notification says what it is
_ENTRY: Final = int(NotifyCode.INVAL_ENTRY).to_bytes(4, "little")


class Coherence:
    """Tells the kernel what the tree's watch notices, from `start` to `end`.

    *own*: the threads whose changes the kernel has asked for itself. If it cannot go on, the tree
    has no watch any more: times are short again, and what was said is made stale.
    """

    def __init__(
        self,
        device: Device,
        context: Context,
        terms: Terms,
        watch: Watch,
        own: Collection[int],
    ) -> None:
        self.watch = watch
        self.has_failed = False
        self._device = device
        self._context = context
        self._terms = terms
        self._own = own
        self._tellers = Tellers(device, self._told)
        self._again: dict[int, tuple[float, int]] = {}
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="inopt-coherence", daemon=True)
        self._events = self._own_events = self._overflows = 0
        self._invalidated_inodes = self._invalidated_names = 0
        if isinstance(watch, Inotify):
            watch.wake = self._poke

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def believe_no_more(self) -> None:
        """Let times be short again; what was said before that has gone out on return."""
        self._context.tree.watch = None
        time.sleep(_OUT)

    def end(self) -> None:
        """Stop, and close the watch. A thread that is held up by the kernel is left behind."""
        self._context.tree.watch = None
        self._closing = True
        self._poke()
        if isinstance(self.watch, Inotify):
            self.watch.wake = lambda: None
        self._thread.join(_GRACE)
        if not self._tellers.close(_GRACE) or self._thread.is_alive():
            _log.error("a notification is stuck; its thread is left behind")
            return
        self.watch.close()
        os.close(self._wake)

    def facts(self) -> dict[str, Any]:
        """What ``inopt stats`` shows."""
        return {
            "coherence": "timeout (the watch has failed)" if self.has_failed else self.watch.kind,
            "watch_events": self._events,
            "own_events": self._own_events,
            "invalidated_inodes": self._invalidated_inodes,
            "invalidated_names": self._invalidated_names,
            "watch_overflows": self._overflows,
        } | self.watch.facts()

    def _poke(self) -> None:
        os.eventfd_write(self._wake, 1)

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._watch()
        except Exception:
            self.has_failed = True
            _log.exception(
                "changes underneath are not noticed any more: timeouts are short again",
                watch=self.watch.kind,
            )
            self.believe_no_more()
            reload.make_stale(self._device, self._context, self._terms)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self.watch.descriptor, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = poll.poll(self._patience())
            if self._closing:
                return
            if any(descriptor == self._wake for descriptor, _ in ready):
                os.eventfd_read(self._wake)
            if ready:
                changes = self.watch.read(self._own)
                time.sleep(PAUSE)
                self._tell(changes)
            if self._again:
                self._tell_again()
            if self._tellers.behind:
                self._tellers.help()

    def _patience(self) -> float | None:
        """How long to wait for changes, in milliseconds."""
        if self._tellers.behind:
            return _TICK * 1000
        if not self._again:
            return None
        due = min(when for when, _ in self._again.values())
        return max(0.0, due - time.monotonic()) * 1000

    # --- what is told --------------------------------------------------------------------------

    def _tell(self, changes: Changes) -> None:
        self._events += changes.events
        self._own_events += changes.own
        if changes.lost:
            self._tell_everything()
            return
        for inode in changes.linked:
            self._replace(inode)
        if changes.moved and self._context.placement.policy.rules.by_path:
            # What is below is under other rules now, and is to be looked up to learn of them.
            reload.make_names_stale(self._device, self._context, self._terms)
        self._tell_names(changes)
        for inode, data in changes.inodes.items():
            self._tell_inode(inode, data=data)

    def _tell_names(self, changes: Changes) -> None:
        caches_absence = self._context.negative is not None
        by_directory: dict[int, list[bytes]] = {}
        for (directory, name), led in changes.names.items():
            if led or caches_absence:
                message = notifications.invalidate_entry(directory.nodeid, name)
                by_directory.setdefault(directory.nodeid, []).append(message)
        flags = EXPIRE_ONLY if self._terms.has(InitFlag.HAS_EXPIRE_ONLY) else 0
        for directory, name in changes.expired:
            message = notifications.invalidate_entry(directory.nodeid, name, flags)
            by_directory.setdefault(directory.nodeid, []).append(message)
        for nodeid, messages in by_directory.items():
            self._tellers.tell(nodeid, messages)

    def _tell_inode(self, inode: Inode, *, data: bool) -> None:
        nodeid = inode.nodeid
        if not self._tell_attributes(nodeid):
            if nodeid in self._context.tree.table:
                self._again[nodeid] = (time.monotonic() + _TRIES[0], 0)
            return
        # What bypasses has no pages of its own.
        if data and not self._context.attachments.backing_id(inode):
            self._tellers.tell(nodeid, [notifications.invalidate_inode(nodeid, 0, 0)])

    def _tell_attributes(self, nodeid: int) -> bool:
        """Tell that attributes have changed; False if the kernel does not know the inode."""
        try:
            known = self._device.notify(notifications.invalidate_inode(nodeid, -1, 0))
        except OSError:
            return True  # the session has ended
        self._invalidated_inodes += known
        return known

    def _tell_again(self) -> None:
        now = time.monotonic()
        for nodeid, (when, tries) in list(self._again.items()):
            if when > now:
                continue
            del self._again[nodeid]
            known = nodeid in self._context.tree.table
            if known and not self._tell_attributes(nodeid) and tries + 1 < len(_TRIES):
                self._again[nodeid] = (now + _TRIES[tries + 1], tries + 1)

    def _told(self, messages: list[bytes]) -> None:
        self._invalidated_names += sum(message[_CODE] == _ENTRY for message in messages)

    def _replace(self, inode: Inode) -> None:
        try:
            with self._context.tree.descriptors.use():
                self._context.placement.linked(inode)
        except OSError:
            return  # gone: nothing leads to it any more

    def _tell_everything(self) -> None:
        """More has changed than the watch could hold: whatever the kernel knows may be old."""
        began = time.monotonic()
        level = _log.debug if self._overflows else _log.warning
        self._overflows += 1
        level(
            "more changes underneath than could be noticed: everything is asked for again",
            watch=self.watch.kind,
        )
        # What is still waiting is about the time before this.
        while not self._closing and self.watch.read(self._own).events:
            if time.monotonic() - began > _LONGEST_REST:
                break
        time.sleep(PAUSE)
        reload.make_names_stale(self._device, self._context, self._terms)
        for inode in self._context.tree.table.snapshot():
            self._tell_inode(inode, data=inode.io is not None)
        time.sleep(min(time.monotonic() - began, _LONGEST_REST))
