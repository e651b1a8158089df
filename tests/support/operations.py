"""What a client process can be told to do, by name.

Open files, mappings and directory streams stay in the client under *slot* names, so that no
result has a descriptor number in it: results of two runs can be compared as they are.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
from typing import Any, Final, TypeVar

from support import rawcalls
from support.lock_operations import LockOperations
from support.name_operations import Names, Stat, status_of

_T = TypeVar("_T")
_OPEN_BITS: Final = os.O_APPEND | os.O_DIRECT | os.O_NONBLOCK | os.O_ACCMODE | os.O_NOATIME


class _Slots(dict[str, _T]):
    """A slot in which nothing is open is a bad descriptor, as the system call would say."""

    def __missing__(self, slot: str) -> _T:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), slot)


class Files:
    """Open files."""

    def __init__(self) -> None:
        self.files: dict[str, int] = _Slots()
        self.mappings: dict[str, mmap.mmap] = {}
        self.streams: dict[str, rawcalls.Stream] = _Slots()
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
        """The size, by lseek(2), and where the file was; a directory's end is ext4's own idea."""
        if stat.S_ISDIR(os.fstat(self.files[slot]).st_mode):
            return 0, 0
        here = os.lseek(self.files[slot], 0, os.SEEK_CUR)
        end = os.lseek(self.files[slot], 0, os.SEEK_END)
        os.lseek(self.files[slot], here, os.SEEK_SET)
        return end, here

    def fstat(self, slot: str) -> Stat:
        return status_of(os.fstat(self.files[slot]))

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

    def fset_times(self, slot: str, access: int, modification: int) -> None:
        """futimens(2), in nanoseconds."""
        os.utime(self.files[slot], ns=(access, modification))

    def fsetxattr(self, slot: str, name: str, value: bytes) -> None:
        os.setxattr(self.files[slot], name, value)

    def same_as_open(self, slot: str, path: bytes) -> tuple[bool, bool]:
        """Whether a name leads to the inode that is open, and whether numbers say so."""
        mine, named = os.fstat(self.files[slot]), os.lstat(path)
        return mine.st_dev == named.st_dev, mine.st_ino == named.st_ino

    def nameless(self, slot: str) -> bool:
        """Whether what is open has lost the name that it was opened by."""
        return os.readlink(f"/proc/self/fd/{self.files[slot]}").endswith(" (deleted)")

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

    def opened_alike(self, slot: str, other: str) -> bool:
        """Whether two descriptors are of one file."""
        return os.path.sameopenfile(self.files[slot], self.files[other])

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

    def map_store(self, slot: str, start: int, data: bytes) -> bool:
        """Write by a mapping of its own, but only into what the file has; whether it could."""
        size = os.fstat(self.files[slot]).st_size
        if not data or size < start + len(data):
            return False
        with mmap.mmap(self.files[slot], size) as mapping:
            mapping[start : start + len(data)] = data
        return True

    def map_privately(self, slot: str, start: int, data: bytes) -> bytes:
        """Write into a private copy; the file as it then is."""
        size = os.fstat(self.files[slot]).st_size
        if data and size >= start + len(data):
            with mmap.mmap(self.files[slot], size, mmap.MAP_PRIVATE) as mapping:
                mapping[start : start + len(data)] = data
        return os.pread(self.files[slot], size, 0)

    def map_load(self, slot: str) -> bytes:
        """All of a file, read by a mapping of its own."""
        size = os.fstat(self.files[slot]).st_size
        if not size:
            return b""
        with mmap.mmap(self.files[slot], size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
            return mapping[:]

    def map_peek(self, slot: str) -> bytes:
        """Like `map_load`, but of a mapping that is longer than its file only what there is."""
        size = os.fstat(self.files[slot]).st_size
        if not size:
            return b""
        copy = os.memfd_create("copy")
        try:
            with mmap.mmap(self.files[slot], size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
                # Here what is missing is EFAULT; to the process itself it would be SIGBUS.
                length = os.write(copy, mapping)
            return os.pread(copy, length, 0)
        finally:
            os.close(copy)

    def unmap(self, key: str) -> None:
        self.mappings.pop(key).close()

    def open_stream(self, key: str, path: bytes) -> None:
        if key in self.streams:
            self.close_stream(key)
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
        stream = self.streams[key]
        del self.streams[key]
        stream.close()

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


class Operations(Names, Maps, LockOperations):
    """All of them."""
