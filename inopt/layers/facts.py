"""What a copy takes along beside its contents: owner, mode, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, TypeAlias

from inopt.wire.replies import Attributes

Place: TypeAlias = int | bytes
"""An open file, or a path: that of what is open by ``O_PATH`` alone, or beneath a directory."""

_CAPABILITY: Final = "security.capability"


def copy_facts(
    source: Place,
    attributes: Attributes,
    copy: Place,
    shown: Callable[[str], bool],
    *,
    follow: bool = True,
) -> None:
    """Give a *copy* the owner, extended attributes and mode of its original.

    *shown*: which extended attributes go along; *follow*: what the last name of a path is a link
    to. Times come last: see `copy_times`.
    """
    os.chown(copy, attributes.uid, attributes.gid, follow_symlinks=follow)
    _copy_xattrs(source, copy, shown, follow=follow)
    if not stat.S_ISLNK(attributes.mode):
        os.chmod(copy, attributes.mode & 0o7777)


def _copy_xattrs(source: Place, copy: Place, shown: Callable[[str], bool], *, follow: bool) -> None:
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        raise
    for name in names:
        if not shown(name):
            continue
        try:
            value = os.getxattr(source, name)
        except OSError as error:
            if error.errno == errno.ENODATA:
                continue
            raise
        try:
            os.setxattr(copy, name, value, follow_symlinks=follow)
        except OSError as error:
            # As the kernel does: what protects a file has to come along, the rest if it can.
            needed = name == _CAPABILITY or name.startswith("system.posix_acl_")
            if needed or error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def copy_times(attributes: Attributes, copy: Place, *, follow: bool = True) -> None:
    """Give a *copy* the times of its original. *follow*: as in `copy_facts`."""
    os.utime(
        copy,
        ns=(
            attributes.atime_seconds * 10**9 + attributes.atime_nanoseconds,
            attributes.mtime_seconds * 10**9 + attributes.mtime_nanoseconds,
        ),
        follow_symlinks=follow,
    )
