"""What was asked of a session of this process, by whom it was served, with what result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import msgspec

from inopt.ops import Op, op_name
from inopt.session.session import Session
from inopt.wire.bodies import Header

_OPS: Final[dict[int, Op]] = {int(op): op for op in Op}


class Captured(msgspec.Struct):
    """One request.

    ``route``: daemon, handler or denied. ``errno``: 0 for success, None while it is served.
    ``body`` is None for what could not be decoded. ``opcode`` is an `Op` if it is a known one.
    """

    opcode: int
    header: Header
    body: Any
    route: str
    errno: int | None

    @property
    def name(self) -> str:
        """The opcode's name."""
        return op_name(self.opcode)


class Recorder:
    """Keeps requests in the order in which they were routed."""

    def __init__(self) -> None:
        self.requests: list[Captured] = []
        self._open: dict[int, Captured] = {}
        self._lock = Lock()

    def began(self, header: Header, body: Any, route: str) -> None:
        """A request is about to be served."""
        opcode = _OPS.get(header.opcode, header.opcode)
        if isinstance(getattr(body, "data", None), memoryview):
            # The reader's buffer, which the next request overwrites.
            body = msgspec.structs.replace(body, data=memoryview(bytes(body.data)))
        request = Captured(opcode, header, body, route, None)
        with self._lock:
            self.requests.append(request)
            self._open[header.unique] = request

    def ended(self, header: Header, body: Any, route: str, number: int) -> None:
        """It is answered."""
        if header.unique not in self._open:
            self.began(header, body, route)
        with self._lock:
            self._open.pop(header.unique).errno = number


@contextmanager
def capture_requests(session: Session) -> Iterator[list[Captured]]:
    """In the body, every request that *session* gets is appended to the list.

    The session is one of this process: that of `inopt.mount`, or of a fake kernel. One capture
    at a time; forgetting (FORGET) and the session's own requests are in the list, too.
    """
    recorder = Recorder()
    session.observe(recorder)
    try:
        yield recorder.requests
    finally:
        session.observe(None)
