"""Which of many globs match a name, without asking each of them.

``LITERAL*`` and ``*LITERAL`` are found in tables by length. Any other glob waits at one piece of
its literal characters, the one that the fewest others have, and is asked only for names in which
that piece occurs. Only globs without a literal character are asked for every name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from inopt.policy.paths.pattern import EDGE, Glob

Target = TypeVar("Target")
_Tables: TypeAlias = tuple[tuple[int, dict[str, Target]], ...]
_Asked: TypeAlias = list[tuple[Glob, Target]]

_LONGEST_PIECE: Final = 4  # characters: long enough that few names have one by chance


class GlobIndex(Generic[Target]):
    """Many globs, each with something that it leads to. Immutable."""

    __slots__ = ("_others", "_pieces", "_prefixes", "_suffixes")

    def __init__(self, globs: Iterable[tuple[Glob, Target]]) -> None:
        prefixes: dict[int, dict[str, Target]] = {}
        suffixes: dict[int, dict[str, Target]] = {}
        others: _Asked[Target] = []
        waiting: _Asked[Target] = []
        for glob, target in globs:
            chunk = glob.chunks[0] if glob.chunks else ""
            if not chunk:
                others.append((glob, target))
            elif not glob.only_stars or len(glob.chunks) > 1 or EDGE not in chunk:
                waiting.append((glob, target))
            elif chunk[0] == EDGE:
                prefixes.setdefault(len(chunk) - 1, {})[chunk[1:]] = target
            else:
                suffixes.setdefault(len(chunk) - 1, {})[chunk[:-1]] = target
        self._prefixes: _Tables[Target] = tuple(prefixes.items())
        self._suffixes: _Tables[Target] = tuple(suffixes.items())
        self._pieces = _by_piece(waiting)
        self._others: _Asked[Target] = others

    def find(self, name: str, found: list[Target]) -> None:
        """Append the targets of all globs that match *name*; one may come twice."""
        # A slice of a name that is too short is in no table: all keys there have one length.
        for length, table in self._suffixes:
            target = table.get(name[-length:])
            if target is not None:
                found.append(target)
        for length, table in self._prefixes:
            target = table.get(name[:length])
            if target is not None:
                found.append(target)
        if not self._pieces and not self._others:
            return
        edged = f"{EDGE}{name}{EDGE}"
        for length, pieces in self._pieces:
            for piece in [
                piece
                for start in range(len(edged) - length + 1)
                if (piece := edged[start : start + length]) in pieces
            ]:
                found.extend(target for glob, target in pieces[piece] if glob.matches(edged))
        if self._others:
            found.extend(target for glob, target in self._others if glob.matches(edged))


def _by_piece(
    globs: _Asked[Target],
) -> tuple[tuple[int, dict[str, _Asked[Target]]], ...]:
    """Tables, by length of the piece, of the globs that wait at each piece."""
    pieces_of = [_pieces(glob) for glob, _ in globs]
    frequency = Counter(piece for pieces in pieces_of for piece in pieces)
    tables: dict[int, dict[str, _Asked[Target]]] = {}
    for pieces, waiting in zip(pieces_of, globs, strict=True):
        piece = min(pieces, key=frequency.__getitem__)
        tables.setdefault(len(piece), {}).setdefault(piece, []).append(waiting)
    return tuple(tables.items())


def _pieces(glob: Glob) -> list[str]:
    """The pieces that a glob could wait at, all of the same length."""
    length = min(_LONGEST_PIECE, max(map(len, glob.chunks)))
    return [
        chunk[start : start + length]
        for chunk in glob.chunks
        for start in range(len(chunk) - length + 1)
    ]
