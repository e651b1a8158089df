"""File handles of the mount, as an NFS server uses them, outlive the kernel's own memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mounting import mounted
from support.waiting import within

from inopt import syscalls

pytestmark = pytest.mark.host


def handle_of(path: Path) -> bytes:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return syscalls.name_to_handle(descriptor)[0]
    finally:
        os.close(descriptor)


def forget_everything() -> None:
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")


def read_by_handle(root: Path, handle: bytes) -> bytes:
    mount_descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = syscalls.open_by_handle(mount_descriptor, handle, os.O_RDONLY)
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)
    finally:
        os.close(mount_descriptor)


def test_handles_outlive_the_kernels_memory(place: Path) -> None:
    (place / "back" / "directory").mkdir(parents=True)
    (place / "back" / "directory" / "file").write_text("found")
    with mounted(place / "back", place / "mnt") as mount:
        path = mount.path / "directory" / "file"
        handle = handle_of(path)
        assert read_by_handle(mount.path, handle) == b"found"

        def is_all_forgotten() -> bool:
            forget_everything()
            return bool(mount.stats()["known_inodes"] == 1)

        assert within(is_all_forgotten)
        assert read_by_handle(mount.path, handle) == b"found"


def test_a_handle_of_a_removed_file_is_stale(place: Path) -> None:
    (place / "back").mkdir()
    (place / "back" / "file").write_text("gone")
    with mounted(place / "back", place / "mnt") as mount:
        handle = handle_of(mount.path / "file")
        (mount.path / "file").unlink()
        forget_everything()
        # Another file may have its inode number now.
        (mount.path / "other").write_text("other")
        with pytest.raises(OSError, match="Stale"):
            read_by_handle(mount.path, handle)
