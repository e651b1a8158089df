"""Which files are packed, and packing and unpacking them in place.

In place, because an inode's number is what the kernel knows it by, and what its hard links share.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from seekable import MAGIC, Frames, compress, decompress, frames_of, replace
from zstandard import ZstdError

from inopt import Backing

ROOT = 1
SMALLEST = 4096  # smaller files take a block anyway
ANONYMOUS = os.O_TMPFILE | os.O_RDWR


@contextmanager
def damage_is_eio() -> Iterator[None]:
    """What cannot be decompressed is an I/O error."""
    try:
        yield
    except ZstdError as error:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


class State:
    """What is known of an inode. Whoever looks or changes holds the lock.

    ``writers``: how many opens may write; while there are some, the file is plain underneath.
    ``frames`` are those of the file when it was as ``look`` says.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.writers = 0
        self.look: tuple[int, int] | None = None
        self.frames: Frames | None = None


class Packing:
    """The files of one mount, as they are underneath."""

    def __init__(self, backing: Backing) -> None:
        self.backing = backing

    @contextmanager
    def held(self, inode: int) -> Iterator[State]:
        """Nobody else looks or changes in the body."""
        state: State = self.backing.inode_state(inode).setdefault("zstd", State())
        with state.lock:
            yield state

    @contextmanager
    def _file(self, inode: int, flags: int) -> Iterator[int]:
        descriptor = self.backing.open(inode, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def frames(self, inode: int, state: State) -> Frames | None:
        """The frames of an inode whose state is held; None if it is plain."""
        if state.writers:
            return None
        status = self.backing.stat(inode)
        look = (status.st_size, status.st_mtime_ns)
        if look != state.look:
            with self._file(inode, os.O_RDONLY | os.O_NOATIME) as file:
                state.look, state.frames = look, frames_of(file)
        return state.frames

    def unpack(self, inode: int, state: State) -> None:
        """Make a file plain underneath, so that it can be changed."""
        frames = self.frames(inode, state)
        if frames is not None:
            with self._file(inode, os.O_RDWR) as file, self._file(ROOT, ANONYMOUS) as plain:
                with damage_is_eio():
                    decompress(file, plain, frames)
                replace(file, plain)
        state.look = state.frames = None

    def pack(self, inode: int, state: State) -> None:
        """Compress a file that nobody writes any more, if that is worth it.

        What would be taken for a compressed file in itself is compressed in any case.
        """
        state.look = None
        with self._file(inode, os.O_RDWR) as file:
            looks_packed = os.pread(file, len(MAGIC), 0) == MAGIC
            size = os.fstat(file).st_size
            if size < SMALLEST and not looks_packed:
                return
            with self._file(ROOT, ANONYMOUS) as packed:
                if compress(file, packed) < size * 7 // 8 or looks_packed:
                    replace(file, packed)

    def frame(self, fh: int, number: int, frames: Frames) -> bytes:
        """The content of a frame; each open keeps the last one that it has used."""
        kept = self.backing.open_state(fh)
        if kept.get("frame") != (frames, number):
            file = self.backing.duplicate(fh)
            try:
                with damage_is_eio():
                    kept["content"] = frames.read(file, number)
            finally:
                os.close(file)
            kept["frame"] = (frames, number)
        content: bytes = kept["content"]
        return content
