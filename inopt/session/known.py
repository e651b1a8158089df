"""What the running kernel can do: asked once for each boot, and remembered in a file.

A probe takes two sessions and 64 ioctls; a mount should not. The file counts only for the boot,
the version of inopt and the privileges that it was written with, only if nobody else can have
written it, and only while the kernel offers what it offered then.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from inopt import syscalls
from inopt._version import __version__
from inopt.exceptions import InoptError
from inopt.kernel.abilities import Abilities
from inopt.kernel.probe import probe
from inopt.session import places

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_LARGEST: Final = 4096


class Circumstances(msgspec.Struct, frozen=True):
    """What the answers hold for. ``privileged``: whether CAP_SYS_ADMIN was there."""

    boot_id: str
    version: str
    uid: int
    privileged: bool
    user_namespace: int

    @classmethod
    def now(cls) -> Circumstances:
        """Those of this process."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
        return cls(
            boot_id,
            __version__,
            os.geteuid(),
            syscalls.has_capability(syscalls.CAP_SYS_ADMIN),
            os.stat("/proc/self/ns/user").st_ino,
        )


class _Kept(msgspec.Struct, frozen=True):
    circumstances: Circumstances
    abilities: Abilities


def known_abilities(offered: int) -> Abilities | None:
    """What a kernel that offers these INIT flags can do; None if it cannot be asked."""
    here, path = Circumstances.now(), None
    with suppress(OSError):  # without a runtime directory, it is asked each time
        path = os.path.join(places.runtime_directory(), "kernel.json")
    kept = None if path is None else read(path, here)
    if kept is not None and kept.flags == offered:
        return kept
    try:
        found = probe()
    except (InoptError, OSError) as error:
        _log.info("the kernel cannot be asked what it bypasses", error=str(error))
        return None
    if path is not None and found.can_bypass:
        with suppress(OSError):
            write(path, here, found)
    return found


def read(path: str, here: Circumstances) -> Abilities | None:
    """What the file says, if it can be trusted and is about *here*."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        for status in (os.fstat(descriptor), os.stat(os.path.dirname(path))):
            others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if status.st_uid != os.geteuid() or others:
                return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        try:
            kept = msgspec.json.decode(file.read(_LARGEST), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return None
    return kept.abilities if kept.circumstances == here else None


def write(path: str, here: Circumstances, abilities: Abilities) -> None:
    """Keep what was found; whoever reads sees all of it or nothing. Raises `OSError`."""
    unfinished = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(_Kept(here, abilities)))
    os.rename(unfinished, path)
