"""What a client process can be told to do, by name.

Open files, mappings and directory streams stay in the client under *slot* names, so that no
result has a descriptor number in it: results of two runs can be compared as they are.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import stat
import subprocess
import time
from typing import Any, Final

from support import rawcalls

Stat = dict[str, int]
_UNLIMITED: Final = resource.RLIM_INFINITY
_OPEN_BITS: Final = os.O_APPEND | os.O_DIRECT | os.O_NONBLOCK | os.O_ACCMODE | os.O_NOATIME


def _status(status: os.stat_result) -> Stat:
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


class _Slots(dict[str, int]):
    """A slot in which nothing is open is a bad descriptor, as the system call would say."""

    def __missing__(self, slot: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), slot)


class Names:
    """Names, inodes and their attributes. Paths are relative to where the client is."""

    def enter(self, path: bytes) -> None:
        os.chdir(path)

    def umask(self, mask: int) -> int:
        return os.umask(mask)

    def lstat(self, path: bytes) -> Stat:
        return _status(os.lstat(path))

    def stat(self, path: bytes) -> Stat:
        return _status(os.stat(path))

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
        return _status(os.stat(path, follow_symlinks=follow))

    def truncate(self, path: bytes, size: int) -> int:
        os.truncate(path, size)
        return os.stat(path).st_mode

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

    def fill_directory(self, path: bytes, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            os.close(os.open(path + b"/entry-%05d" % number, os.O_CREAT | os.O_WRONLY, 0o644))

    def file_size_limit(self, size: int | None) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (_UNLIMITED if size is None else size, hard))

    def execute(self, *command: bytes) -> tuple[int, bytes]:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
        return done.returncode, done.stdout


class Files:
    """Open files."""

    def __init__(self) -> None:
        self.files: dict[str, int] = _Slots()
        self.mappings: dict[str, mmap.mmap] = {}
        self.streams: dict[str, rawcalls.Stream] = {}
        self.positions: dict[str, int] = {}
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def reset(self) -> None:
        """Close everything; be where nothing is held busy."""
        for mapping in self.mappings.values():
            mapping.close()
        for descriptor in self.files.values():
            os.close(descriptor)
        for stream in self.streams.values():
            stream.close()
        for child in self.children.values():
            child.kill()
            child.wait()
        self.__init__()  # type: ignore[misc]
        os.chdir("/")
        os.umask(0o022)
        Names().file_size_limit(None)

    def open(self, slot: str, path: bytes, flags: int, mode: int = 0o666) -> None:
        """Open into *slot*; if that fails, the slot is empty, whatever it was before."""
        self.discard(slot)
        self._keep(slot, os.open(path, flags, mode))

    def _keep(self, slot: str, descriptor: int) -> None:
        if slot in self.files:
            os.close(self.files[slot])
        self.files[slot] = descriptor

    def close(self, slot: str) -> None:
        descriptor = self.files[slot]
        del self.files[slot]
        os.close(descriptor)

    def discard(self, slot: str) -> None:
        """Close it if it could be opened."""
        if slot in self.files:
            self.close(slot)

    def end_of(self, slot: str) -> tuple[int, int]:
        """The size, by lseek(2), and where the file was."""
        here = os.lseek(self.files[slot], 0, os.SEEK_CUR)
        end = os.lseek(self.files[slot], 0, os.SEEK_END)
        os.lseek(self.files[slot], here, os.SEEK_SET)
        return end, here

    def fstat(self, slot: str) -> Stat:
        return _status(os.fstat(self.files[slot]))

    def blocks_used(self, slot: str) -> int:
        """How much is allocated, after it has reached the disk."""
        os.fsync(self.files[slot])
        return os.fstat(self.files[slot]).st_blocks

    def read(self, slot: str, size: int) -> bytes:
        return os.read(self.files[slot], size)

    def pread(self, slot: str, size: int, offset: int) -> bytes:
        return os.pread(self.files[slot], size, offset)

    def write(self, slot: str, data: bytes) -> int:
        return os.write(self.files[slot], data)

    def pwrite(self, slot: str, data: bytes, offset: int) -> int:
        return os.pwrite(self.files[slot], data, offset)

    def pwritev_flags(self, slot: str, data: bytes, offset: int, flags: int) -> int:
        return os.pwritev(self.files[slot], [data], offset, flags)

    def append_many(self, slot: str, data: bytes, times: int) -> int:
        return sum(os.write(self.files[slot], data) for _ in range(times))

    def pread_aligned(self, slot: str, size: int, offset: int) -> bytes:
        with mmap.mmap(-1, max(size, 4096)) as room:
            with memoryview(room)[:size] as view:
                count = os.preadv(self.files[slot], [view], offset)
            return room[:count]

    def pwrite_aligned(self, slot: str, data: bytes, offset: int) -> int:
        with mmap.mmap(-1, max(len(data), 4096)) as room:
            room[: len(data)] = data
            with memoryview(room)[: len(data)] as view:
                return os.pwritev(self.files[slot], [view], offset)

    def seek(self, slot: str, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self.files[slot], offset, whence)

    def ftruncate(self, slot: str, size: int) -> int:
        os.ftruncate(self.files[slot], size)
        return os.fstat(self.files[slot]).st_mode

    def fchmod(self, slot: str, mode: int) -> None:
        os.fchmod(self.files[slot], mode)

    def fchown(self, slot: str, uid: int, gid: int) -> None:
        os.fchown(self.files[slot], uid, gid)

    def fsync(self, slot: str) -> None:
        os.fsync(self.files[slot])

    def fdatasync(self, slot: str) -> None:
        os.fdatasync(self.files[slot])

    def fallocate(self, slot: str, mode: int, offset: int, length: int) -> None:
        rawcalls.fallocate(self.files[slot], mode, offset, length)

    def copy_range(
        self, source: str, target: str, size: int, start: int | None, to: int | None
    ) -> int:
        return os.copy_file_range(self.files[source], self.files[target], size, start, to)

    def send_file(self, source: str, target: str, size: int) -> int:
        return os.sendfile(self.files[target], self.files[source], None, size)

    def link_open(self, slot: str, new: bytes) -> None:
        rawcalls.linkat(self.files[slot], new)

    def get_status_flags(self, slot: str) -> int:
        return fcntl.fcntl(self.files[slot], fcntl.F_GETFL) & _OPEN_BITS

    def set_status_flags(self, slot: str, flags: int) -> None:
        fcntl.fcntl(self.files[slot], fcntl.F_SETFL, flags)

    def get_flags(self, slot: str) -> int:
        return rawcalls.get_flags(self.files[slot])

    def set_flags(self, slot: str, flags: int, clear: int = 0) -> None:
        """Set and clear some; the others, such as ext4's own, stay."""
        descriptor = self.files[slot]
        rawcalls.set_flags(descriptor, rawcalls.get_flags(descriptor) & ~clear | flags)

    def flock(self, slot: str, kind: int) -> None:
        fcntl.flock(self.files[slot], kind)

    def lock(self, slot: str, command: int, kind: int, start: int, length: int) -> None:
        """POSIX or OFD lock, by *command*."""
        fcntl.fcntl(self.files[slot], command, rawcalls.lock_record(kind, start, length))

    def locked(self, slot: str, command: int, kind: int, start: int, length: int) -> Any:
        """What F_GETLK answers, but for the number of the process."""
        asked = rawcalls.lock_record(kind, start, length)
        found = rawcalls.unlock_record(fcntl.fcntl(self.files[slot], command, asked))
        return (*found[:3], (found[3] > 0) - (found[3] < 0)) if found[0] != 2 else "free"


class Maps(Files):
    """Mappings, directory streams and children."""

    def map(self, key: str, slot: str, length: int, flags: int, protection: int) -> None:
        mapping = mmap.mmap(self.files[slot], length, flags, protection)
        self.mappings[key] = mapping

    def map_read(self, key: str, start: int, size: int) -> bytes:
        return self.mappings[key][start : start + size]

    def map_write(self, key: str, start: int, data: bytes) -> None:
        self.mappings[key][start : start + len(data)] = data

    def map_flush(self, key: str) -> None:
        self.mappings[key].flush()

    def unmap(self, key: str) -> None:
        self.mappings.pop(key).close()

    def open_stream(self, key: str, path: bytes) -> None:
        self.streams[key] = rawcalls.Stream(path)

    def stream_names(self, key: str) -> list[bytes]:
        """All that is left in the stream, sorted."""
        return sorted(name for name, _, _ in self.streams[key].read(1 << 20))

    def stream_part(self, key: str, count: int) -> list[bytes]:
        """The next *count* names as they come."""
        return [name for name, _, _ in self.streams[key].read(count)]

    def stream_skip(self, key: str, count: int) -> int:
        return len(self.streams[key].read(count))

    def stream_rewind(self, key: str) -> None:
        self.streams[key].rewind()

    def stream_seeks_back(self, key: str, count: int) -> tuple[int, bool]:
        """Read *count* entries twice from the same position: how many, and whether the same."""
        stream = self.streams[key]
        position = stream.tell()
        first = stream.read(count)
        middle = stream.tell()
        rest = stream.read(1 << 20)
        stream.seek(position)
        again = stream.read(count)
        stream.seek(middle)
        return len(first), first == again and rest == stream.read(1 << 20)

    def close_stream(self, key: str) -> None:
        self.streams.pop(key).close()

    def listing(self, path: bytes) -> list[tuple[bytes, int, bool]]:
        """Each entry's d_type, and whether its d_ino is what lstat says."""
        stream = rawcalls.Stream(path)
        try:
            return sorted(
                (name, kind, number == os.lstat(os.path.join(path, name)).st_ino)
                for name, kind, number in stream.read(1 << 20)
            )
        finally:
            stream.close()

    def spawn(self, key: str, *command: bytes) -> None:
        self.children[key] = subprocess.Popen(command)

    def end_child(self, key: str) -> None:
        child = self.children.pop(key)
        child.kill()
        child.wait()


class Operations(Names, Maps):
    """All of them."""
