"""A daemon that dies at a chosen step: SIGKILL before its n-th call that changes something.

The product has no hooks for this: the command runs in a fork of the tests, in which the functions
of `os`, and those that `inopt.syscalls` calls, count what they do once they are told to.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.forking import inopt, run

_COUNTERS: Final = struct.Struct("=?qq")  # armed, steps done, step to die before (0: none)
_NAMES_FROM: Final = 64
_SIZE: Final = 1 << 16
_CHANGES: Final = (
    "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "mknod", "mkfifo",
    "chmod", "fchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr", "truncate",
    "ftruncate", "write", "writev", "pwrite", "pwritev", "fsync", "fdatasync", "sendfile",
    "copy_file_range", "posix_fallocate",
)  # fmt: skip
_CALLS: Final = (
    "_renameat2", "_linkat", "_utimensat", "_fallocate", "_copy_file_range",
)  # fmt: skip
_OPEN_CHANGES: Final = os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)


class Fuse:
    """What tells the daemon when to die; both processes have the file at *path* mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("a+b") as file:
            file.truncate(_SIZE)
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def arm(self, step: int = 0) -> None:
        """Count from now on, and die before *step* (1 is the first); 0: only count."""
        _COUNTERS.pack_into(self._memory, 0, True, 0, step)

    def disarm(self) -> None:
        """Count no more."""
        _COUNTERS.pack_into(self._memory, 0, False, self.steps, 0)

    @property
    def steps(self) -> int:
        """How many steps there have been."""
        return int(_COUNTERS.unpack_from(self._memory)[1])

    @property
    def names(self) -> list[str]:
        """What the steps were."""
        return bytes(self._memory[_NAMES_FROM:]).rstrip(b"\0").decode().split()

    def burn(self, name: str) -> None:
        """One step, in the daemon."""
        armed, steps, last = _COUNTERS.unpack_from(self._memory)
        if not armed:
            return
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        _COUNTERS.pack_into(self._memory, 0, armed, steps, last)
        if not last:
            names = bytes(self._memory[_NAMES_FROM:]).rstrip(b"\0") + name.encode() + b" "
            self._memory[_NAMES_FROM : _NAMES_FROM + len(names)] = names

    def lay(self) -> None:
        """Have every call that changes something burn a step, in this process."""
        from inopt import syscalls

        def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                self.burn(name)
                return function(*arguments, **named)

            return call

        for name in _CHANGES:
            setattr(os, name, counted(name, getattr(os, name)))
        for name in _CALLS:
            setattr(syscalls, name, counted(name.lstrip("_"), getattr(syscalls, name)))
        opened, controlled = os.open, fcntl.ioctl

        def open_(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if flags & _OPEN_CHANGES:
                self.burn("open")
            return opened(path, flags, *arguments, **named)

        def ioctl(descriptor: Any, request: int, *arguments: Any, **named: Any) -> Any:
            self.burn("ioctl")
            return controlled(descriptor, request, *arguments, **named)

        os.open, fcntl.ioctl = open_, ioctl


def run_with(fuse: Fuse, *arguments: str) -> None:
    """Run the command with *fuse* laid; fails with what it says."""
    done = run("support.crashing:main", str(fuse.path), *arguments, cwd="/", timeout=240)
    assert done.returncode == 0, f"inopt {' '.join(arguments)}: {done.stderr}"


def main() -> None:
    """The command, with the fuse whose file is named first."""
    fuse = Fuse(Path(sys.argv.pop(1)))
    fuse.lay()
    inopt()
