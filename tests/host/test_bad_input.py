"""What cannot be done is refused: exit 2, one line with the way out, nothing left behind."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest
from support.mounting import inopt, inopt_program, mounted, mounts_below
from support.programs import (
    as_stranger,
    left_by_dead,
    runtime_files,
    sh,
)

from inopt.exceptions import UsageError
from inopt.policy.load import parse_policy

pytestmark = pytest.mark.host


@pytest.fixture
def tree(place: Path) -> Path:
    """A place with a source and a mountpoint."""
    (place / "src" / "sub").mkdir(parents=True)
    (place / "src" / "file").write_text("file")
    (place / "mnt").mkdir()
    return place


def check_line(done: subprocess.CompletedProcess[str], *naming: str) -> None:
    """One line on stderr, exit code 2, and every text of *naming* in it."""
    assert done.returncode == 2, f"exit {done.returncode}: {done.stderr}"
    lines = done.stderr.splitlines()
    assert len(lines) == 1, f"not one line: {done.stderr}"
    assert lines[0].startswith("inopt: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for text in naming:
        assert text in lines[0], f"{text!r} is not in: {lines[0]}"


def check_refused(place: Path, *arguments: str, naming: tuple[str, ...]) -> None:
    """``inopt mount`` with *arguments* fails as it should, and nothing has changed."""
    points, files = mounts_below(place), runtime_files()
    names = sorted(str(path) for path in place.rglob("*"))
    check_line(inopt("mount", *arguments, cwd=place), *naming)
    assert mounts_below(place) == points
    assert sorted(str(path) for path in place.rglob("*")) == names
    assert left_by_dead(files) == []


def places_of(tree: Path) -> tuple[str, str]:
    return str(tree / "src"), str(tree / "mnt")


def test_unknown_policy(tree: Path) -> None:
    check_refused(tree, "miror", *places_of(tree), naming=("'miror'", "shipped are", "mirror"))
    missing = str(tree / "none.yaml")
    check_refused(tree, missing, *places_of(tree), naming=(missing,))
    check_refused(tree, str(tree / "src"), *places_of(tree), naming=("src", "directory"))
    check_refused(tree, "", *places_of(tree), naming=("policy ''",))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (b"version: 1\nfoo: 2\n", "2:1", "foo"),
        (b"version: 2\n", "1:10", "2"),
        (b"version: one\n", "1:10", "expected 1"),
        (b"description: no version\n", "1:1", "version"),
        (b"version: 1\nrequire: all\n", "2:10", "all"),
        (b"version: 1\notherwise: [bypass]\n", "2:12", "a list"),
        (b"version: 1\ncache: {entry: soon}\n", "2:16", "soon"),
        (b"version: 1\ncache:\n  entry: 1s\n  attributes: 5\n", "4:15", "duration"),
        (b"version: 1\ncache:\n  negativ: 1s\n", "3:3", "negativ"),
        (b"version: 1\ncache:\n\tentry: 1s\n", "3:1", "YAML"),
        (b"version: [1\n", "2:1", "YAML"),
        (b"version: *one\n", "1:10", "'*one'"),
        (b"version: !!python/object:os.system 1\n", "1:10", "YAML"),
        (b"version: 1\n---\nversion: 1\n", "2:1", "second document"),
        (b"version: 1\nrequire: rw\nrequire: none\n", "3:1", "require"),
        (b"- version: 1\n", "1:1", "a list"),
        (b"", "1:1", "empty"),
        (b"just words\n", "1:1", "a mapping"),
        (b"version: 1\n? [a]\n: 1\n", "2:3", "YAML"),
        (b"\xff\xff\xff", "1:1", "YAML"),
        (b"\x00\x01\x02", "1:1", "YAML"),
        (b"version: " + b"[" * 5000, "1:59", "YAML"),
    ],
)
def test_malformed_policy(text: bytes, where: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_policy(text, "bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{where}: ")
    assert what in str(caught.value)


@pytest.mark.parametrize("text", [b"version: 1\nfoo: 2\n", b"version: 1\n\tfoo: 2\n"])
def test_malformed_policy_mounts_nothing(tree: Path, text: bytes) -> None:
    policy = tree / "bad.yaml"
    policy.write_bytes(text)
    check_refused(tree, str(policy), *places_of(tree), naming=(f"{policy}:2:1: ",))


def test_policy_that_is_none(tree: Path) -> None:
    (tree / "large.yaml").write_bytes(b"#" * (1 << 24))
    check_refused(
        tree, str(tree / "large.yaml"), *places_of(tree), naming=("large.yaml", "not a policy")
    )
    (tree / "demands.yaml").write_text("version: 1\nrequire: inode\n")
    check_refused(
        tree, str(tree / "demands.yaml"), *places_of(tree), naming=("'inode'", "inopt doctor")
    )
    (tree / "demands.yaml").write_text("version: 1\nrequire: rw\n")
    check_refused(
        tree, str(tree / "demands.yaml"), *places_of(tree), "--tier", "none",
        naming=("demands.yaml", "'rw'", "--tier"),
    )  # fmt: skip


def test_source(tree: Path) -> None:
    source, mountpoint = places_of(tree)
    check_refused(
        tree, "mirror", f"{source}/none", mountpoint, naming=("src/none", "No such file", "name")
    )
    check_refused(
        tree, "mirror", f"{source}/file", mountpoint, naming=("src/file", "not a directory", "name")
    )
    check_refused(tree, "mirror", f"{source}/file/x", mountpoint, naming=("src/file/x", "name"))
    os.symlink("loop", tree / "loop")
    check_refused(tree, "mirror", str(tree / "loop"), mountpoint, naming=("loop", "name"))
    check_refused(tree, "mirror", "", mountpoint, naming=("source ''", "empty", "name"))


def test_mountpoint(tree: Path) -> None:
    source, mountpoint = places_of(tree)
    check_refused(
        tree, "mirror", source, f"{mountpoint}/none", naming=("mnt/none", "create the directory")
    )
    (tree / "file").touch()
    check_refused(
        tree, "mirror", source, str(tree / "file"), naming=("/file", "not a directory", "name")
    )
    check_refused(tree, "mirror", source, "", naming=("mountpoint ''", "empty", "name"))
    check_refused(tree, "mirror", source, source, naming=("source itself", "name"))
    check_refused(tree, "mirror", source, f"{source}/sub", naming=("inside the source", "name"))
    check_refused(tree, "mirror", f"{source}/sub", source, naming=("inside of it", "name"))
    os.symlink(f"{source}/sub", tree / "link")
    check_refused(tree, "mirror", source, str(tree / "link"), naming=("link", "inside the source"))
    (tree / "bound").mkdir()
    sh("mount", "--bind", source, str(tree / "bound"))
    check_refused(
        tree, "mirror", source, str(tree / "bound" / "sub"), naming=("inside the source",)
    )


def test_mountpoint_in_use(tree: Path) -> None:
    with mounted(tree / "src", tree / "mnt") as mount:
        check_refused(
            tree, "mirror", *places_of(tree), naming=("already an inopt mount", "inopt umount")
        )
        assert (tree / "mnt" / "file").read_text() == "file"
        assert mount.stats()["pid"] == mount.pid


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (("-o", "nosiud"), ("'nosiud'", "nosuid")),
        (("-o", "zzz"), ("'zzz'", "known are")),
        (("-o", "ro=1"), ("'ro=1'",)),
        (("-o", "max_read"), ("max_read", "value")),
        (("-o", "max_read=lots"), ("max_read=lots", "4096")),
        (("-o", "max_read=100"), ("max_read=100", "4096")),
        (("-o", "max_read=-1"), ("max_read=-1",)),
        (("-o", "ro,max_read=99999999999999999999"), ("max_read=9",)),
        (("-o", "max_stack_depth=3"), ("max_stack_depth=3", "1 or 2")),
        (("-o", "writeback_cache"), ("writeback_cache", "--tier none")),
        (("-o", "writeback_cache", "--tier", "rw"), ("writeback_cache", "--tier none")),
        (("--tier", "inode"), ("'inode'", "--tier auto", "inopt doctor")),
        (("--tier", "all"), ("--tier", "all", "--help")),
        (("--abi", "solaris"), ("--abi", "solaris", "rfc-v7")),
        (("--abi", "rfc-v7"), ("--abi rfc-v7", "inopt doctor")),
        (("--abi", "android"), ("--abi android", "inopt doctor")),
        (("--abi", "mainline", "--tier", "inode"), ("--abi mainline", "'rw'", "leave --tier out")),
        (("--abi", "mainline", "--tier", "none"), ("--abi mainline", "--tier none")),
        (("--abi", "mainline", "--transport", "pyfuse3"), ("--abi mainline", "--transport")),
        (("--fd-budget", "63"), ("--fd-budget 63", "64")),
        (("--fd-budget", "0"), ("--fd-budget 0", "64")),
        (("--fd-budget", "-5"), ("--fd-budget -5", "64")),
        (("--fd-budget", "many"), ("--fd-budget", "many", "--help")),
        (("--readers", "0"), ("--readers", "--help")),
        (("--readers", "65"), ("--readers", "--help")),
        (("--log-level", "loud"), ("--log-level", "loud", "--help")),
        (("--log-format", "xml"), ("--log-format", "xml", "--help")),
        (("--log-file", "/var/tmp/none-such/log"), ("/var/tmp/none-such/log",)),
        (("--frobnicate",), ("--frobnicate", "--help")),
        (("one-too-many",), ("one-too-many", "--help")),
    ],
)
def test_options(tree: Path, arguments: tuple[str, ...], naming: tuple[str, ...]) -> None:
    check_refused(tree, "mirror", *places_of(tree), *arguments, naming=naming)


@pytest.mark.parametrize("wrong", ["--tier=inode", "-onosiud", "--fd-budget=3"])
def test_in_the_foreground(tree: Path, wrong: str) -> None:
    check_refused(tree, "mirror", *places_of(tree), "--foreground", wrong, naming=(wrong[2:5],))


def test_budget_above_the_hard_limit(tree: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = str(hard + 1)
    check_refused(
        tree, "mirror", *places_of(tree), "--fd-budget", wanted,
        naming=(wanted, f"({hard})", "ulimit -Hn"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("prepare", "naming"),
    [
        pytest.param(
            "mount -t tmpfs dev /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9",
            ("/dev/fuse", "modprobe fuse"),
            id="missing",
        ),
        pytest.param(
            "mount -t tmpfs -o nodev dev $PLACE/dev && mknod $PLACE/dev/fuse c 10 229 &&"
            " mount --bind $PLACE/dev/fuse /dev/fuse",
            ("/dev/fuse", "10:229"),
            id="forbidden",
        ),
    ],
)
def test_without_the_device(tree: Path, prepare: str, naming: tuple[str, ...]) -> None:
    (tree / "dev").mkdir()
    script = (
        f"PLACE={tree}; {prepare} || exit 99; {inopt_program()} mount mirror"
        f" {tree}/src {tree}/mnt; code=$?; grep -c 'fuse.inopt {tree}/' /proc/self/mountinfo >&3;"
        " exit $code"
    )
    files = runtime_files()
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", f"exec 3>{tree}/count; {script}"],
        capture_output=True, text=True, timeout=240, check=False, cwd=tree,
    )  # fmt: skip
    check_line(done, *naming)
    assert (tree / "count").read_text().strip() == "0"
    assert left_by_dead(files) == []


def test_without_privilege(tree: Path) -> None:
    files = runtime_files()
    command = [inopt_program(), "mount", "mirror", *places_of(tree)]
    check_line(sh(*as_stranger(), *command, check=False), "root")
    check_line(
        sh("setpriv", "--bounding-set=-sys_admin", *command, check=False), "root", "CAP_SYS_ADMIN"
    )
    assert mounts_below(tree) == []
    assert left_by_dead(files) == []


def test_root_of_a_user_namespace(tree: Path) -> None:
    # It is called root, but may register no backing files and act as nobody.
    if sh("unshare", "-Urm", "true", check=False).returncode:
        pytest.skip("no user namespaces here")
    command = [inopt_program(), "mount", "mirror", *places_of(tree), "--tier", "rw"]
    check_line(sh("unshare", "-Urm", *command, check=False), "root")
    assert mounts_below(tree) == []


@pytest.mark.parametrize("command", ["umount", "stats"])
def test_not_a_mount(tree: Path, command: str) -> None:
    for path in (tree / "src", tree / "none", tree / "src" / "file"):
        check_line(inopt(command, str(path)), str(path), "findmnt")
    (tree / "tmpfs").mkdir()
    sh("mount", "-t", "tmpfs", "tmpfs", str(tree / "tmpfs"))
    check_line(inopt(command, str(tree / "tmpfs")), "tmpfs", "not an inopt mount")
    assert mounts_below(tree) == [str(tree / "tmpfs")]
    check_line(inopt(command, "", cwd=tree), "''")


def test_doctor_of_nothing(tree: Path) -> None:
    check_line(inopt("doctor", str(tree / "none")), "none", "name a directory")
    check_line(inopt("doctor", str(tree / "src" / "file")), "src/file", "name a directory")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("mout",), "mout"),
        (("--frobnicate",), "--frobnicate"),
        (("mount",), "POLICY"),
        (("mount", "mirror"), "SOURCE"),
        (("umount",), "MOUNTPOINT"),
        (("umount", "--force", "/none"), "--force"),
        (("stats",), "MOUNTPOINT"),
        (("stats", "--jsn", "/none"), "--json"),
        (("doctor", "a", "b"), "b"),
        (("completion",), "zsh"),
        (("completion", "tcsh"), "tcsh"),
    ],
)
def test_slips_of_the_fingers(host: None, arguments: tuple[str, ...], what: str) -> None:
    check_line(inopt(*arguments), what, "--help")
