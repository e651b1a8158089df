"""What stands for /dev/fuse where only notifications are written."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest

from inopt.kernel.device import Device
from inopt.wire.uapi import EXPIRE_ONLY, NotifyCode
from support.waiting import within

Message: TypeAlias = tuple[Any, ...]

HEADER: Final = struct.Struct("<IiQ")


class Kernel:
    """What stands for /dev/fuse: it takes notes of what is written, and may refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device = Device(10_000)
        self.written: list[Message] = []
        self.refuse: Callable[[Message], bool] = lambda _: False
        self.hold: Callable[[Message], None] = lambda _: None
        write = os.write

        def written(descriptor: int, data: bytes) -> int:
            if descriptor != self.device.descriptor:
                return write(descriptor, data)
            message = self._decode(data)
            self.hold(message)
            if self.refuse(message):
                raise OSError(errno.ENOENT, "unknown")
            self.written.append(message)
            return len(data)

        monkeypatch.setattr(os, "write", written)

    def _decode(self, data: bytes) -> Message:
        _, code, unique = HEADER.unpack_from(data)
        assert unique == 0
        body = data[HEADER.size :]
        if code == NotifyCode.INVAL_INODE:
            nodeid, offset, length = struct.unpack("<Qqq", body)
            assert length == 0
            return ("attributes" if offset < 0 else "data", nodeid)
        if code == NotifyCode.INVAL_ENTRY:
            nodeid, length, flags = struct.unpack_from("<QII", body)
            assert len(body) == 16 + length + 1
            return ("expire" if flags == EXPIRE_ONLY else "name", nodeid, body[16:-1])
        assert code == NotifyCode.INC_EPOCH
        return ("epoch",)

    def wait(self, count: int) -> list[Message]:
        """What has been written when it is *count*, and nothing more comes."""
        within(lambda: len(self.written) >= count)
        time.sleep(0.06)
        written, self.written = self.written, []
        return sorted(written, key=str)
