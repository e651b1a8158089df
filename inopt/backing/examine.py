"""What the filesystem of a directory can do as a backing tree; leaves nothing behind."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from inopt.backing.filesystems import mount_descriptor


class BackingFacts(msgspec.Struct, frozen=True):
    """Whether file handles, extended attributes and POSIX ACLs work in a directory."""

    file_handles: bool
    xattrs: bool
    acls: bool


def examine(path: str) -> BackingFacts:
    """Examine the directory *path*. Raises `OSError` if it cannot be opened."""
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handles = mount_descriptor(directory)
        if handles >= 0:
            os.close(handles)
    finally:
        os.close(directory)
    return BackingFacts(
        handles >= 0,
        _has_attribute(path, "user.inopt"),
        _has_attribute(path, "system.posix_acl_access"),
    )


def _has_attribute(path: str, name: str) -> bool:
    try:
        os.getxattr(path, name)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def any_regular_file(path: str) -> int:
    """A descriptor of some regular file of the filesystem that *path* is on; -1 if none is found.

    A file without a name where they can be made, else one that is in the directory.
    """
    try:
        return os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        pass
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    return os.open(entry.path, flags)
            except OSError:
                continue
    return -1
