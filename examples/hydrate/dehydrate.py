"""`python dehydrate.py STORE FILE…`: move files of a source into a store, leave placeholders."""

from __future__ import annotations

import os
import shutil
import sys
import uuid

PLACEHOLDER = "user.inopt.placeholder"


def dehydrate(store: str, path: str) -> str:
    """Put one file into the store and empty it; returns the object's id."""
    name = uuid.uuid4().hex
    shutil.copyfile(path, os.path.join(store, name))
    status = os.stat(path)
    os.setxattr(path, PLACEHOLDER, name.encode())
    os.truncate(path, 0)
    os.truncate(path, status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return name


if __name__ == "__main__":
    for file in sys.argv[2:]:
        print(dehydrate(sys.argv[1], file), file)
