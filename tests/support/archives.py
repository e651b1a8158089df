"""Applying a layer of a container image to a tree, as the OCI image specification says it."""

from __future__ import annotations

import os
import shutil
import tarfile
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

_XATTR = "SCHILY.xattr."


def apply_archive(archive: Path, target: Path) -> None:
    """First what is removed, then what is there; the times of directories last."""
    with tarfile.open(archive, encoding="utf-8", errors="surrogateescape") as opened:
        members = opened.getmembers()
        names = [member.name for member in members]
        assert len(set(names)) == len(names), "an entry twice"
        for member in members:
            folder, name = os.path.split(member.name)
            if name == ".wh..wh..opq":
                _empty(target / folder)
            elif name.startswith(".wh."):
                _remove(target / folder / name.removeprefix(".wh."))
        plain = [m for m in members if not os.path.basename(m.name).startswith(".wh.")]
        for member in plain:
            _make(opened, member, target)
        for member in reversed(plain):
            if member.isdir():
                _dress(member, target / member.name)


def _empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        for name in os.listdir(folder):
            _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make(opened: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    path = target / member.name
    if member.isdir():
        if not path.is_dir() or path.is_symlink():
            _remove(path)
            path.mkdir()
        return
    _remove(path)
    if member.islnk():
        os.link(target / member.linkname, path, follow_symlinks=False)
        return
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.isfile():
        source = opened.extractfile(member)
        assert source is not None
        with open(path, "xb") as file:
            shutil.copyfileobj(source, file)
    elif member.isfifo():
        os.mkfifo(path)
    else:
        kind = 0o020000 if member.ischr() else 0o060000
        os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
    _dress(member, path)


def _dress(member: tarfile.TarInfo, path: Path) -> None:
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    wanted = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    for name in os.listxattr(path, follow_symlinks=False):
        if name not in wanted:
            with suppress(OSError):
                os.removexattr(path, name, follow_symlinks=False)
    for name, value in wanted.items():
        os.setxattr(path, name, value, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(member.mode)
    seconds = Decimal(member.pax_headers.get("mtime", str(int(member.mtime))))
    when = int(seconds * 10**9)
    os.utime(path, ns=(when, when), follow_symlinks=False)
