"""The daemon's end of a mount's control socket: a line of JSON in, a line of JSON out.

A Unix socket below the runtime directory, mode 0600; besides, the kernel tells who is at the
other end (``SO_PEERCRED``, unix(7)), and only root and the daemon's own user are answered.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import structlog
import trio

from inopt.exceptions import InoptError
from inopt.session.asking import PATIENCE, Command

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
_CREDENTIALS: Final = struct.Struct("3i")
_LONGEST_LINE: Final = 64 << 10
_PAUSE: Final = 0.5  # seconds, before accepting again after a failure

Commands: TypeAlias = Mapping[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]
"""By name: each takes the arguments and returns the answer. An `InoptError` is an answer, too."""


async def serve(
    path: str,
    commands: Commands,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer *commands* by name on a socket at *path*, until cancelled."""
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        if os.path.lexists(path):
            os.unlink(path)  # of a daemon that was killed; its device number is free again
        earlier = os.umask(0o177)
        try:
            await listening.bind(path)
        finally:
            os.umask(earlier)
        listening.listen()
        try:
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        connection, _ = await listening.accept()
                    except OSError as error:
                        # Out of descriptors, or the client was gone again: not our end.
                        _log.warning("control request lost", error=error.strerror)
                        await trio.sleep(_PAUSE)
                        continue
                    nursery.start_soon(_answer, connection, commands)
        finally:
            if os.path.lexists(path):
                os.unlink(path)


async def _answer(connection: trio.socket.SocketType, commands: Commands) -> None:
    with connection:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user, _ = _CREDENTIALS.unpack(packed)
        if user not in (0, os.geteuid()):
            _log.warning("control request refused", pid=pid, uid=user)
            return
        stream = trio.SocketStream(connection)
        try:
            line = b""
            with trio.move_on_after(PATIENCE):
                line = await _read_line(stream)
            answer = msgspec.json.encode(await _run(line, commands))
            with trio.move_on_after(PATIENCE):
                await stream.send_all(answer + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client has gone; nobody misses the answer
        except Exception:
            # A report that fails must not take the mount away.
            _log.exception("control request failed")


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
        more = await stream.receive_some(4096)
        if not more:
            break
        line += more
    return line


async def _run(line: bytes, commands: Commands) -> dict[str, Any]:
    try:
        command = msgspec.json.decode(line, type=Command)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {"error": f"not a command: {error}"}
    function = commands.get(command.command)
    if function is None:
        return {"error": f"unknown command {command.command!r}: known are {', '.join(commands)}"}
    try:
        return await function(command.arguments)
    except InoptError as error:
        return {"error": str(error), "exit_code": error.exit_code}
