"""Notifications on which the kernel may wait, written by threads of their own.

To drop a name the kernel takes the lock of its directory, and to drop pages the locks of those:
both may be held for a request that somebody is still serving. So no reader may write such a
notification, and whoever does may be held up for as long as a slow handler takes. Here only what
is about the same inode waits for it: while a teller is held up, another one goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from inopt.kernel.device import Device

MOST_TELLERS: Final = 8


class Tellers:
    """Threads that write notifications to *device*, by the nodeid whose locks they need.

    *told* is called, by one teller at a time, with those that the kernel had a use for.
    """

    def __init__(self, device: Device, told: Callable[[list[bytes]], None]) -> None:
        self._device = device
        self._told = told
        self._changed = threading.Condition()
        self._waiting: dict[int, list[bytes]] = {}
        self._busy: dict[int, int] = {}
        """What is being told, by nodeid: how many times somebody has found it unchanged."""
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._closing = False

    def tell(self, nodeid: int, messages: Iterable[bytes]) -> None:
        """Have *messages* written, soon and in order, when nobody else writes about *nodeid*."""
        with self._changed:
            self._waiting.setdefault(nodeid, []).extend(messages)
            if not self._threads:
                self._add()
            self._changed.notify()

    @property
    def behind(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._waiting)

    def help(self) -> None:
        """Called now and then while they are `behind`: adds a teller if all others are held up."""
        with self._changed:
            held_up = [nodeid for nodeid, seen in self._busy.items() if seen]
            for nodeid in self._busy:
                self._busy[nodeid] += 1
            free = any(nodeid not in self._busy for nodeid in self._waiting)
            all_held = len(held_up) == len(self._threads)
            if free and not self._idle and all_held and len(self._threads) < MOST_TELLERS:
                self._add()

    def _add(self) -> None:
        name = f"inopt-teller-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (nodeid := self._next()) is None:
                    if self._closing:
                        return
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                messages = self._waiting.pop(nodeid)
                self._busy[nodeid] = 0
            told = [message for message in messages if self._write(message)]
            with self._changed:
                self._told(told)
                del self._busy[nodeid]
                self._changed.notify()

    def _next(self) -> int | None:
        return next((nodeid for nodeid in self._waiting if nodeid not in self._busy), None)

    def _write(self, message: bytes) -> bool:
        try:
            return self._device.notify(message)
        except OSError:
            return False  # the session has ended

    def close(self, seconds: float) -> bool:
        """Drop what waits, and end; False if one is held up for longer than *seconds*."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
