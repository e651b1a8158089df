"""The slow store: a directory, with a delay before each piece. Here would be your S3 or tape."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator

import trio

PIECE = 1 << 20


class SlowStore:
    """Objects by id. *delay* is in seconds for each mebibyte."""

    def __init__(self, directory: str, delay: float) -> None:
        self.directory = directory
        self.delay = delay

    async def pieces(self, name: str) -> AsyncGenerator[bytes, None]:
        """The content of an object, piece by piece. Raises `OSError`."""
        if "/" in name or name in ("", ".", ".."):  # whoever made the placeholder chose the name
            raise OSError(errno.EINVAL, "not an object's id", name)
        async with await trio.open_file(os.path.join(self.directory, name), "rb") as file:
            while True:
                await trio.sleep(self.delay)
                piece = await file.read(PIECE)
                if not piece:
                    return
                yield piece
