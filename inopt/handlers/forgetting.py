"""FORGET for handlers that want to be told: their method first, then the counts go, always."""

from __future__ import annotations

import inspect
from threading import get_ident
from typing import Any, Final

import pyfuse3
import structlog

from inopt.handlers.apart import answer_later
from inopt.handlers.calling import Request, current
from inopt.handlers.serve import Context
from inopt.handlers.tasks import Tasks
from inopt.wire import bodies
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Forgetting:
    """What the kernel forgets, told to `forget` of *handlers*.

    The lookups that the kernel gives back are taken back here, once, when the method has ended,
    whether or not it failed. It may give back such as the handlers themselves have made.
    """

    def __init__(self, handlers: pyfuse3.Operations, context: Context, tasks: Tasks) -> None:
        self._method: Any = handlers.forget
        self._is_async = inspect.iscoroutinefunction(self._method)
        self._context = context
        self._tasks = tasks
        self._has_failed = False

    def serve(self, header: Header, body: bodies.Forget | bodies.BatchForget) -> None:
        """FORGET and BATCH_FORGET."""
        items = [(header.nodeid, body.count)] if isinstance(body, bodies.Forget) else body.items
        if self._is_async:
            answer_later(self._tasks, header, body, lambda: self._tell_async(items))
            return
        token = current.set(Request(header, body, get_ident(), []))
        try:
            result = self._method(list(items))
            if inspect.iscoroutine(result):
                result.close()  # that of super(), which would do nothing here
        except Exception as error:
            self._failed(error)
        finally:
            current.reset(token)
            self._forget(items)

    async def _tell_async(self, items: list[tuple[int, int]]) -> None:
        try:
            await self._method(list(items))
        except Exception as error:
            self._failed(error)
        finally:
            with self._context.tree.descriptors.use():
                self._forget(items)

    def _forget(self, items: list[tuple[int, int]]) -> None:
        for nodeid, count in items:
            self._context.tree.forget(nodeid, count)

    def _failed(self, error: Exception) -> None:
        """Tell of a failure, but not again: there are as many as inodes."""
        if not self._has_failed:
            self._has_failed = True
            _log.error("forget failed; further failures are not logged", exc_info=error)
