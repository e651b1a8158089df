"""Tar archives as they are written here: ustar headers, and PAX records for what they lack.

The same entries make the same bytes: there is no name of a user, no time but those of the files.
Source: POSIX.1-2024 pax(1); ``SCHILY.xattr.`` as star, GNU tar, libarchive and containers have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_EXTENDED: Final = b"x"
_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK
_MOST_NAME: Final = 100
_MOST_SEVEN: Final = 0o7777777
_MOST_ELEVEN: Final = 0o77777777777

Write: TypeAlias = Callable[[bytes], object]


class Member(NamedTuple):
    """One entry. ``name`` has no slash at its end; times are in nanoseconds, sizes in bytes."""

    name: bytes
    kind: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()


class Archive:
    """An archive on its way out. *write* takes bytes and raises `OSError` if it cannot."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._written = 0
        self._left = 0

    def add(self, member: Member) -> None:
        """Begin an entry; as many bytes as its size says have to follow by `data`."""
        assert not self._left, "the entry before is not complete"  # noqa: S101
        records = _records(member)
        if records:
            base = member.name.rsplit(b"/", 1)[-1][: _MOST_NAME - 20]
            header = Member(b"PaxHeaders/" + base, _EXTENDED, size=len(records))
            self._put(_header(header))
            self._put(records)
            self._pad()
        self._put(_header(member))
        self._left = member.size

    def data(self, data: bytes) -> None:
        """A part of the entry's contents."""
        self._left -= len(data)
        assert self._left >= 0, "more data than the entry has"  # noqa: S101
        self._put(data)
        if not self._left:
            self._pad()

    def close(self) -> None:
        """Write the end."""
        self._put(bytes(2 * _BLOCK))
        self._put(bytes(-self._written % _RECORD))

    def _pad(self) -> None:
        self._put(bytes(-self._written % _BLOCK))

    def _put(self, data: bytes) -> None:
        self._write(data)
        self._written += len(data)


def _full_name(member: Member) -> bytes:
    return member.name + b"/" if member.kind == DIRECTORY else member.name


def _records(member: Member) -> bytes:
    """The PAX records that an entry needs, in their order; empty if it needs none."""
    found: list[tuple[bytes, bytes]] = []
    for key, text in ((b"path", _full_name(member)), (b"linkpath", member.link)):
        if len(text) > _MOST_NAME or not text.isascii():
            found.append((key, text))
    numbers = ((b"uid", member.uid, _MOST_SEVEN), (b"gid", member.gid, _MOST_SEVEN))
    for key, number, most in (*numbers, (b"size", member.size, _MOST_ELEVEN)):
        if number > most:
            found.append((key, b"%d" % number))
    if member.mtime_ns % 10**9 or not 0 <= member.mtime_ns // 10**9 <= _MOST_ELEVEN:
        found.append((b"mtime", _decimal(member.mtime_ns)))
    for name, value in member.attributes:
        found.append((b"SCHILY.xattr." + name.encode("utf-8", "surrogateescape"), value))
    return b"".join(_record(key, value) for key, value in found)


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE``; the length counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(b"%d" % length) + len(body):
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def _decimal(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    text = f"{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09d}"
    return text.rstrip("0").rstrip(".").encode()


def _header(member: Member) -> bytes:
    """The ustar header; what does not fit is cut, and is right in the PAX records."""
    seconds = member.mtime_ns // 10**9
    fields = (
        _full_name(member)[:_MOST_NAME].ljust(_MOST_NAME, b"\0"),
        _octal(member.mode & 0o7777, 8),
        _octal(member.uid if member.uid <= _MOST_SEVEN else 0, 8),
        _octal(member.gid if member.gid <= _MOST_SEVEN else 0, 8),
        _octal(member.size if member.size <= _MOST_ELEVEN else 0, 12),
        _octal(seconds if 0 <= seconds <= _MOST_ELEVEN else 0, 12),
        b" " * 8,
        member.kind,
        member.link[:_MOST_NAME].ljust(_MOST_NAME, b"\0"),
        b"ustar\x0000",
        bytes(64),
        _octal(member.major & _MOST_SEVEN, 8),
        _octal(member.minor & _MOST_SEVEN, 8),
        bytes(155 + 12),
    )
    block = b"".join(fields)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)
