"""``inopt overlay commit``: an upper layer applied to a copy of its lowers.

Everything new takes shape in a directory of its own inside the target, which nobody else may enter,
and gets its name when it is whole. So a run that was cut short leaves whole files only, and doing
all of it again ends the same: what is already as it should be is made once more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from inopt.exceptions import InoptError, UsageError
from inopt.layers.contents import Told, copy_contents
from inopt.layers.format import beneath
from inopt.layers.tools.comparing import read_link, require_here
from inopt.layers.tools.dressing import dress
from inopt.layers.tools.entries import Entry, Layer, join, names_in
from inopt.layers.tools.places import Directory, failed, shown
from inopt.layers.working import remove_tree

WORKPLACE: Final = b".inopt-commit"
_OURS: Final = re.compile(rb"(new|gone|link)-\d+")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Applied:
    """What was done: names given, names removed, bytes copied."""

    made: int = 0
    removed: int = 0
    copied: int = 0


class Commit:
    """One run. *seen* is called for each entry, *told* with bytes copied."""

    def __init__(
        self,
        layer: Layer,
        target: Directory,
        seen: Callable[[bytes], object] = lambda _path: None,
        told: Told = lambda _bytes: None,
    ) -> None:
        self._layer = layer
        self._target = target
        self._seen = seen
        self._told = told
        self._work = -1
        self._count = 0
        self._linked: set[int] = set()
        self._done = Applied()

    def run(self) -> Applied:
        """Apply all of it. Raises `UsageError` before anything is changed, else `InoptError`."""
        top = self._layer.top()
        require_here(top, self._layer)
        root = self._target.descriptor
        with self._workplace():
            self._directory(top, root, hides=top.is_opaque)
        dress(root, b"", top, self._layer.attributes(top))
        return self._done

    @contextmanager
    def _workplace(self) -> Iterator[None]:
        root = self._target.descriptor
        if self._layer.find(self._layer.root, WORKPLACE, WORKPLACE) is not None:
            raise UsageError(
                f"'{shown(WORKPLACE)}': the upper layer has this name, which commit needs for "
                "itself: rename it"
            )
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"'{self._target.path}': another commit to it is under way: wait until it ends"
            ) from error
        self._clean()
        try:
            os.mkdir(WORKPLACE, 0o700, dir_fd=root)
            self._work = os.open(WORKPLACE, _DIRECTORY, dir_fd=root)
            # What is made in it must not get the ACL that the target has for new files.
            for attribute in os.listxattr(beneath(self._work)):
                if attribute.startswith("system.posix_acl"):
                    os.removexattr(beneath(self._work), attribute)
        except OSError as error:
            raise failed(WORKPLACE, "make a directory in the target", error) from error
        try:
            yield
        finally:
            os.close(self._work)
        self._clean()

    def _clean(self) -> None:
        """Remove the directory of an earlier run, or of this one."""
        root = self._target.descriptor
        try:
            names = os.open(WORKPLACE, _DIRECTORY, dir_fd=root)
        except FileNotFoundError:
            return
        except OSError as error:
            raise failed(WORKPLACE, "open it in the target", error) from error
        try:
            if not all(_OURS.fullmatch(name) for name in names_in(names, WORKPLACE)):
                raise UsageError(
                    f"'{self._target.path}/{shown(WORKPLACE)}': not made by commit, which needs "
                    "this name for itself: rename it"
                )
        finally:
            os.close(names)
        try:
            remove_tree(root, WORKPLACE)
        except OSError as error:
            raise failed(WORKPLACE, "remove it from the target", error) from error

    def _directory(self, parent: Entry, target: int, *, hides: bool) -> None:
        """*hides*: what the target has and the layer has not does not show any more."""
        directory = parent.open_directory()
        try:
            entries = self._layer.entries(directory, parent.path)
            if hides:
                kept = {entry.name for entry in entries if not entry.is_whiteout}
                for name in names_in(target, parent.path):
                    if name not in kept and (parent.path or name != WORKPLACE):
                        self._remove(target, name, join(parent.path, name))
            for entry in entries:
                self._seen(entry.path)
                require_here(entry, self._layer)
                if entry.is_whiteout:
                    self._remove(target, entry.name, entry.path)
                elif entry.is_directory:
                    self._merge(entry, target, hides=hides)
                else:
                    self._replace(entry, target)
        finally:
            os.close(directory)

    def _merge(self, entry: Entry, target: int, *, hides: bool) -> None:
        there = self._status(target, entry.name, entry.path)
        try:
            if there is None or not stat.S_ISDIR(there.st_mode):
                self._remove(target, entry.name, entry.path)
                os.mkdir(entry.name, 0o700, dir_fd=target)
                self._done.made += 1
            inner = os.open(entry.name, _DIRECTORY, dir_fd=target)
        except OSError as error:
            raise failed(entry.path, "make the directory", error) from error
        try:
            if os.fstat(inner).st_dev != self._target.device:
                raise self._foreign(entry.path)
            self._directory(entry, inner, hides=hides or entry.is_opaque)
            dress(inner, b"", entry, self._layer.attributes(entry))
        finally:
            os.close(inner)

    def _replace(self, entry: Entry, target: int) -> None:
        there = self._status(target, entry.name, entry.path)
        if there is not None and stat.S_ISDIR(there.st_mode):
            self._remove(target, entry.name, entry.path)
        self._count += 1
        new = b"new-%d" % self._count
        link = b"link-%d" % entry.status.st_ino
        try:
            if entry.status.st_ino in self._linked:
                self._link(link, new)
            else:
                self._make(entry, new)
                dress(self._work, new, entry, self._layer.attributes(entry))
                if entry.status.st_nlink > 1:
                    self._link(new, link)
                    self._linked.add(entry.status.st_ino)
            os.rename(new, entry.name, src_dir_fd=self._work, dst_dir_fd=target)
        except OSError as error:
            raise failed(entry.path, "make it in the target", error) from error
        self._done.made += 1

    def _link(self, old: bytes, new: bytes) -> None:
        work = self._work
        os.link(old, new, src_dir_fd=work, dst_dir_fd=work, follow_symlinks=False)

    def _make(self, entry: Entry, new: bytes) -> None:
        mode = entry.status.st_mode
        if entry.is_file:
            self._copy(entry, new)
        elif stat.S_ISLNK(mode):
            os.symlink(read_link(entry), new, dir_fd=self._work)
        else:
            os.mknod(new, stat.S_IFMT(mode) | 0o600, entry.status.st_rdev, dir_fd=self._work)

    def _copy(self, entry: Entry, new: bytes) -> None:
        source = entry.open_file()
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(new, flags, 0o600, dir_fd=self._work)
            try:
                copy_contents(source, target, entry.status.st_size, self._copied)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copied(self, count: int) -> None:
        self._done.copied += count
        self._told(count)

    def _remove(self, target: int, name: bytes, path: bytes) -> None:
        """Remove a name and all below it: the name first, at once."""
        there = self._status(target, name, path)
        if there is None:
            return
        if there.st_dev != self._target.device:
            raise self._foreign(path)
        self._count += 1
        gone = b"gone-%d" % self._count
        try:
            if stat.S_ISDIR(there.st_mode):
                os.rename(name, gone, src_dir_fd=target, dst_dir_fd=self._work)
                remove_tree(self._work, gone)
            else:
                os.unlink(name, dir_fd=target)
        except OSError as error:
            raise failed(path, "remove it from the target", error) from error
        self._done.removed += 1

    def _status(self, target: int, name: bytes, path: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise failed(path, "look at it in the target", error) from error

    def _foreign(self, path: bytes) -> InoptError:
        return UsageError(
            f"'{self._target.path}/{shown(path)}': another filesystem is mounted there: unmount it"
        )
