"""What a client process can be told to do by name: names, inodes and their attributes."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import time
from contextlib import suppress
from typing import Final

from support import rawcalls

Stat = dict[str, int]
_UNLIMITED: Final = resource.RLIM_INFINITY


def status_of(status: os.stat_result) -> Stat:
    answer = {
        "mode": status.st_mode,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "nlink": status.st_nlink,
        "rdev": status.st_rdev,
    }
    if not stat.S_ISDIR(status.st_mode):
        answer["size"] = status.st_size
    return answer


class Names:
    """Names, inodes and their attributes. Paths are relative to where the client is."""

    def enter(self, path: bytes) -> None:
        os.chdir(path)

    def umask(self, mask: int) -> int:
        return os.umask(mask)

    def lstat(self, path: bytes) -> Stat:
        return status_of(os.lstat(path))

    def stat(self, path: bytes) -> Stat:
        return status_of(os.stat(path))

    def same_inode(self, one: bytes, other: bytes) -> bool:
        return os.path.samestat(os.lstat(one), os.lstat(other))

    def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        os.mkdir(path, mode)

    def mkdirs(self, name: bytes, depth: int) -> int:
        """Make *name* within *name*, and so on, entering each; returns how deep it went."""
        for level in range(depth):
            os.mkdir(name)
            os.chdir(name)
            if level % 64 == 63 and os.listdir(b"..") != [name]:
                return -level
        return depth

    def rmdir(self, path: bytes) -> None:
        os.rmdir(path)

    def unlink(self, path: bytes) -> None:
        os.unlink(path)

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        rawcalls.renameat2(old, new, flags)

    def link(self, old: bytes, new: bytes, follow: bool = False) -> None:
        os.link(old, new, follow_symlinks=follow)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, path)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(path)

    def mknod(self, path: bytes, mode: int, device: int = 0) -> None:
        os.mknod(path, mode, device)

    def chmod(self, path: bytes, mode: int) -> int:
        os.chmod(path, mode)
        return os.stat(path).st_mode

    def chown(self, path: bytes, uid: int, gid: int, follow: bool = True) -> Stat:
        os.chown(path, uid, gid, follow_symlinks=follow)
        return status_of(os.stat(path, follow_symlinks=follow))

    def truncate(self, path: bytes, size: int) -> int:
        os.truncate(path, size)
        return os.stat(path).st_mode

    def set_mode(self, path: bytes, mode: int) -> None:
        """chmod(2) alone: the name may lead nowhere afterwards."""
        os.chmod(path, mode)

    def set_owner(self, path: bytes, uid: int, gid: int) -> None:
        """lchown(2) alone."""
        os.lchown(path, uid, gid)

    def set_size(self, path: bytes, size: int) -> None:
        """truncate(2) alone."""
        os.truncate(path, size)

    def set_times(
        self, path: bytes, access: tuple[int, int], modification: tuple[int, int], follow: int = 1
    ) -> None:
        flags = 0 if follow else rawcalls.AT_SYMLINK_NOFOLLOW
        rawcalls.utimensat(path, access, modification, flags)

    def times(self, path: bytes) -> tuple[int, int]:
        status = os.lstat(path)
        return status.st_atime_ns, status.st_mtime_ns

    def recent(self, path: bytes) -> tuple[bool, bool, bool]:
        """Which of access, modification and change time lie within the last seconds."""
        status = os.lstat(path)
        now = time.time_ns()
        stamps = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        return tuple(now - 20_000_000_000 < stamp <= now + 1_000_000_000 for stamp in stamps)  # type: ignore[return-value]

    def birth(self, path: bytes) -> tuple[int, bool]:
        """Whether there is a time of birth, and whether it is about now."""
        facts = rawcalls.statx(path)
        return facts["has_btime"], abs(time.time_ns() - facts["btime"]) < 60_000_000_000

    def statx(self, path: bytes, *fields: str) -> tuple[int, ...]:
        facts = rawcalls.statx(path)
        return tuple(facts[field] for field in fields)

    def access(self, path: bytes, mode: int) -> None:
        rawcalls.faccessat2(path, mode, 0)

    def access_effective(self, path: bytes, mode: int, follow: bool = True) -> None:
        flags = rawcalls.AT_EACCESS | (0 if follow else rawcalls.AT_SYMLINK_NOFOLLOW)
        rawcalls.faccessat2(path, mode, flags)

    def getxattr(self, path: bytes, name: str, follow: bool = True) -> bytes:
        return os.getxattr(path, name, follow_symlinks=follow)

    def getxattr_into(self, path: bytes, name: bytes, size: int) -> tuple[int, bytes]:
        return rawcalls.getxattr(path, name, size)

    def setxattr(
        self, path: bytes, name: str, value: bytes, flags: int = 0, follow: bool = True
    ) -> None:
        os.setxattr(path, name, value, flags, follow_symlinks=follow)

    def removexattr(self, path: bytes, name: str, follow: bool = True) -> None:
        os.removexattr(path, name, follow_symlinks=follow)

    def listxattr(self, path: bytes, follow: bool = True) -> list[str]:
        return sorted(os.listxattr(path, follow_symlinks=follow))

    def listxattr_length(self, path: bytes, size: int) -> int:
        return rawcalls.listxattr_length(path, size)

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(path))

    def filesystem(self, path: bytes) -> tuple[int, ...]:
        status = os.statvfs(path)
        return status.f_bsize, status.f_frsize, status.f_blocks, status.f_files, status.f_namemax

    def install(self, path: bytes, source: str, mode: int) -> None:
        """Copy a program of the host."""
        with open(source, "rb") as program, open(path, "wb") as copy:
            copy.write(program.read())
        os.chmod(path, mode)

    def write_file(self, path: bytes, data: bytes, mode: int = 0o644) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, data)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def read_file(self, path: bytes) -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.read()

    def contents(self, path: bytes) -> bytes:
        """Like `read_file`, but a fifo has nobody to wait for."""
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            return file.read() or b""

    def modified(self, path: bytes) -> int | str:
        """The time of modification, if it is not about now."""
        stamp = os.lstat(path).st_mtime_ns
        return "now" if abs(time.time_ns() - stamp) < 86_400_000_000_000 else stamp

    def append(self, path: bytes, data: bytes) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        try:
            return os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def empty(self, path: bytes) -> list[bytes]:
        """Remove whatever is in a directory, as far as it goes; what is left."""
        for folder, folders, files in os.walk(path, topdown=False):
            for name in files:
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
            for name in folders:
                here = os.path.join(folder, name)
                with suppress(OSError):
                    (os.unlink if os.path.islink(here) else os.rmdir)(here)
        return sorted(os.listdir(path))

    def fill_directory(self, path: bytes, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            os.close(os.open(path + b"/entry-%05d" % number, os.O_CREAT | os.O_WRONLY, 0o644))

    def file_size_limit(self, size: int | None) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (_UNLIMITED if size is None else size, hard))

    def execute(self, *command: bytes) -> tuple[int, bytes]:
        done = subprocess.run(command, capture_output=True, check=False, timeout=240)
        return done.returncode, done.stdout
