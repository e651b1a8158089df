"""Versions of files as files: made, named by the moment they ended, and thrown away again."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file (Btrfs, XFS, bcachefs)
PIECE = 64 << 20
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
BENEATH = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def moment() -> bytes:
    """A name for this moment; later ones sort behind it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H.%M.%S.%fZ").encode()


def protect_like(original: int, copy: int) -> None:
    """Give *copy* the owner, mode and ACLs of *original*, so that the same people can read it.

    Both are descriptors.
    """
    status = os.fstat(original)
    os.fchown(copy, status.st_uid, status.st_gid)
    os.fchmod(copy, stat.S_IMODE(status.st_mode))
    for name in ACLS:
        with suppress(OSError):
            os.setxattr(copy, name, os.getxattr(original, name))


async def copy_content(source: int, target: int) -> None:
    """Copy a whole file: its blocks are shared where that is possible."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        offset = 0
        while count := await trio.to_thread.run_sync(_copy_piece, source, target, offset):
            offset += count


def _copy_piece(source: int, target: int, offset: int) -> int:
    try:
        return os.copy_file_range(source, target, PIECE, offset, offset)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return os.pwrite(target, os.pread(source, PIECE, offset), offset)


@dataclass
class Version:
    """A version in its folder (a descriptor, which this object closes)."""

    folder: int
    name: bytes
    keep: int

    def settle(self, *, keep: bool) -> None:
        """Keep it, and no more than `keep` in all; or throw it away."""
        if not keep:
            os.unlink(self.name, dir_fd=self.folder)
        else:
            with os.scandir(self.folder) as entries:
                versions = sorted(entry.name for entry in entries if not entry.is_dir())
            for oldest in versions[: -self.keep]:
                os.unlink(oldest, dir_fd=self.folder)
        os.close(self.folder)


class History:
    """All versions, in the directory *name* of the source, *root* (a descriptor, kept open).

    Those of the file a/b are in the directory a/b there; of each, the last *keep*.
    """

    def __init__(self, root: int, name: str, keep: int) -> None:
        self.root = root
        self.keep = keep
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=root)
        self.top = os.open(name, BENEATH, dir_fd=root)

    def close(self) -> None:
        """Close what is open."""
        os.close(self.top)
        os.close(self.root)

    def _folder(self, path: Sequence[bytes]) -> int:
        """The folder for versions of the file *path*, accessible to whom its directory is."""
        there, here = os.dup(self.root), os.dup(self.top)
        for step in path:
            with suppress(FileExistsError):
                os.mkdir(step, 0o700, dir_fd=here)
            above, here = here, os.open(step, BENEATH, dir_fd=here)
            os.close(above)
            with suppress(OSError):  # the file itself is no directory
                above, there = there, os.open(step, BENEATH, dir_fd=there)
                os.close(above)
            protect_like(there, here)
        os.close(there)
        return here

    async def copy(self, source: int, path: Sequence[bytes]) -> Version:
        """Make a version of *path*, whose content *source* is now."""
        version = Version(self._folder(path), moment(), self.keep)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(version.name, flags, 0o600, dir_fd=version.folder)
        try:
            await copy_content(source, target)
            protect_like(source, target)
            status = os.fstat(source)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        except BaseException:
            version.settle(keep=False)
            raise
        finally:
            os.close(target)
        return version

    def link(self, directory: int, path: Sequence[bytes]) -> Version:
        """Make a version of *path*, which is to be removed from its *directory*: no copy."""
        version = Version(self._folder(path), moment(), self.keep)
        os.link(
            path[-1],
            version.name,
            src_dir_fd=directory,
            dst_dir_fd=version.folder,
            follow_symlinks=False,
        )
        return version
