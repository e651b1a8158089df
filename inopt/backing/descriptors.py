"""A bounded cache of ``O_PATH`` descriptors, and their safe closing.

Trees have millions of files and processes a few thousand descriptors, so inodes are kept as file
handles and descriptors are only a cache. A descriptor that is evicted while another thread may
still be using its number must not be closed at once (the number would be reused for another
file): it is retired, and closed when every request that could have seen it has ended.
"""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict, deque
from typing import Final, Protocol

# What a daemon holds besides: the device and its clones, logs, sockets, trio's own, the root.
RESERVED: Final = 40
SMALLEST_BUDGET: Final = 64
_SMALLEST_CACHE: Final = 8


class Worker(Protocol):
    """Whoever uses cached descriptors: it notes the cache's `epoch` when a request starts."""

    epoch: int
    busy: bool


class Use:
    """Whoever uses cached descriptors and is no reader: protected until the ``with`` ends."""

    __slots__ = ("_cache", "busy", "epoch")

    def __init__(self, cache: DescriptorCache) -> None:
        self._cache = cache
        self.busy = False
        self.epoch = 0

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self._cache.end_use(self)


class DescriptorCache:
    """The least recently used ``O_PATH`` descriptors of directories by nodeid, within a budget.

    *budget* is the number of descriptors the whole daemon may hold. What open files and pinned
    inodes hold (`held`) is taken out of the cache's share.
    """

    __slots__ = ("_cached", "_idle", "_retired", "budget", "epoch", "held", "limit", "workers")

    def __init__(self, budget: int) -> None:
        self._cached: OrderedDict[int, int] = OrderedDict()
        self._retired: deque[tuple[int, int]] = deque()
        self._idle: list[Use] = []
        self.budget = budget
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.held = 0
        self.epoch = 0
        self.workers: list[Worker] = []

    def __len__(self) -> int:
        return len(self._cached)

    @property
    def capacity(self) -> int:
        """How many descriptors may be cached now."""
        return max(_SMALLEST_CACHE, self.budget - RESERVED - self.held)

    def hold(self) -> None:
        """Count a descriptor that is held outside of the cache.

        Raises `OSError` ``ENFILE`` near the system's limit: what is reserved keeps the daemon
        able to answer.
        """
        if self.held >= self.limit - RESERVED - _SMALLEST_CACHE:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        self.held += 1

    def get(self, nodeid: int) -> int:
        """The cached descriptor, or -1."""
        descriptor = self._cached.get(nodeid, -1)
        if descriptor >= 0:
            try:  # noqa: SIM105 - `suppress` costs three calls, for each name that is looked up
                self._cached.move_to_end(nodeid)
            except KeyError:
                pass  # another thread has just evicted it; it is still open
        return descriptor

    def put(self, nodeid: int, descriptor: int) -> int:
        """Cache *descriptor* unless one is there; returns the one to use."""
        present = self._cached.setdefault(nodeid, descriptor)
        if present != descriptor:
            os.close(descriptor)
            return present
        while len(self._cached) > self.capacity:
            self.retire(self._cached.popitem(last=False)[1])
        return descriptor

    def drop(self, nodeid: int) -> None:
        """Forget a nodeid; its descriptor is closed when nobody can be using it."""
        descriptor = self._cached.pop(nodeid, -1)
        if descriptor >= 0:
            self.retire(descriptor)

    def retire(self, descriptor: int) -> None:
        """Close *descriptor* when no running request can be using it."""
        self.epoch += 1
        self._retired.append((self.epoch, descriptor))

    def use(self) -> Use:
        """For ``with``: no descriptor that is got in the body is closed before its end.

        Readers do not need it while they serve a request: they are workers themselves.
        """
        try:
            use = self._idle.pop()
        except IndexError:
            use = Use(self)
            self.workers.append(use)
        use.epoch = self.epoch
        use.busy = True
        return use

    def end_use(self, use: Use) -> None:
        """Called by *use* at its end."""
        use.busy = False
        self._idle.append(use)
        if self._retired:
            self.close_retired()

    @property
    def retired(self) -> int:
        """How many descriptors wait to be closed."""
        return len(self._retired)

    def close_retired(self, finished: Worker | None = None) -> None:
        """Close what was retired before the oldest request began that is still running.

        *finished* is a worker between two requests, which holds nothing.
        """
        oldest = min(
            (worker.epoch for worker in self.workers if worker.busy and worker is not finished),
            default=self.epoch,
        )
        for _ in range(len(self._retired)):
            try:
                epoch, descriptor = self._retired.popleft()
            except IndexError:
                return  # another thread closes, too
            if epoch <= oldest:
                os.close(descriptor)
            else:
                self._retired.append((epoch, descriptor))

    def close(self) -> None:
        """Close everything; no request may be running."""
        for _, descriptor in self._retired:
            os.close(descriptor)
        self._retired.clear()
        while self._cached:
            os.close(self._cached.popitem()[1])
