"""The one exception of this room: bytes that are no request, or none that inopt knows."""

from __future__ import annotations


class WireError(Exception):
    """A request could not be decoded.

    Parameters
    ----------
    errno:
        What to answer: ``EINVAL`` for truncated, oversized or garbled bytes, ``ENOSYS`` for an
        unknown opcode.
    message:
        Names the opcode and the sizes.

    """

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno
