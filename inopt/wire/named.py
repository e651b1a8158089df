"""Decode request bodies with names: NUL-terminated, after an optional fixed structure.

Names that a directory entry cannot have (empty, with a slash, ``.`` or ``..``) are refused here,
so that nothing above ever sees one; LOOKUP may ask for ``.`` and ``..`` (NFS export).

Source: fs/fuse/dir.c and fs/fuse/xattr.c for the order of the parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inopt.wire import bodies, layouts
from inopt.wire.bodies import NO_EXTENSIONS, Body, Extensions, Header
from inopt.wire.directory import DOTS
from inopt.wire.extensions import decode_extensions
from inopt.wire.plain import HEADER_SIZE, Buffer, DecodeBody, bad_name, wrong_size

if TYPE_CHECKING:
    from struct import Struct


_SLASH: Final = ord("/")


def _component(header: Header, name: bytes) -> bytes:
    """Check a directory entry's name that is to be made, removed or moved."""
    if not name or _SLASH in name or name in DOTS:
        raise bad_name(header, name)
    return name


def _names(header: Header, buffer: Buffer, start: int, count: int) -> list[bytes]:
    """Split exactly ``count`` NUL-terminated names that fill the body from ``start`` on."""
    end = header.length - header.extensions_length
    if end <= start:
        raise wrong_size(header, start + count * 2, "at least ")
    names = bytes(buffer[start:end]).split(b"\0")
    if len(names) != count + 1 or names[count]:
        raise bad_name(header, b"\0".join(names))
    return names


def lookup(header: Header, buffer: Buffer) -> Body:
    """Decode LOOKUP, the most frequent request of a fresh mount."""
    raw = bytes(buffer[HEADER_SIZE : header.length - header.extensions_length])
    name = raw[:-1]
    # Searching for an int is ten times as fast as for a one-byte string (17 ns, 164 ns).
    if not name or raw[-1] or 0 in name or _SLASH in name:
        raise bad_name(header, raw)
    return bodies.Lookup(name)


def unlink(header: Header, buffer: Buffer) -> Body:
    """Decode UNLINK."""
    return bodies.Unlink(_component(header, _names(header, buffer, HEADER_SIZE, 1)[0]))


def rmdir(header: Header, buffer: Buffer) -> Body:
    """Decode RMDIR."""
    return bodies.Rmdir(_component(header, _names(header, buffer, HEADER_SIZE, 1)[0]))


_RENAME_NAMES: Final = HEADER_SIZE + layouts.RENAME_IN.size
_RENAME2_NAMES: Final = HEADER_SIZE + layouts.RENAME2_IN.size
_LINK_NAME: Final = HEADER_SIZE + layouts.LINK_IN.size
_GETXATTR_NAME: Final = HEADER_SIZE + layouts.GETXATTR_IN.size


def rename(header: Header, buffer: Buffer) -> Body:
    """Decode RENAME."""
    name, new_name, _ = _names(header, buffer, _RENAME_NAMES, 2)
    (new_directory,) = layouts.RENAME_IN.unpack_from(buffer, HEADER_SIZE)
    return bodies.Rename(new_directory, 0, _component(header, name), _component(header, new_name))


def rename2(header: Header, buffer: Buffer) -> Body:
    """Decode RENAME2."""
    name, new_name, _ = _names(header, buffer, _RENAME2_NAMES, 2)
    new_directory, flags = layouts.RENAME2_IN.unpack_from(buffer, HEADER_SIZE)
    return bodies.Rename(
        new_directory, flags, _component(header, name), _component(header, new_name)
    )


def link(header: Header, buffer: Buffer) -> Body:
    """Decode LINK."""
    name = _component(header, _names(header, buffer, _LINK_NAME, 1)[0])
    (old_nodeid,) = layouts.LINK_IN.unpack_from(buffer, HEADER_SIZE)
    return bodies.Link(old_nodeid, name)


def _xattr_name(header: Header, buffer: Buffer, start: int) -> bytes:
    # Unlike a directory entry's name, an extended attribute's may contain a slash.
    name = _names(header, buffer, start, 1)[0]
    if not name:
        raise bad_name(header, name)
    return name


def getxattr(header: Header, buffer: Buffer) -> Body:
    """Decode GETXATTR."""
    name = _xattr_name(header, buffer, _GETXATTR_NAME)
    (size,) = layouts.GETXATTR_IN.unpack_from(buffer, HEADER_SIZE)
    return bodies.Getxattr(size, name)


def removexattr(header: Header, buffer: Buffer) -> Body:
    """Decode REMOVEXATTR."""
    return bodies.Removexattr(_xattr_name(header, buffer, HEADER_SIZE))


def setxattr(layout: Struct) -> DecodeBody:
    """Make the decoder of SETXATTR in one of its two forms (8 or 16 bytes before the name)."""
    start = HEADER_SIZE + layout.size

    def decode(header: Header, buffer: Buffer) -> Body:
        end = header.length - header.extensions_length
        if end < start:
            raise wrong_size(header, start + 2, "at least ")
        fields = layout.unpack_from(buffer, HEADER_SIZE)
        rest = bytes(buffer[start:end])
        name, terminator, value = rest.partition(b"\0")
        if not name or not terminator:
            raise bad_name(header, name)
        if len(value) != fields[0]:
            raise wrong_size(header, start + len(name) + 1 + fields[0])
        return bodies.Setxattr(name, value, fields[1], fields[2] if len(fields) > 2 else 0)

    return decode


class Creating:
    """The requests that may carry extensions: SYMLINK, MKNOD, MKDIR, CREATE and TMPFILE.

    ``undeclared`` is true for minors 36 and 37, whose kernels append security contexts without
    telling their length in the header.
    """

    __slots__ = ("undeclared",)

    def __init__(self, *, undeclared: bool) -> None:
        self.undeclared = undeclared

    def split(
        self, header: Header, buffer: Buffer, start: int, count: int
    ) -> tuple[list[bytes], Extensions]:
        """Return ``count`` names that begin at ``start``, and the extensions after them."""
        length = header.length
        if not self.undeclared or header.extensions_length:
            names = _names(header, buffer, start, count)
            if not header.extensions_length:
                return names, NO_EXTENSIONS
            return names, decode_extensions(
                bytes(buffer[length - header.extensions_length : length])
            )
        parts = bytes(buffer[start:length]).split(b"\0", count)
        if len(parts) != count + 1:
            raise bad_name(header, b"\0".join(parts))
        return parts, decode_extensions(parts[count])

    def symlink(self, header: Header, buffer: Buffer) -> Body:
        """Decode SYMLINK."""
        names, extensions = self.split(header, buffer, HEADER_SIZE, 2)
        if not names[1]:
            raise bad_name(header, names[1])
        return bodies.Symlink(_component(header, names[0]), names[1], extensions)

    def mknod(self, header: Header, buffer: Buffer) -> Body:
        """Decode MKNOD."""
        start = HEADER_SIZE + layouts.MKNOD_IN.size
        names, extensions = self.split(header, buffer, start, 1)
        mode, rdev, umask = layouts.MKNOD_IN.unpack_from(buffer, HEADER_SIZE)
        return bodies.Mknod(_component(header, names[0]), mode, rdev, umask, extensions)

    def mkdir(self, header: Header, buffer: Buffer) -> Body:
        """Decode MKDIR."""
        start = HEADER_SIZE + layouts.MKDIR_IN.size
        names, extensions = self.split(header, buffer, start, 1)
        mode, umask = layouts.MKDIR_IN.unpack_from(buffer, HEADER_SIZE)
        return bodies.Mkdir(_component(header, names[0]), mode, umask, extensions)

    def create(self, header: Header, buffer: Buffer) -> Body:
        """Decode CREATE."""
        start = HEADER_SIZE + layouts.CREATE_IN.size
        names, extensions = self.split(header, buffer, start, 1)
        flags, mode, umask, open_flags = layouts.CREATE_IN.unpack_from(buffer, HEADER_SIZE)
        name = _component(header, names[0])
        return bodies.Create(flags, mode, umask, open_flags, name, extensions)

    def tmpfile(self, header: Header, buffer: Buffer) -> Body:
        """Decode TMPFILE."""
        # vfs_tmpfile() names the unlinked file "/", so this name is not checked.
        start = HEADER_SIZE + layouts.CREATE_IN.size
        names, extensions = self.split(header, buffer, start, 1)
        flags, mode, umask, open_flags = layouts.CREATE_IN.unpack_from(buffer, HEADER_SIZE)
        return bodies.Create(flags, mode, umask, open_flags, names[0], extensions)
