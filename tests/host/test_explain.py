"""What ``inopt explain`` says of a live mount is what happens there."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.mounting import Mount, in_place, inopt
from support.programs import error_of
from support.waiting import within

from inopt.ops import OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.explaining.explain import explain
from inopt.policy.explaining.identity import parse_identity
from inopt.policy.explaining.subjects import make_up, names_of, walk
from inopt.policy.facts import TYPES
from inopt.policy.load import load_policy
from inopt.policy.rules import compile_rules

pytestmark = pytest.mark.host

POLICY = """\
version: 1
handlers: "inopt.handlers.audit:AuditHandlers"
cache: {entry: 0s, attributes: 0s}
rules:
  - name: sealed
    match: {path: /sealed/*}
    deny:
      {write: EROFS, chmod: EPERM, chown: EACCES, utimens: EIO, truncate: EFBIG,
       setxattr: EPERM, getxattr: EAGAIN, listxattr: EBUSY, removexattr: EDQUOT, unlink: EACCES,
       rename: EMLINK, link: ENOSPC, fsync: EIO, lseek: ENODEV, ioctl: ENOMEM, statfs: ELOOP,
       readlink: ENOTSUP, create: EEXIST, mkdir: EFBIG, symlink: EINVAL, mknod: EXDEV,
       opendir: EBUSY, rmdir: ENXIO}
  - name: unreadable
    match: {path: /unreadable/*}
    deny: {read: EAGAIN}
  - name: no attributes
    match: {path: /blind/*}
    deny: {getattr: ENXIO}
  - name: closed
    match: {path: /closed/*}
    deny: {open: ETXTBSY, fallocate: EIO}
  - name: logs
    match: {path: "*.log"}
    deny: {overwrite: EPERM, mmap: ENODEV}
  - name: unseen
    match: {path: /unseen/*}
    visible: false
  - name: lost
    match: {path: /lost/*}
    deny: {lookup: EIO}
  - name: listed
    match: {path: /listed, type: directory}
    deny: {readdir: EINVAL, chattr: EPERM}
  - name: audited
    match: {path: /audited/*}
    handle: [read, write, open, chmod]
  - name: for others
    match: {path: /others/*, caller: {not_user: root}}
    deny: {read: EROFS}
"""
FOLDERS = (
    "sealed", "unreadable", "blind", "closed",
    "unseen", "lost", "listed", "audited", "others", "free",
)  # fmt: skip
_FS_IOC_SETFLAGS = 0x40086602
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_GETVERSION = 0x80087601


@pytest.fixture(scope="module")
def mount(host: None) -> Iterator[Mount]:
    """A mount under the policy above."""
    with in_place("explain") as place:
        policy, source, path = place / "p.yaml", place / "back", place / "mnt"
        policy.write_text(POLICY)
        source.mkdir()
        path.mkdir()
        for folder in FOLDERS:
            (source / folder).mkdir()
            (source / folder / "file").write_bytes(b"content")
            (source / folder / "x.log").write_bytes(b"content")
            (source / folder / "link").symlink_to("file")
            (source / folder / "dir").mkdir()
            os.setxattr(source / folder / "file", "user.here", b"1")
        made = Mount(source, path, policy=str(policy))
        try:
            yield made
        finally:
            made.close()


def explained(mount: Mount, path: str, *arguments: str) -> dict[str, Any]:
    """The report on one path, its lines by operation."""
    done = inopt("explain", "--mount", str(mount.path), path, "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)["paths"][0]
    report["lines"] = {line["operation"]: line for line in report["lines"]}
    return report


@pytest.fixture(scope="module")
def policy(mount: Mount) -> CompiledPolicy:
    """The policy of the mount, in this process."""
    rules = compile_rules(load_policy(str(mount.path.parent / "p.yaml")))
    return CompiledPolicy(rules, reads_and_writes=True, kernel=OpsMask())


def predicted(
    mount: Mount, policy: CompiledPolicy, path: str, operation: str, type_name: str = "file"
) -> int:
    """The errno that root gets, by what is explained without the mount; 0 for none."""
    names = names_of(path)
    descriptor = os.open(mount.source, os.O_PATH | os.O_DIRECTORY)
    try:
        with walk(policy, descriptor, names) as found:
            subjects = make_up(policy, found, names, TYPES[type_name])
            lines = explain(policy, subjects, parse_identity("root"))
    finally:
        os.close(descriptor)
    return errno_of(next(line.route for line in lines if line.operation == operation))


def errno_of(route: str) -> int:
    return int(getattr(errno, route.split(" ")[1])) if route.startswith("deny") else 0


def opened_somehow(action: Callable[[int], object]) -> Callable[[Path], object]:
    """Do something with a file that is open for reading, or if that is refused, for writing."""

    def run(path: Path) -> object:
        try:
            return opened(os.O_RDONLY, action)(path)
        except BlockingIOError:
            return opened(os.O_WRONLY, action)(path)

    return run


def opened(flags: int, action: Callable[[int], object]) -> Callable[[Path], object]:
    """Do something with an open file."""

    def run(path: Path) -> object:
        descriptor = os.open(path, flags)
        try:
            return action(descriptor)
        finally:
            os.close(descriptor)

    return run


def _map(descriptor: int) -> None:
    mmap.mmap(descriptor, 4, mmap.MAP_SHARED, mmap.PROT_READ).close()


def _flags(descriptor: int) -> None:
    argument = bytearray(8)
    fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, argument)
    fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, argument)


def _away_and_back(path: Path) -> None:
    other = path.with_name("2-" + path.name)
    os.rename(path, other)
    os.rename(other, path)


def _link(path: Path) -> None:
    other = path.with_name("3-" + path.name)
    os.link(path, other)
    os.unlink(other)


OPERATIONS: dict[str, Callable[[Path], object]] = {
    "getattr": os.stat,
    "read": opened(os.O_RDONLY, lambda file: os.read(file, 3)),
    "write": opened(os.O_WRONLY | os.O_APPEND, lambda file: os.write(file, b"x")),
    "overwrite": opened(os.O_WRONLY, lambda file: os.pwrite(file, b"c", 0)),
    "mmap": opened(os.O_RDONLY, _map),
    "lseek": opened(os.O_RDONLY, lambda file: os.lseek(file, 0, os.SEEK_DATA)),
    "fsync": opened_somehow(os.fsync),
    "fallocate": opened(os.O_WRONLY, lambda file: os.posix_fallocate(file, 0, 4)),
    "ioctl": opened_somehow(lambda file: fcntl.ioctl(file, _FS_IOC_GETVERSION, bytearray(8))),
    "chattr": opened_somehow(_flags),
    "truncate": lambda path: os.truncate(path, 7),
    "chmod": lambda path: os.chmod(path, 0o644),
    "chown": lambda path: os.chown(path, 0, 0),
    "utimens": lambda path: os.utime(path, (1, 1)),
    "getxattr": lambda path: os.getxattr(path, "user.here"),
    "listxattr": os.listxattr,
    "setxattr": lambda path: os.setxattr(path, "user.new", b"1"),
    "removexattr": lambda path: os.removexattr(path, "user.new"),
    "statfs": os.statvfs,
    "link": _link,
    "rename": _away_and_back,
}
MAKING: dict[str, tuple[str, Callable[[Path], object]]] = {
    "create": ("file", opened(os.O_CREAT | os.O_EXCL | os.O_WRONLY, lambda file: None)),
    "mkdir": ("directory", os.mkdir),
    "symlink": ("symlink", lambda path: os.symlink("x", path)),
    "mknod": ("fifo", os.mkfifo),
}


@pytest.mark.parametrize("name", ["file", "x.log"])
@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_errnos_of_files(
    mount: Mount, policy: CompiledPolicy, folder: str, name: str, operation: str
) -> None:
    if operation == "removexattr":
        os.setxattr(mount.source / folder / name, "user.new", b"1")
    if operation == "getxattr":
        os.setxattr(mount.source / folder / name, "user.here", b"1")
    expected = predicted(mount, policy, f"{folder}/{name}", operation)
    assert error_of(lambda: OPERATIONS[operation](mount.path / folder / name)) == expected


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("operation", MAKING)
def test_errnos_of_making(
    mount: Mount, policy: CompiledPolicy, folder: str, operation: str
) -> None:
    type_name, make = MAKING[operation]
    name = f"{folder}/new-{type_name}"
    expected = predicted(mount, policy, name, operation, type_name)
    assert error_of(lambda: make(mount.path / name)) == expected
    if not expected:
        # It is there now, so this is asked of the mount.
        removing = "rmdir" if operation == "mkdir" else "unlink"
        route = explained(mount, name, "--caller", "0")["lines"][removing]["route"]
        remove = os.rmdir if operation == "mkdir" else os.unlink
        assert error_of(lambda: remove(mount.path / name)) == errno_of(route)


@pytest.mark.parametrize("folder", FOLDERS)
def test_errnos_of_directories_and_links(mount: Mount, policy: CompiledPolicy, folder: str) -> None:
    actions: list[tuple[str, str, Callable[[Path], object]]] = [
        (f"{folder}/link", "readlink", os.readlink),
        (f"{folder}/dir", "opendir", opened(os.O_RDONLY | os.O_DIRECTORY, lambda file: None)),
        (f"{folder}/dir", "readdir", os.listdir),
        (f"{folder}/dir", "rmdir", os.rmdir),
        (folder, "readdir", os.listdir),
        (folder, "chattr", opened(os.O_RDONLY, _flags)),
    ]
    for path, operation, action in actions:
        expected = predicted(mount, policy, path, operation)
        found = error_of(partial(action, mount.path / path))
        assert found == expected, (path, operation)


def counts(mount: Mount) -> dict[str, dict[str, int]]:
    stats = mount.stats()
    return {name: stats[name] for name in ("OPEN", "READ", "WRITE", "SETATTR")}


@pytest.mark.parametrize("folder", ["free", "audited"])
def test_routes_are_those_that_are_counted(mount: Mount, folder: str) -> None:
    path = mount.path / folder / "file"
    lines = explained(mount, str(path))["lines"]
    before = counts(mount)
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, b"c", 0)
    os.pread(descriptor, 1, 0)
    os.close(descriptor)
    os.chmod(path, 0o600)
    after = counts(mount)
    for operation, opcode in (
        ("open", "OPEN"), ("read", "READ"), ("write", "WRITE"), ("chmod", "SETATTR"),
    ):  # fmt: skip
        grown = {
            route for route in ("daemon", "handler", "denied")
            if after[opcode][route] > before[opcode][route]
        }  # fmt: skip
        route = lines[operation]["route"]
        assert grown == ({route} - {"kernel"}), operation
    assert lines["read"]["route"] == {"free": "kernel", "audited": "handler"}[folder]


def test_denials_are_counted(mount: Mount) -> None:
    assert explained(mount, "unreadable/file")["lines"]["read"]["route"] == "deny EAGAIN"
    before = counts(mount)["OPEN"]["denied"]
    assert error_of(lambda: os.open(mount.path / "unreadable/file", os.O_RDONLY)) == errno.EAGAIN
    assert counts(mount)["OPEN"]["denied"] == before + 1


def test_callers(mount: Mount) -> None:
    line = explained(mount, "others/file")["lines"]["read"]
    assert line["route"] == "depends"
    assert "deny EROFS unless user root" in line["why"]
    for caller, route in (("root", "kernel"), ("nobody", "deny EROFS")):
        lines = explained(mount, "others/file", "--caller", caller)["lines"]
        assert lines["read"]["route"] == route


def test_what_is_held(mount: Mount) -> None:
    path = mount.path / "free" / "held"
    (mount.source / "free" / "held").write_bytes(b"content")
    assert explained(mount, "free/held")["live"] == {
        "nodeid": 0, "lookups": 0, "opens": 0, "backing_id": 0, "io": "not open",
        "attached": [], "not_attached": "", "policy": "present", "pinned": False, "layer": "",
    }  # fmt: skip
    first = os.open(path, os.O_RDONLY)
    second = os.open(path, os.O_RDWR)
    live = explained(mount, str(path))["live"]
    assert live["nodeid"] == os.fstat(first).st_ino
    assert (live["opens"], live["io"]) == (2, "bypass")
    assert live["backing_id"] > 0
    os.close(first)
    os.close(second)
    assert within(lambda: explained(mount, "free/held")["live"]["io"] == "not open")
    with open(mount.path / "audited/file", "rb"):
        live = explained(mount, "audited/file")["live"]
        assert (live["io"], live["backing_id"]) == ("daemon", 0)
    assert explained(mount, ".")["live"]["nodeid"] == 1


def test_nothing_is_counted(mount: Mount) -> None:
    os.stat(mount.path / "free/file")
    before = explained(mount, "free/file")["live"]
    known = mount.stats()["known_inodes"]
    held = mount.stats()["fds"]
    complaints = mount.complaints()
    for _ in range(5):
        assert explained(mount, "free/file")["live"] == before
        explained(mount, "sealed/link")
    assert mount.stats()["known_inodes"] <= known
    assert mount.stats()["fds"] < held + 5
    assert mount.complaints() == complaints


def test_several_names(mount: Mount) -> None:
    folder = mount.source / "free"
    (folder / "one").write_bytes(b"content")
    os.link(folder / "one", mount.source / "audited" / "two")
    report = explained(mount, "free/one")
    assert "hard links" in report["lines"]["read"]["why"]
    os.stat(mount.path / "audited/two")
    os.stat(mount.path / "free/one")
    report = explained(mount, "free/one")
    assert report["lines"]["read"]["route"] == "handler"
    assert "names in 2 places" in report["notes"][-1]


def test_an_earlier_policy(mount: Mount) -> None:
    policy = mount.path.parent / "p.yaml"
    with open(mount.path / "free/file", "rb"):
        os.stat(mount.path / "free/x.log")
        try:
            policy.write_text(POLICY.replace("/audited/*", "/free/*"))
            assert inopt("reload", str(mount.path)).returncode == 0
            report = explained(mount, "free/file")
            assert report["live"]["policy"] == "earlier"
            assert report["live"]["io"] == "bypass"
            assert report["lines"]["read"]["route"] == "handler"
            os.stat(mount.path / "free/x.log")
            assert explained(mount, "free/x.log")["live"]["policy"] == "present"
        finally:
            policy.write_text(POLICY)
            assert inopt("reload", str(mount.path)).returncode == 0


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("free/missing", "No such file or directory"),
        ("free/file/x", "Not a directory"),
        ("free/link/x", "Not a directory"),
        ("/etc/passwd", "not in the mount"),
        ("../x", "not in the mount"),
        ("", "not in the mount"),
        ("x" * 300, "File name too long"),
        ("x/" * 40_000, "File name too long"),
    ],
)
def test_mistakes(mount: Mount, path: str, complaint: str) -> None:
    done = inopt("explain", "--mount", str(mount.path), path)
    assert done.returncode in (1, 2), done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_caller(mount: Mount) -> None:
    done = inopt("explain", "--mount", str(mount.path), "free/file", "--caller", "nobody-here")
    assert (done.returncode, "no user 'nobody-here'" in done.stderr) == (2, True)
