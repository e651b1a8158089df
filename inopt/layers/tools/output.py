"""Where an archive goes: a file that is there only when it is whole, or standard output."""

from __future__ import annotations

import gzip
import importlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final

from inopt.exceptions import InoptError, UsageError
from inopt.layers.tools.places import Directory

COMPRESSIONS: Final = ("none", "gzip", "zstd")
_BY_END: Final = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd"}
_GZIP_LEVEL: Final = 6


@contextmanager
def opened_archive(
    path: str, compression: str | None, upper: Directory
) -> Iterator[Callable[[bytes], object]]:
    """What takes the bytes of an archive at *path*, ``-``: standard output.

    *compression*: one of `COMPRESSIONS`; None: as the name ends. Raises `UsageError` for a place
    that cannot be, `InoptError` where writing fails; a file is not changed then.
    """
    chosen = compression or _BY_END.get(os.path.splitext(path)[1], "none")
    if path != "-":
        _require_place(path, upper)
    elif sys.stdout.isatty():
        raise UsageError("'-': standard output is a terminal: name a file, or pipe it on")
    wrap = _compressor(chosen)  # before anything is made
    try:
        with _raw(path) as raw, wrap(raw) as stream:
            yield stream.write
    except OSError as error:
        raise InoptError(f"'{path}': cannot be written: {error.strerror or error}") from error


def _require_place(path: str, upper: Directory) -> None:
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise UsageError(f"'{path}': is a directory: name a file, such as '{path}/layer.tar'")
    if not os.path.isdir(folder):
        raise UsageError(f"'{folder}': no such directory: make it first")
    real = os.path.join(os.path.realpath(folder), "")
    if real.startswith(upper.real.rstrip("/") + "/"):
        raise UsageError(f"'{path}': lies in the layer that is to be packed: name another place")


def _compressor(chosen: str) -> Callable[[BinaryIO], Any]:
    if chosen == "gzip":
        # Without name and time: the same layer makes the same bytes.
        return lambda raw: gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0)
    if chosen == "zstd":
        try:
            zstandard: Any = importlib.import_module("zstandard")
        except ImportError as error:
            raise UsageError(
                "zstd: the package 'zstandard' is not installed: 'pip install zstandard', or pipe "
                "'inopt overlay export UPPER -' into zstd(1)"
            ) from error
        return lambda raw: zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
    return _plain


@contextmanager
def _plain(raw: BinaryIO) -> Iterator[BinaryIO]:
    yield raw


@contextmanager
def _raw(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb") as special:  # a pipe, a device: nothing can take its place
                yield special
            return
    spare = f"{path}.{secrets.token_hex(4)}.part"
    with open(spare, "xb") as file:
        try:
            yield file
            file.flush()
            os.rename(spare, path)
        except BaseException:
            os.unlink(spare)
            raise
