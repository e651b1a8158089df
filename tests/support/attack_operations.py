"""What a client process can be told to do beside the usual: the ways round a rule."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from typing import Final

from support import rawcalls
from support.operations import Operations

_PR_SET_DUMPABLE: Final = 4
_HANDLE_ROOM: Final = 128
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
]  # fmt: skip
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class AttackOperations(Operations):
    """All operations, those of attackers as well."""

    _letters: dict[str, socket.socket]

    def reset(self) -> None:
        for letters in getattr(self, "_letters", {}).values():
            letters.close()
        self._letters = {}
        super().reset()

    def reopen(self, slot: str, source: str, flags: int) -> None:
        """Open anew what *source* has open, by its path in proc(5)."""
        self.open(slot, b"/proc/self/fd/%d" % self.files[source], flags)

    def by_descriptor(self, slot: str) -> bytes:
        """Where other processes find an open file; they may look."""
        _done(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
        return b"/proc/%d/fd/%d" % (os.getpid(), self.files[slot])

    def expect(self, address: bytes) -> None:
        """Have a place to which files can be sent."""
        letters = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        letters.bind(b"\0" + address)
        self._letters[""] = letters

    def pass_on(self, slot: str, address: bytes) -> None:
        """Send an open file to another process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters:
            letters.connect(b"\0" + address)
            socket.send_fds(letters, [b"file"], [self.files[slot]])

    def take(self, slot: str) -> None:
        """Receive an open file."""
        _, descriptors, _, _ = socket.recv_fds(self._letters[""], 16, 1)
        self._keep(slot, descriptors[0])

    def protect_and_store(self, slot: str, length: int, protection: int, data: bytes) -> None:
        """Map shared with *protection*, make the mapping writable, and store."""
        address = _libc.mmap(None, length, protection, mmap.MAP_SHARED, self.files[slot], 0)
        if address == _MAP_FAILED:
            _done(-1)
        try:
            _done(_libc.mprotect(address, length, mmap.PROT_READ | mmap.PROT_WRITE))
            ctypes.memmove(address, data, len(data))
        finally:
            _libc.munmap(address, length)

    def store_privately(self, slot: str, length: int, data: bytes) -> bytes:
        """Map privately and store: seen by nobody else."""
        with mmap.mmap(
            self.files[slot], length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        ) as mapping:
            mapping[: len(data)] = data
            return mapping[: len(data)]

    def splice_into(self, slot: str, data: bytes, offset: int | None) -> int:
        """Write from a pipe."""
        reading, writing = os.pipe()
        try:
            os.write(writing, data)
            return os.splice(reading, self.files[slot], len(data), offset_dst=offset)
        finally:
            os.close(reading)
            os.close(writing)

    def vmsplice_into(self, slot: str, data: bytes, offset: int | None) -> int:
        """Write pages of memory by way of a pipe."""
        reading, writing = os.pipe()
        try:
            vector = _Vector(data, len(data))
            _done(_libc.vmsplice(writing, ctypes.byref(vector), 1, 0))
            return os.splice(reading, self.files[slot], len(data), offset_dst=offset)
        finally:
            os.close(reading)
            os.close(writing)

    def splice_out(self, slot: str, size: int) -> bytes:
        """Read by way of a pipe."""
        reading, writing = os.pipe()
        try:
            count = os.splice(self.files[slot], writing, size, offset_src=0)
            return os.read(reading, count) if count else b""
        finally:
            os.close(reading)
            os.close(writing)

    def link_descriptor(self, slot: str, new: bytes) -> None:
        """linkat(2) with AT_EMPTY_PATH."""
        _done(_libc.linkat(self.files[slot], b"", rawcalls.AT_FDCWD, new, rawcalls.AT_EMPTY_PATH))

    def execute_open(self, slot: str) -> None:
        """fexecve(3) of what is open, in a child; its failure is the result."""
        descriptor = self.files[slot]
        child = os.fork()
        if not child:
            number = 0
            try:
                os.execve(descriptor, [b"x"], {})  # noqa: S606
            except OSError as error:
                number = error.errno or errno.EIO
            finally:
                os._exit(number)
        _, status = os.waitpid(child, 0)
        number = os.waitstatus_to_exitcode(status)
        if number:
            raise OSError(abs(number), os.strerror(abs(number)))

    def run(self, *command: bytes) -> None:
        """Run a program; one that cannot be run, or fails, is ``ENOEXEC`` if nothing else."""
        code, _ = self.execute(*command)
        if code:
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))

    def map_program(self, slot: str) -> None:
        """Map as ld.so maps a program: privately, to be executed."""
        mmap.mmap(self.files[slot], 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()

    def handle(self, path: bytes) -> bytes:
        """name_to_handle_at(2): type and bytes of the handle."""
        room = ctypes.create_string_buffer(8 + _HANDLE_ROOM)
        struct.pack_into("=Ii", room, 0, _HANDLE_ROOM, 0)
        mount_id = ctypes.c_int()
        _done(_libc.name_to_handle_at(rawcalls.AT_FDCWD, path, room, ctypes.byref(mount_id), 0))
        length = struct.unpack_from("=I", room, 0)[0]
        return room.raw[: 8 + length]

    def open_handle(self, slot: str, mount: bytes, handle: bytes, flags: int) -> None:
        """open_by_handle_at(2)."""
        home = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            descriptor = _done(
                _libc.open_by_handle_at(home, ctypes.create_string_buffer(handle), flags)
            )
        finally:
            os.close(home)
        self._keep(slot, descriptor)
