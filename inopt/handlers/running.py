"""A handler class as functions by opcode: plain methods run here and now, async ones as tasks."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable, Coroutine
from functools import partial
from threading import get_ident
from typing import Any, Final

import pyfuse3

from inopt.handlers.adapt import CALLS, FLOCK, METHODS, Call, errno_of
from inopt.handlers.answers import Answers, MisuseError
from inopt.handlers.base import Handlers
from inopt.handlers.calling import Request, current
from inopt.handlers.serve import Serve
from inopt.handlers.tasks import Guard, Job, Tasks
from inopt.handlers.types import Waker
from inopt.ops import OPCODE_LIMIT, Op, op_name
from inopt.policy.words import Part
from inopt.wire.bodies import Header

_BASES: Final = (Handlers, pyfuse3.Operations, object)
_SLOTS: Final = {
    name: frozenset[int](op for op, call in CALLS.items() if call.method == name)
    for name in METHODS - {FLOCK.method}
} | {FLOCK.method: frozenset[int]({Part.FLOCK})}
_OPCODES: Final = _SLOTS | {
    FLOCK.method: frozenset[int]({Op.SETLK, Op.SETLKW}),
    "forget": frozenset[int]({Op.FORGET, Op.BATCH_FORGET}),
}


def overridden(handler_class: type[pyfuse3.Operations]) -> frozenset[str]:
    """The names of the methods that a class, or one that it derives from, has of its own."""
    return frozenset(name for name in METHODS if overrides(handler_class, name))


def overrides(handler_class: type[pyfuse3.Operations], name: str) -> bool:
    """Whether a class, or one that it derives from, has a method of its own."""
    definer = next((each for each in handler_class.__mro__ if name in vars(each)), object)
    return definer not in _BASES


def served_by(handler_class: type[pyfuse3.Operations]) -> frozenset[int]:
    """The slots that the class's own methods serve: opcodes, and flock(2)."""
    return frozenset(slot for name in overridden(handler_class) for slot in _SLOTS[name])


def methods_of(handler_class: type[pyfuse3.Operations]) -> dict[str, frozenset[int]]:
    """The methods that a class overrides for its policy, with the slots that they serve.

    None of a filesystem of its own, and of a class that is for any policy.
    """
    if not issubclass(handler_class, Handlers) or handler_class.for_any_policy:
        return {}
    return {name: _SLOTS[name] for name in sorted(overridden(handler_class))}


def handler_table(
    handlers: pyfuse3.Operations, answers: Answers, tasks: Tasks
) -> list[Serve | None]:
    """The functions by opcode; None for what the class leaves to the daemon."""
    table: list[Serve | None] = [None] * OPCODE_LIMIT
    names = overridden(type(handlers))
    for op, call in CALLS.items():
        if call.method in names:
            method = getattr(handlers, call.method)
            if op == Op.POLL:
                method = _with_waker(method, answers.context.tell)
            table[op] = function_of(method, call, answers, tasks)
    return table


def is_async(serve: Serve) -> bool:
    """Whether an async method serves, in a task, and may go on after the call has returned."""
    return isinstance(serve, partial) and serve.func is _later


def with_guard(serve: Serve, guard: Guard) -> Serve:
    """*serve*, which `is_async`, when it is its turn and may still be done."""
    assert isinstance(serve, partial)  # noqa: S101 - so it is
    return partial(serve, guard=guard)


def split_methods(handlers: pyfuse3.Operations) -> tuple[frozenset[int], frozenset[int]]:
    """The opcodes that handlers serve by async methods, and by plain ones."""
    found: tuple[set[int], set[int]] = (set(), set())
    for name, opcodes in _OPCODES.items():
        if overrides(type(handlers), name):
            is_plain = not inspect.iscoroutinefunction(getattr(handlers, name))
            found[is_plain].update(opcodes)
    return frozenset(found[0]), frozenset(found[1])


def function_of(method: Callable[..., Any], call: Call, answers: Answers, tasks: Tasks) -> Serve:
    """The function that serves requests by *method*, as *call* says."""
    run = _later if inspect.iscoroutinefunction(method) else _now
    return partial(run, method, call, answers, tasks)


def _with_waker(method: Callable[..., Any], tell: Callable[[bytes], None]) -> Callable[..., Any]:
    """`poll` with what wakes those who wait, in place of the kernel's number for them."""

    def poll(inode: int, fh: int, number: int | None, ctx: pyfuse3.RequestContext) -> Any:
        return method(inode, fh, None if number is None else Waker(number, tell), ctx)

    async def poll_later(*arguments: Any) -> Any:
        return await poll(*arguments)

    return poll_later if inspect.iscoroutinefunction(method) else poll


def _now(
    method: Any, call: Call, answers: Answers, tasks: Tasks, header: Header, body: Any
) -> bytes | None:
    """Serve a request by a plain method, in the thread that has read it."""
    request = Request(header, body, get_ident(), [])
    token = current.set(request)
    if tasks.timeout is not None:
        tasks.begin(header)
    try:
        arguments = _arguments(call, answers, header, body)
        result = method(*arguments)
        if inspect.iscoroutine(result):
            result = _finish(result, header)
        return call.answer(answers, header, body, _result(call, arguments, result))
    except Exception as error:
        request.take_back(answers.context)
        if isinstance(error, pyfuse3.FUSEError):
            number = errno_of(error) or errno.EIO
            raise OSError(number, os.strerror(number)) from error
        raise
    finally:
        current.reset(token)
        if tasks.timeout is not None:
            tasks.end(header)


def _later(
    method: Any,
    call: Call,
    answers: Answers,
    tasks: Tasks,
    header: Header,
    body: Any,
    *,
    guard: Guard | None = None,
) -> bytes | None:
    """Serve a request by an async method: a task answers it."""
    arguments = _arguments(call, answers, header, body)

    def answer(result: Any) -> bytes:
        return call.answer(answers, header, body, _result(call, arguments, result))

    request = Request(header, body, 0, [])
    tasks.start(
        Job(request, method, arguments, answer, partial(request.take_back, answers.context), guard)
    )
    return None


def _arguments(call: Call, answers: Answers, header: Header, body: Any) -> tuple[Any, ...]:
    arguments = call.arguments(header, body)
    if call.method == "readdir":
        answers.prepare(header, arguments[-1])
    return arguments


def _result(call: Call, arguments: tuple[Any, ...], result: Any) -> Any:
    return arguments[-1] if call.method == "readdir" and result is None else result


def _finish(coroutine: Coroutine[Any, Any, Any], header: Header) -> Any:
    """What a coroutine returns that a plain method has returned, as of a call of super()."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    except RuntimeError as error:
        if "async context" not in str(error):  # trio's, of whatever waits outside of a task
            raise
    coroutine.close()
    raise MisuseError(
        f"the handler of {op_name(header.opcode)} is a plain def, but what it returned wants to "
        "wait: make it async def"
    )
