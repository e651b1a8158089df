"""What a client process can be told to do with locks: wait for a signal, and let others hold."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from support import rawcalls

_HOLDER: Final = """
import fcntl, os, sys, time
descriptor, command, kind, start, length = map(int, sys.argv[1:6])
if command < 0:
    fcntl.flock(descriptor, kind)
else:
    sys.path.insert(0, sys.argv[6])
    from support import rawcalls
    fcntl.fcntl(descriptor, command, rawcalls.lock_record(kind, start, length))
print("ready", flush=True)
time.sleep(60)
"""
_FLOCK: Final = -1


class _AlarmError(Exception):
    """The signal has come."""


def _until_signal(action: Callable[[], Any], seconds: float) -> str:
    def come(*_: object) -> None:
        raise _AlarmError

    earlier = signal.signal(signal.SIGALRM, come)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        action()
    except _AlarmError:
        return "interrupted"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    return "done"


class LockOperations:
    """Beside `flock`, `lock` and `locked`."""

    files: dict[str, int]
    children: dict[str, subprocess.Popen[bytes]]

    def flock_until_signal(self, slot: str, kind: int, seconds: float) -> str:
        """Wait for a whole file, but not for longer than a signal takes to come."""
        return _until_signal(lambda: fcntl.flock(self.files[slot], kind), seconds)

    def lock_until_signal(
        self, slot: str, command: int, kind: int, start: int, length: int, seconds: float
    ) -> str:
        """Wait for a range of bytes, but not for longer than a signal takes to come."""
        record = rawcalls.lock_record(kind, start, length)
        return _until_signal(lambda: fcntl.fcntl(self.files[slot], command, record), seconds)

    def duplicate(self, slot: str, other: str) -> None:
        """dup(2)."""
        self.files[other] = os.dup(self.files[slot])

    def let_child_flock(self, key: str, slot: str, kind: int) -> None:
        """A child with the same open file locks it."""
        self._hold(key, slot, _FLOCK, kind, 0, 0)

    def let_child_lock(
        self, key: str, slot: str, command: int, kind: int, start: int, length: int
    ) -> None:
        """The same for a range of bytes."""
        self._hold(key, slot, command, kind, start, length)

    def _hold(self, key: str, slot: str, command: int, kind: int, start: int, length: int) -> None:
        descriptor = self.files[slot]
        numbers = map(str, (descriptor, command, kind, start, length))
        child = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, *numbers, os.environ["PYTHONPATH"]],
            stdout=subprocess.PIPE,
            pass_fds=(descriptor,),
        )
        self.children[key] = child
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"

    def kill_child(self, key: str) -> int:
        """SIGKILL, and wait for its end."""
        child = self.children.pop(key)
        child.kill()
        status = child.wait()
        assert child.stdout is not None
        child.stdout.close()
        return status
