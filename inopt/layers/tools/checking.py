"""``inopt overlay fsck``: whether an upper layer says to the kernel what it was meant to say.

Each entry is looked at once, on the way down. What is mended is mended there, by the descriptor of
its directory, and nothing is that would make a mount show something else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from inopt.exceptions import InoptError
from inopt.layers.format import Format, beneath
from inopt.layers.tools import fixing, marking
from inopt.layers.tools.below import NOTHING, Below
from inopt.layers.tools.entries import Entry, Layer, join, names_in
from inopt.layers.tools.findings import Finding, finding
from inopt.layers.tools.places import Directory, shown
from inopt.layers.working import INCOMPATIBLE, VOLATILE, entries_of

_AUFS_OPAQUE: Final = b".wh..wh..opq"
_AUFS_OWN: Final = b".wh..wh."
_AUFS: Final = b".wh."


class Check:
    """One look through one upper layer.

    *below*: what its lowers show, None if they are not known; *lowers*: their directories;
    *mend*: do what `Kind.mends` allows; *seen*: is called for each entry that was looked at.
    """

    def __init__(
        self,
        upper: Directory,
        chosen: Format,
        *,
        below: Below | None = None,
        lowers: tuple[Directory, ...] = (),
        mend: bool = False,
        seen: Callable[[bytes], object] = lambda _path: None,
    ) -> None:
        self._upper = upper
        self._layer = Layer(upper, chosen)
        self._marks = marking.Marks(chosen, lowers)
        self._below = below
        self._mend = mend
        self._seen = seen

    def upper(self) -> Iterator[Finding]:
        """All that is to be said of the layer, from the top down, by name."""
        chosen = self._layer.format
        try:
            os.getxattr(beneath(self._upper.descriptor), chosen.opaque)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                yield finding("OVL144", b"", prefix=chosen.prefix)
        try:
            top = self._layer.top()
        except InoptError as error:
            yield finding("OVL146", b"", why=str(error))
            return
        yield from self._marked(top, top=True)
        yield from self._directory(top, self._below, hidden=top.is_opaque)

    def _directory(self, parent: Entry, below: Below | None, *, hidden: bool) -> Iterator[Finding]:
        copies = False
        try:
            directory = parent.open_directory()
        except InoptError as error:
            yield finding("OVL146", parent.path, why=str(error))
            return
        try:
            names = names_in(directory, parent.path)
            for name in names:
                path = join(parent.path, name)
                self._seen(path)
                try:
                    entry = self._layer.find(directory, name, path)
                except InoptError as error:
                    yield finding("OVL146", path, why=str(error))
                    continue
                if entry is not None:
                    copies = copies or ("origin" in entry.marks and not entry.is_whiteout)
                    yield from self._entry(entry, parent, below, hidden=hidden)
            if copies and "impure" not in parent.marks:
                mark = self._layer.format.impure
                yield self._mended(
                    finding("OVL127", parent.path, mark=mark),
                    lambda: fixing.set_mark(directory, mark, b"y"),
                )
        except InoptError as error:
            yield finding("OVL146", parent.path, why=str(error))
        finally:
            os.close(directory)

    def _entry(
        self, entry: Entry, parent: Entry, below: Below | None, *, hidden: bool
    ) -> Iterator[Finding]:
        if entry.status.st_dev != self._layer.device:
            yield finding("OVL145", entry.path)
            return
        yield from self._marked(entry)
        if entry.is_whiteout:
            yield from self._whiteout(entry, below, hidden=hidden)
        elif entry.name.startswith(_AUFS):
            yield from self._aufs(entry, parent)
        if not entry.is_directory:
            return
        if below is None or hidden or entry.is_opaque:
            known = None if below is None else NOTHING
            yield from self._directory(entry, known, hidden=hidden or entry.is_opaque)
        else:
            with below.enter(entry.name) as lower:
                yield from self._directory(entry, lower, hidden=False)

    def _whiteout(self, entry: Entry, below: Below | None, *, hidden: bool) -> Iterator[Finding]:
        if hidden:
            yield self._mended(
                finding("OVL101", entry.path), lambda: fixing.remove(entry.directory, entry.name)
            )
            return
        if below is not None and not below:
            yield finding("OVL103", entry.path)
        elif below is not None and below.find(entry.name) is None:
            yield finding("OVL102", entry.path)
        if entry.is_xattr_whiteout:
            yield self._mended(
                finding("OVL104", entry.path),
                lambda: fixing.become_whiteout(entry.directory, entry.name),
            )

    def _aufs(self, entry: Entry, parent: Entry) -> Iterator[Finding]:
        if entry.name == _AUFS_OPAQUE:
            redundant = parent.is_opaque and entry.is_file and not entry.status.st_size
            if redundant:
                yield self._mended(
                    finding("OVL113", entry.path),
                    lambda: fixing.remove(entry.directory, entry.name),
                )
            else:
                yield finding("OVL112", entry.path, mark=self._layer.format.opaque)
        elif entry.name.startswith(_AUFS_OWN):
            yield finding("OVL114", entry.path)
        else:
            target = shown(entry.name[len(_AUFS) :])
            yield finding("OVL111", entry.path, target=target)

    def _marked(self, entry: Entry, *, top: bool = False) -> Iterator[Finding]:
        for found, mark in self._marks.of(entry, top=top):
            if mark and found.kind.mends:
                remove = fixing.mark_remover(entry.directory, entry.name, mark)
                yield self._mended(found, remove)
            else:
                yield found

    def _mended(self, found: Finding, act: Callable[[], None]) -> Finding:
        return mended(found, act) if self._mend else found


def mended(found: Finding, act: Callable[[], None]) -> Finding:
    """Mend what was found. Raises `InoptError`."""
    try:
        act()
    except OSError as error:
        raise InoptError(f"'{shown(found.path)}': cannot mend it: {error.strerror}") from error
    return found._replace(fixed=True)


def check_work(work: Directory, upper: Directory, *, mend: bool) -> Iterator[Finding]:
    """What is to be said of the work directory. Raises `InoptError` if it cannot be read."""
    if work.device != upper.device:
        yield finding("OVL143", b"", in_work=True)
    if count := len(entries_of(work.descriptor, b"index")):
        yield finding("OVL136", b"index", in_work=True, count=str(count))
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inner = os.open(b"work", flags, dir_fd=work.descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        for name in names_in(inner, b"work"):
            status = os.stat(name, dir_fd=inner, follow_symlinks=False)
            # One device that all whiteouts of a mount are links to: the kernel leaves it there.
            shared = stat.S_ISCHR(status.st_mode) and not status.st_rdev and name[:1] == b"#"
            if name == INCOMPATIBLE:
                if VOLATILE in entries_of(inner, name):
                    yield finding("OVL142", join(b"work", join(name, VOLATILE)), in_work=True)
            elif not shared:
                found = finding("OVL141", join(b"work", name), in_work=True)
                yield mended(found, fixing.tree_remover(inner, name)) if mend else found
    finally:
        os.close(inner)
