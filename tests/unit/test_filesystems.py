"""Which filesystems find a name whatever its case is: by type, or by a mark on the directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inopt.backing import filesystems


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_PATH)
    yield descriptor
    os.close(descriptor)


def test_this_one_does_not(directory: int) -> None:
    assert not filesystems.ignores_case(directory)


def test_by_type(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inopt.syscalls.filesystem_type", lambda _: 0x4D44)
    assert filesystems.ignores_case(directory)


def test_by_mark(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(_descriptor: int, command: int, flags: bytearray) -> int:
        assert command == 0x80086601
        flags[:4] = (0x40000000 | 0x80000).to_bytes(4, "little")
        return 0

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    assert filesystems.ignores_case(directory)


def test_numbers(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stat(2) may make numbers up, the kernel's own must be the same."""
    number = os.fstat(directory).st_ino
    assert filesystems.kernel_number(directory) == number
    assert not filesystems.has_number(directory, number + 1)
    for sure, own, expected in ((True, -1, True), (False, number, True), (False, 7, False)):
        monkeypatch.setattr(filesystems, "numbers_are_sure", lambda _, sure=sure: sure)
        monkeypatch.setattr(filesystems, "kernel_number", lambda _, own=own: own)
        assert filesystems.has_number(directory, number) == expected
