"""What a copy takes along beside its contents: owner, mode, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from inopt.layers.format import beneath
from inopt.wire.replies import Attributes

_CAPABILITY: Final = "security.capability"


def copy_facts(
    source: int,
    attributes: Attributes,
    target: int,
    name: bytes,
    shown: Callable[[str], bool],
) -> None:
    """Give a copy the owner, extended attributes and mode of its original.

    *source*: a descriptor of that; *target* and *name*: as `beneath` takes them; *shown*: which
    extended attributes go along. Times come last: see `copy_times`.
    """
    path, follow = beneath(target, name), not name
    os.chown(path, attributes.uid, attributes.gid, follow_symlinks=follow)
    _copy_xattrs(beneath(source), path, shown, follow=follow)
    if not stat.S_ISLNK(attributes.mode):
        os.chmod(path, attributes.mode & 0o7777)


def _copy_xattrs(source: bytes, path: bytes, shown: Callable[[str], bool], *, follow: bool) -> None:
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
            os.setxattr(path, name, value, follow_symlinks=follow)
        except OSError as error:
            # As the kernel does: what protects a file has to come along, the rest if it can.
            needed = name == _CAPABILITY or name.startswith("system.posix_acl_")
            if needed or error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def copy_times(attributes: Attributes, directory: int, name: bytes = b"") -> None:
    """Give a copy the times of its original."""
    os.utime(
        beneath(directory, name),
        ns=(
            attributes.atime_seconds * 10**9 + attributes.atime_nanoseconds,
            attributes.mtime_seconds * 10**9 + attributes.mtime_nanoseconds,
        ),
        follow_symlinks=not name,
    )
