"""What `readdir` fills: a page of a listing, one entry at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyfuse3

from inopt.handlers.types import EntryAttributes
from inopt.wire.directory import DOTS, DirectoryPage

_stock: Final = pyfuse3.readdir_reply
_NO_ENTRY: Final = bytes(128)


def _unset(_given: Any) -> Any:
    raise NotImplementedError("nobody serves this request")


class ReaddirToken(pyfuse3.ReaddirToken):
    """A page to fill. *plus*: each entry is a lookup, too. ``added``: (inode, 1) for each.

    ``entry`` makes an entry reply of what a handler says, ``number`` the inode number that is
    shown; who serves the request sets both.
    """

    __slots__ = ("added", "entry", "number", "page", "plus")

    def __init__(self, size: int, *, plus: bool) -> None:
        self.entry: Callable[[EntryAttributes], bytes] = _unset
        self.number: Callable[[int], int] = _unset
        self.page: DirectoryPage = DirectoryPage(size)
        self.page.reset(size)
        self.plus: bool = plus
        self.added: list[tuple[int, int]] = []


def readdir_reply(token: Any, name: bytes, attr: EntryAttributes, next_id: int) -> bool:
    """Add an entry to a listing; returns False, and adds nothing, if there is no room for it.

    Each entry that is added takes over a lookup of it, except for the dots: the kernel's, or
    given back where the listing is one of names alone.
    """
    if not isinstance(token, ReaddirToken):
        return bool(_stock(token, name, attr, next_id))
    kind = attr.st_mode >> 12
    is_lookup = name not in DOTS and attr.st_ino > 0
    number = token.number(attr.st_ino) or next_id
    if not token.plus:
        fits = token.page.add(number, next_id, kind, name)
    elif not token.page.fits(len(name), plus=True):
        fits = False
    else:
        entry = _NO_ENTRY
        if is_lookup:
            entry = token.entry(attr)
        fits = token.page.add_plus(entry, number, next_id, kind, name)
    if fits and is_lookup:
        token.added.append((attr.st_ino, 1))
    return fits
