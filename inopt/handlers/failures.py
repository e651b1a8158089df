"""How a request is refused: an `OSError` is the answer."""

from __future__ import annotations

import os
from typing import NoReturn


class DeniedError(OSError):
    """The policy refuses a request with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


def fail(number: int) -> NoReturn:
    """Answer the request with an errno."""
    raise OSError(number, os.strerror(number))
