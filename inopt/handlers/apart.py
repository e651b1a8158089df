"""Requests that a reader has begun and a task ends: they wait, or have several parts."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from inopt.backing.tree import Tree
from inopt.handlers.calling import Request
from inopt.handlers.serve import Serve
from inopt.handlers.tasks import Job, Tasks
from inopt.wire.bodies import Header


def answer_later(
    tasks: Tasks, header: Header, body: Any, serve: Callable[[], Awaitable[Any]]
) -> None:
    """Let a task answer a request, with the payload that *serve* returns."""
    tasks.start(Job(Request(header, body, 0, []), serve, (), lambda payload: payload))


async def call_function(tree: Tree, function: Serve, header: Header, body: Any) -> bytes | None:
    """Call what is a reader's, in another thread, from the task that answers the request.

    It is not cancelled: who dies, and so closes its files, has got a signal, too.
    """
    # Without its number: by that the task is known, and it must stay so.
    header = msgspec.structs.replace(header, unique=0)

    def call() -> bytes | None:
        with tree.descriptors.use():
            return function(header, body)

    with trio.CancelScope(shield=True):
        return await trio.to_thread.run_sync(call)
    raise AssertionError("a scope that nobody cancels")


async def call_method(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of handlers from a task; a plain one in a thread, as it may take its time."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments)
    result = await trio.to_thread.run_sync(method, *arguments)
    return await result if inspect.iscoroutine(result) else result
