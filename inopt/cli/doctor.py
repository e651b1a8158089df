"""``inopt doctor``: what this machine can do, what follows from it, and how to get more."""

from __future__ import annotations

import errno
import os
import platform
import resource
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inopt import syscalls
from inopt.backing.descriptors import SMALLEST_BUDGET
from inopt.backing.examine import any_regular_file, examine
from inopt.backing.tree import Tree
from inopt.backing.watch.choose import open_watch
from inopt.exceptions import InoptError, UsageError
from inopt.kernel.abilities import Abilities
from inopt.kernel.dialects import Tier
from inopt.kernel.probe import probe
from inopt.session.settings import DEFAULT_BUDGET

_COLORS: Final = {"ok": "green", "note": "yellow", "problem": "red"}


class Finding(msgspec.Struct, frozen=True):
    """One line of the report: what was found, what follows, and the way out (if one is needed)."""

    name: str
    status: Literal["ok", "note", "problem"]
    found: Any
    consequence: str
    fix: str = ""


@click.command(epilog="Example: inopt doctor /srv/data")
@click.argument("path", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="As a JSON object by finding.")
def doctor(path: str | None, as_json: bool) -> None:
    """Show what the kernel, this process and (with PATH) a backing filesystem can do."""
    findings = list(_kernel_findings())
    if path is not None:
        findings += _backing_findings(path)
    if as_json:
        click.echo(msgspec.json.encode({finding.name: finding for finding in findings}))
    else:
        _show(findings)


def _show(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        color = _COLORS[finding.status]
        found = finding.found
        found = (" ".join(found) or "none") if isinstance(found, list) else str(found)
        lines = [f"[bold]{escape(found)}[/]", f"so: {escape(finding.consequence)}"]
        if finding.fix:
            lines.append(f"to change it: {escape(finding.fix)}")
        table.add_row(f"[{color}]{finding.status}[/]", finding.name, "\n".join(lines))
    Console(file=sys.stdout).print(table)


def _kernel_findings() -> Iterator[Finding]:
    yield Finding("kernel", "ok", platform.release(), "names the rules that hold")
    try:
        abilities = probe()
    except (InoptError, OSError) as error:
        yield Finding(
            "fuse",
            "problem",
            str(error),
            "nothing can be mounted",
            "run as root; modprobe fuse; Linux 5.10 or later",
        )
    else:
        yield Finding(
            "protocol",
            "ok",
            f"{abilities.major}.{abilities.minor}",
            "inopt speaks 7.31 to 7.45; newer kernels speak those, too",
        )
        yield Finding(
            "init_flags", "ok", abilities.flag_names(), "what the kernel offers to negotiate"
        )
        yield _tier(abilities)
        yield _dialect(abilities)
        yield _accepted(abilities)
    yield _capability()
    yield _descriptors()


_SERVED: Final = {
    Tier.RW: "reads, writes and mmap of open files bypass the daemon",
    Tier.INODE: "what an ops_mask says bypasses the daemon from lookup on, and open files' data",
}
_HOW_TO_GET_MORE: Final = "getattr, setattr and readdir bypass: a kernel with FUSE_PASSTHROUGH_INO"


def _tier(abilities: Abilities) -> Finding:
    tier = abilities.tier
    if tier is not Tier.NONE:
        fix = _HOW_TO_GET_MORE if tier < Tier.INODE else ""
        return Finding("tier", "ok", tier.label, _SERVED[tier], fix)
    reason = errno.errorcode.get(abilities.bypass_error, str(abilities.bypass_error))
    fix = (
        "run as root in the initial user namespace (CAP_SYS_ADMIN)"
        if abilities.bypass_error == errno.EPERM and abilities.lacks_privilege
        else "Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH=y"
    )
    return Finding(
        "tier",
        "note",
        f"none (asked for a backing file: {reason})",
        "the daemon serves reads and writes",
        fix,
    )


def _dialect(abilities: Abilities) -> Finding:
    named = " or ".join(abilities.only_by_name)
    return Finding(
        "dialect",
        "ok",
        abilities.dialect,
        "how kernel and daemon speak of what bypasses",
        f"if you know that this kernel speaks it: inopt mount --abi {named}" if named else "",
    )


def _accepted(abilities: Abilities) -> Finding:
    names = [op.name for op in abilities.accepts]
    if names:
        return Finding("ops_mask", "ok", names, "the operations that a policy may leave to it")
    return Finding("ops_mask", "note", names, "nothing bypasses from lookup on", _HOW_TO_GET_MORE)


def _capability() -> Finding:
    if syscalls.has_capability(syscalls.CAP_SYS_ADMIN):
        return Finding("cap_sys_admin", "ok", True, "may mount and register backing files")
    return Finding(
        "cap_sys_admin",
        "problem",
        False,
        "may neither mount nor register backing files",
        "run as root (systemd: AmbientCapabilities=CAP_SYS_ADMIN; containers: --privileged)",
    )


def _descriptors() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard >= DEFAULT_BUDGET
    return Finding(
        "fd_limit",
        "ok" if enough else "note",
        hard,
        f"--fd-budget is {min(hard, DEFAULT_BUDGET)} by default and {hard} at most; "
        "only files open without bypass and open directories need one each",
        "" if enough else "raise the hard limit (ulimit -Hn; systemd: LimitNOFILE=)",
    )


def _backing_findings(path: str) -> Iterator[Finding]:
    try:
        facts = examine(path)
    except OSError as error:
        raise UsageError(f"'{path}': {error.strerror}: name a directory") from error
    yield Finding(
        "file_handles",
        "ok" if facts.file_handles else "note",
        facts.file_handles,
        "inodes are reopened at will, millions may be known"
        if facts.file_handles
        else "each known inode costs the daemon a descriptor",
        ""
        if facts.file_handles
        else "overlayfs: mount it with nfs_export=on; or raise --fd-budget",
    )
    yield Finding(
        "xattrs",
        "ok" if facts.xattrs else "note",
        facts.xattrs,
        "extended attributes work as on the backing filesystem",
        "" if facts.xattrs else "use a filesystem with extended attributes",
    )
    yield Finding(
        "acls",
        "ok" if facts.acls else "note",
        facts.acls,
        "POSIX ACLs are stored, inherited and enforced (unless -o noacl)"
        if facts.acls
        else "there are no POSIX ACLs to enforce",
        "" if facts.acls else "use a filesystem with ACLs, mounted with them",
    )
    yield _watch(path)
    yield _stack_depth(path)


def _watch(path: str) -> Finding:
    tree = Tree(path, SMALLEST_BUDGET)
    try:
        tree.watch, reason = open_watch(tree)
        found, how = tree.watch.kind, ""
        if reason:
            found, how = f"{found} ({reason})", ", directory by directory"
        told = "with cache: {coherence: notify} the kernel is told of them"
        return Finding("changes_underneath", "ok", found, told + how)
    except UsageError as error:
        return Finding(
            "changes_underneath",
            "note",
            f"not noticed: {error}",
            "they show when the cache times are over",
            "use a filesystem of this machine",
        )
    finally:
        tree.close()


def _stack_depth(path: str) -> Finding:
    descriptor = any_regular_file(path)
    if descriptor < 0:
        return Finding(
            "stack_depth", "note", "unknown", "there is no regular file to try", "name another PATH"
        )
    try:
        for depth in (1, 2):
            error = probe(descriptor, depth).bypass_error
            if error == 0:
                return Finding(
                    "stack_depth",
                    "ok" if depth == 1 else "note",
                    depth - 1,
                    "files here can bypass" if depth == 1 else "files here bypass at depth 2 only",
                    "" if depth == 1 else "mount with -o max_stack_depth=2",
                )
            if error != errno.ELOOP:
                break
    except (InoptError, OSError) as failed:
        return Finding("stack_depth", "note", "unknown", str(failed), "run as root")
    finally:
        os.close(descriptor)
    return Finding(
        "stack_depth",
        "note",
        errno.errorcode.get(error, str(error)),
        "files here do not bypass: the daemon serves them",
        "back the mount by a filesystem that is not stacked on others",
    )
