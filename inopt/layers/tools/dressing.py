"""Owner, mode, times and extended attributes of one inode, set to those of another."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from inopt.exceptions import InoptError
from inopt.layers.format import beneath
from inopt.layers.tools.entries import Entry, listed, read_attribute
from inopt.layers.tools.places import failed, shown

# What a security module says of a file is for that module to change.
_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL})
_ORIGINALS: Final = ("security.selinux", "security.SMACK64", "security.apparmor")


def dress(directory: int, name: bytes, entry: Entry, attributes: dict[str, bytes]) -> None:
    """Make *name* in a directory look like *entry*; no *name*: the descriptor's own inode.

    Symbolic links are not followed, but for the mode of what is no link: the directory must be one
    in which nobody else puts something in its place. Raises `InoptError`.
    """
    status = entry.status
    try:
        before = os.stat(name, dir_fd=directory, follow_symlinks=False) if name else None
        before = before or os.fstat(directory)
        if (before.st_uid, before.st_gid) != (status.st_uid, status.st_gid):
            if name:
                os.chown(
                    name, status.st_uid, status.st_gid, dir_fd=directory, follow_symlinks=False
                )
            else:
                os.fchown(directory, status.st_uid, status.st_gid)
    except OSError as error:
        raise failed(entry.path, f"give it to {status.st_uid}:{status.st_gid}", error) from error
    _set_attributes(directory, name, entry.path, attributes)
    try:
        # After the owner, whose change takes set-id bits; after the ACL, which has a mode in it.
        mode = stat.S_IMODE(status.st_mode)
        if not name:
            os.fchmod(directory, mode)
        elif not stat.S_ISLNK(status.st_mode):
            os.chmod(name, mode, dir_fd=directory)
        times = (status.st_atime_ns, status.st_mtime_ns)
        if name:
            os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        else:
            os.utime(directory, ns=times)
    except OSError as error:
        raise failed(entry.path, "set its mode and times", error) from error


def _set_attributes(directory: int, name: bytes, path: bytes, wanted: dict[str, bytes]) -> None:
    where, follows = beneath(directory, name), not name
    there = listed(directory, name, path)
    for attribute in there:
        if attribute not in wanted and not attribute.startswith(_ORIGINALS):
            try:
                os.removexattr(where, attribute, follow_symlinks=follows)
            except OSError as error:
                if error.errno != errno.ENODATA:
                    raise failed(path, f"remove its attribute {attribute}", error) from error
    for attribute, value in wanted.items():
        if attribute in there and read_attribute(directory, name, path, attribute) == value:
            continue
        try:
            os.setxattr(where, attribute, value, follow_symlinks=follows)
        except OSError as error:
            if attribute.startswith(_ORIGINALS) and error.errno in _REFUSED:
                continue
            if error.errno == errno.EOPNOTSUPP:
                raise InoptError(
                    f"'{shown(path)}': cannot set {attribute}: the target's filesystem has no such "
                    "attributes: choose another"
                ) from error
            raise failed(path, f"set its attribute {attribute}", error) from error
