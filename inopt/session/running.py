"""A mount as a program of its own: control socket and signals."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import structlog
import trio

from inopt.exceptions import InoptError
from inopt.session import control, places
from inopt.session.mounting import mounted
from inopt.session.session import Session
from inopt.session.settings import Settings

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


async def run(settings: Settings, ready: Callable[[], None]) -> None:
    """Mount, call *ready* when requests are served, and serve until unmounted or told to stop.

    SIGHUP reads the policy again; at a terminal, which hangs up, it is like SIGTERM and SIGINT:
    they unmount, and a second one aborts.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with mounted(settings) as session, trio.open_nursery() as nursery:
            await nursery.start(
                control.serve,
                places.control_path(session.device_minor),
                _commands(session),
            )
            nursery.start_soon(_obey, signals, session, nursery)
            try:
                ready()
            except OSError as error:
                raise InoptError(f"cannot report readiness: {error.strerror}") from error
            await session.wait_ended()
            # While there is a control socket, which is what 'inopt umount' waits for.
            await trio.to_thread.run_sync(session.settle)
            nursery.cancel_scope.cancel()


def _commands(session: Session) -> control.Commands:
    async def stats_(_arguments: dict[str, Any]) -> dict[str, Any]:
        return session.stats()

    async def reload_(arguments: dict[str, Any]) -> dict[str, Any]:
        return await session.reload(arguments.get("policy"))

    async def explain_(arguments: dict[str, Any]) -> dict[str, Any]:
        return await trio.to_thread.run_sync(session.explain, arguments)

    return {"stats": stats_, "reload": reload_, "explain": explain_}


async def _reload_and_log(session: Session) -> None:
    try:
        await session.reload()
    except InoptError as error:
        for line in str(error).splitlines():
            _log.error("policy not replaced", reason=line)
    except OSError as error:
        _log.error("policy not replaced", reason=error.strerror)


async def _obey(signals: AsyncIterator[int], session: Session, nursery: trio.Nursery) -> None:
    asked = False
    at_terminal = os.isatty(0)
    async for number in signals:
        if number == signal.SIGHUP and not at_terminal:
            nursery.start_soon(_reload_and_log, session)
            continue
        _log.info("asked to stop", signal=signal.Signals(number).name)
        if asked:
            session.abort()
        else:
            asked = True
            nursery.start_soon(session.unmount)
