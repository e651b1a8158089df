"""Programs that host tests run: as other users, on filesystems of their own, in clients."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from support.mounting import Mount, detach
from support.waiting import running, within

STRANGER: Final = 1001
RUNTIME: Final = Path("/run/inopt")
# One that other users reach, too.
_PYTHON: Final = next(
    path for path in ("/usr/bin/python3", os.path.realpath(sys.executable)) if os.path.exists(path)
)


def sh(
    *command: str, check: bool = True, timeout: float = 240, cwd: Path | str = "/"
) -> subprocess.CompletedProcess[str]:
    """Run a program, its output captured; *check* fails with what it said."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd
    )
    if check:
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done


def user_options(user: int) -> dict[str, object]:
    """The options of `subprocess.run` for another user, without groups besides its own."""
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def client(
    code: str, *arguments: str, user: int = 0, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run Python *code* in a process of its own, outside of the venv."""
    options: dict[str, object] = user_options(user)
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        [_PYTHON, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd="/",
        **options,
    )
    return done


def start_client(code: str, *arguments: str, cwd: Path | str = "/") -> subprocess.Popen[str]:
    """Start Python *code* with pipes; it says ``ready`` by a line, which is waited for."""
    process = subprocess.Popen(
        [_PYTHON, "-I", "-S", "-u", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def as_stranger(*capabilities: str) -> list[str]:
    """The words before a command that run it as another user, with some capabilities.

    ``dac_read_search`` is among them, so that the command is reached wherever the tests are.
    """
    names = ",".join(f"+{name}" for name in ("dac_read_search", *capabilities))
    return [
        "setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups",
        f"--inh-caps={names}", f"--ambient-caps={names}",
    ]  # fmt: skip


@contextmanager
def filesystem_in(
    place: Path, *mkfs: str, size: int = 64 << 20, options: str = "loop", name: str = "back"
) -> Iterator[Path]:
    """An ext4 of its own in a file, mounted at *place*/*name*."""
    image = place / f"{name}.image"
    path = place / name
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    sh("mkfs.ext4", "-q", *mkfs, str(image))
    sh("mount", "-o", options, str(image), str(path))
    try:
        yield path
    finally:
        detach(path)


def overlay_in(place: Path, options: str = "") -> Path:
    """An overlayfs below *place*, with ``lower`` and ``upper`` beside it."""
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir(exist_ok=True)
    sh(
        "mount", "-t", "overlay", "overlay", str(place / "merged"),
        "-o", f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work{options}",
    )  # fmt: skip
    return place / "merged"


def error_of(action: Callable[[], object]) -> int:
    """The errno that *action* fails with; 0 if it does not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def runtime_files() -> set[str]:
    """What is in the runtime directory now."""
    return set(os.listdir(RUNTIME)) if RUNTIME.is_dir() else set()


def left_by_dead(before: set[str]) -> list[str]:
    """New files in the runtime directory that stay although no daemon runs that owns them.

    Daemons of others come and go: what one of theirs leaves when it is killed is still mounted.
    """

    def left() -> list[str]:
        return [name for name in sorted(runtime_files() - before) if is_orphan(name)]

    within(lambda: not left())
    return left()


def is_orphan(name: str) -> bool:
    """Whether a file in the runtime directory is there, and of a daemon that runs no more."""
    stem, _, kind = name.partition(".")
    if kind == "log":
        with suppress(FileNotFoundError):
            text = (RUNTIME / name).read_text(encoding="utf-8")
            return not running(int(stem)) and "mounted" not in text
        return False
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        if any(line.split(" ")[2] == f"0:{stem}" for line in lines):
            return False
    with socket.socket(socket.AF_UNIX) as connection:
        return error_of(lambda: connection.connect(str(RUNTIME / name))) == errno.ECONNREFUSED


def python_program() -> str:
    """A Python that every user can run."""
    return _PYTHON


def socket_of(mount: Mount) -> Path:
    """The control socket of a mount."""
    return RUNTIME / f"{os.minor(os.stat(mount.path).st_dev)}.sock"


def events(mount: Mount) -> list[str]:
    """What the daemon of a mount has logged."""
    lines = mount.log.read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["event"]) for line in lines]
