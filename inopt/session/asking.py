"""The client's end of a mount's control socket; see `inopt.session.control`.

Apart from it, because commands that only ask start faster without what a daemon needs.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import msgspec

from inopt.exceptions import InoptError, UsageError

PATIENCE: Final = 20.0  # seconds; a daemon that is asked for the first time loads what it needs
_CONNECTING: Final = 5.0  # seconds


class Command(msgspec.Struct, frozen=True):
    """What a client asks: the name of a command, and what it is to know."""

    command: str
    arguments: dict[str, Any] = {}


def is_alive(path: str) -> bool | None:
    """Whether a daemon listens on the socket at *path*; None if there is no such socket here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECTING)
        try:
            connection.connect(path)
        except FileNotFoundError:
            return None
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # too busy to answer is alive, too
    return True


def ask(path: str, command: str, patience: float = PATIENCE, /, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon behind the socket at *path*, and wait *patience* seconds for the answer.

    Raises `UsageError`, `InoptError`: the daemon's own among them.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        try:
            connection.connect(path)
            connection.sendall(msgspec.json.encode(Command(command, arguments)) + b"\n")
            answer = b""
            while more := connection.recv(1 << 16):
                answer += more
        except PermissionError as error:
            raise UsageError(f"{path}: not allowed: run as the user of the mount") from error
        except OSError as error:
            raise InoptError(f"{path}: the daemon does not answer ({error})") from error
    if not answer:
        raise UsageError(f"{path}: the daemon refused: run as root or as the user of the mount")
    decoded: dict[str, Any] = msgspec.json.decode(answer, type=dict[str, Any])
    if "error" in decoded:
        if decoded.get("exit_code") == UsageError.exit_code:
            raise UsageError(decoded["error"])
        raise InoptError(f"{path}: {decoded['error']}")
    return decoded
