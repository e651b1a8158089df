"""Where something is made that takes a whiteout's place: a stand-in for its directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from inopt.layers.format import beneath
from inopt.layers.working import remove_tree

_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")


@contextmanager
def staged(work: int, directory: int, name: bytes) -> Iterator[int]:
    """A descriptor of an empty directory *name* in *work*, removed afterwards.

    It has the owner, mode and ACLs of *directory*, so what is made in it inherits the same, and
    whoever may make something there may do so here.
    """
    os.mkdir(name, 0o700, dir_fd=work)
    try:
        stage = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=work)
        try:
            status = os.stat(beneath(directory))
            os.chown(stage, status.st_uid, status.st_gid)
            present = os.listxattr(beneath(directory))
            for attribute in _ACLS:
                if attribute in present:
                    os.setxattr(stage, attribute, os.getxattr(beneath(directory), attribute))
            os.chmod(stage, status.st_mode & 0o7777)
            yield stage
        finally:
            os.close(stage)
    finally:
        remove_tree(work, name)
