"""Everyday operations, the same on the bare tree and on a mount of it. They run inside the lab."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from support.rawcalls import get_flags


def outcome(operation: Callable[[], object]) -> object:
    try:
        return operation()
    except OSError as error:
        return error.errno


def flags_of(path: Path) -> int:
    """What lsattr shows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return get_flags(descriptor)
    finally:
        os.close(descriptor)


def everyday(root: Path) -> list[object]:
    """Do it in *root*; the results must not depend on where that is."""
    file = root / "directory" / "file"
    seen: list[object] = [outcome((root / "missing").read_text)]
    file.parent.mkdir(mode=0o750)
    file.write_bytes(b"0123456789" * 1000)
    seen += [outcome(partial(flags_of, path)) for path in (file.parent, file)]
    with file.open("r+b") as opened:
        with mmap.mmap(opened.fileno(), 0) as mapped:
            mapped[10:14] = b"mmap"
            mapped.flush()
        os.ftruncate(opened.fileno(), 5000)
        seen.append(os.pread(opened.fileno(), 20, 5))
        file.rename(root / "moved")
        seen.append(os.fstat(opened.fileno()).st_nlink)
    os.link(root / "moved", root / "linked")
    (root / "symbolic").symlink_to("moved")
    with (root / "linked").open("ab") as appended:
        appended.write(b"end")
    os.chmod(root / "moved", 0o4711)
    os.chown(root / "moved", 1000, 1000)
    os.utime(root / "moved", ns=(1, 2_000_000_003))
    os.setxattr(root / "moved", "user.color", b"blue")
    os.mkfifo(root / "fifo", 0o600)
    seen.append(outcome(lambda: os.mkdir(root / "directory")))
    seen.append(outcome(lambda: os.getxattr(root / "moved", "user.none")))
    seen.append(os.getxattr(root / "symbolic", "user.color"))
    doomed = os.open(root / "doomed", os.O_RDWR | os.O_CREAT, 0o600)
    os.unlink(root / "doomed")
    os.write(doomed, b"still here")
    seen.append((os.pread(doomed, 20, 0), os.fstat(doomed).st_nlink))
    os.close(doomed)
    (root / "directory").rmdir()
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        size = 0 if path.is_dir() else status.st_size
        links = status.st_nlink
        seen.append((path.name, oct(status.st_mode), status.st_uid, links, size))
    status = (root / "moved").stat()
    seen.append((status.st_mtime_ns, status.st_ino == (root / "linked").stat().st_ino))
    seen.append((root / "moved").read_bytes())
    return seen
