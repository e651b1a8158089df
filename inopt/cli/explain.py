"""``inopt explain``: who serves what, by which rule in which line, and why.

With ``--json`` one object: ``policy`` (its path), ``tier``, ``tier_from`` (``asked``, ``kernel``,
``assumed``, ``mount``), ``notes``; with paths ``paths``, a list of `Report`
(`inopt.policy.explaining.report`); without, ``columns`` and ``rows`` of `Matrix`
(`inopt.policy.explaining.matrix`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from inopt.cli.explain_view import show_matrix, show_reports, view
from inopt.cli.stats import control_path_of
from inopt.exceptions import InoptError, UsageError
from inopt.handlers.load import load_handlers
from inopt.handlers.running import served_by
from inopt.kernel.dialects import Tier
from inopt.kernel.probe import probe
from inopt.ops import Op, OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.explaining.identity import Identity, parse_identity
from inopt.policy.explaining.matrix import matrix
from inopt.policy.explaining.report import Report, report_on
from inopt.policy.explaining.subjects import Subject, make_up, names_of, path_text, walk
from inopt.policy.facts import TYPES
from inopt.policy.linting.findings import Level
from inopt.policy.linting.linter import lint
from inopt.policy.load import Loaded, load_policy, shipped_policies
from inopt.policy.rules import compile_rules
from inopt.session import asking

# What the drafts of inode-operations passthrough (2026, version 2) take in an ops_mask.
_DRAFT = OpsMask.of(Op.GETATTR, Op.STATX, Op.SETATTR, Op.READDIR)

_LONGEST_PATH = 4096  # PATH_MAX


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for on the command line, beside paths and output."""

    tier: Tier | None
    caller: str | None
    type_name: str | None
    source: str | None


def _complete(context: click.Context, _parameter: Any, incomplete: str) -> list[str]:
    if context.params.get("mountpoint"):
        return []
    return [name for name in shipped_policies() if name.startswith(incomplete)]


@click.command(
    epilog="Example: inopt explain mirror /etc/passwd --tier none --caller nobody",
)
@click.argument("names", nargs=-1, metavar="[POLICY] [PATH]...", shell_complete=_complete)
@click.option("--mount", "mountpoint", type=click.Path(), help="Ask this live mount; no POLICY.")
@click.option(
    "--tier",
    type=click.Choice(["none", "rw", "inode"]),
    help="What the kernel can bypass.  [default: what this one can]",
)
@click.option("--caller", metavar="USER[:GROUP]", help="Who asks, by name or number.")
@click.option(
    "--type",
    "type_name",
    type=click.Choice(list(TYPES)),
    help="Of a PATH that is not there.  [default: file; directory with a slash at the end]",
)
@click.option("--source", type=click.Path(), help="The tree in which to look PATH up.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--html", type=click.Path(), metavar="FILE", help="Write the report to FILE, too.")
@click.option("--svg", type=click.Path(), metavar="FILE", help="Write it as a picture, too.")
def explain(
    names: tuple[str, ...],
    mountpoint: str | None,
    tier: str | None,
    caller: str | None,
    type_name: str | None,
    source: str | None,
    as_json: bool,
    html: str | None,
    svg: str | None,
) -> None:
    """Show who serves each operation on PATH (seen from the source's root) under POLICY.

    Each line says whether kernel, daemon or handler serves it, or what it is refused with; the
    rule and the place in the policy that decide; and the reason if the kernel does not serve what
    is bypassed. Without PATH, all rules are shown by all operations.
    """
    request = _Request(
        tier=None if tier is None else Tier[tier.upper()],
        caller=caller,
        type_name=type_name,
        source=source,
    )
    if mountpoint is not None:
        answer = _of_mount(mountpoint, names, request)
    else:
        answer = _of_policy(names, request)
    # Unwritable files are found out about before anything is shown.
    view(
        lambda console: (
            show_reports(answer, console) if "paths" in answer else show_matrix(answer, console)
        ),
        quiet=as_json,
        html=html,
        svg=svg,
    )
    if as_json:
        click.echo(msgspec.json.encode(answer))


# --- under a policy ----------------------------------------------------------------------------


def _of_policy(names: Sequence[str], request: _Request) -> dict[str, Any]:
    if not names:
        raise UsageError("explain: name a POLICY, or a mount by --mount (see 'inopt explain -h')")
    loaded = load_policy(names[0])
    rules = compile_rules(loaded)
    tier, kernel, tier_from, notes = _tier(request.tier)
    required = Tier[loaded.policy.require.upper()]
    if tier < required:
        notes.append(
            f"the policy requires tier '{required.label}': it is not mounted with '{tier.label}'"
        )
    handled = _handled(loaded, notes)
    errors = [each for each in lint(rules, handled) if each.level is Level.ERROR]
    if errors:
        notes.append(f"it cannot be mounted as it is: see 'inopt check' ({errors[0].code})")
    answer: dict[str, Any] = {
        "policy": loaded.path, "tier": tier.label, "tier_from": tier_from, "notes": notes,
    }  # fmt: skip
    if not names[1:]:
        _refuse(request, "without a PATH", "caller", "type_name", "source")
        return answer | msgspec.structs.asdict(matrix(rules))
    policy = CompiledPolicy(
        rules,
        reads_and_writes=tier >= Tier.RW,
        kernel=kernel,
    )
    caller = None if request.caller is None else parse_identity(request.caller)
    reports = [_report(policy, path, request, caller, handled) for path in names[1:]]
    return answer | {"paths": reports}


def _refuse(request: _Request, why: str, *fields: str) -> None:
    for field in fields:
        if getattr(request, field) is not None:
            name = field.removesuffix("_name")
            raise UsageError(f"--{name}: means nothing {why}: leave it out")


def _tier(asked: Tier | None) -> tuple[Tier, OpsMask, str, list[str]]:
    """The tier, what masks may have in it, whence that is known, and what to say of it."""
    if asked is None and os.environ.get("INOPT_NO_BYPASS", "") not in ("", "0"):
        return Tier.NONE, OpsMask(), "asked", ["INOPT_NO_BYPASS is set"]
    if asked is not None and asked is not Tier.INODE:
        return asked, OpsMask(), "asked", []
    abilities, reason = None, ""
    try:
        abilities = probe()
    except (InoptError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if abilities is not None and abilities.tier is Tier.INODE:
        return Tier.INODE, abilities.accepts, "asked" if asked else "kernel", []
    if asked is Tier.INODE:
        ops = ", ".join(op.name.lower() for op in _DRAFT)
        return asked, _DRAFT, "asked", [f"tier inode as drafted (this kernel lacks it): {ops}"]
    if abilities is None:
        notes = [f"tier rw is assumed: the kernel cannot be asked ({reason})"]
        return Tier.RW, OpsMask(), "assumed", notes
    if abilities.can_bypass:
        return Tier.RW, OpsMask(), "kernel", []
    if abilities.bypass_error == errno.EPERM and abilities.lacks_privilege:
        notes = ["tier rw, as root has it: you may not register backing files"]
        return Tier.RW, OpsMask(), "assumed", notes
    return Tier.NONE, OpsMask(), "kernel", ["this kernel has no bypass: see 'inopt doctor'"]


def _handled(loaded: Loaded, notes: list[str]) -> frozenset[int] | None:
    """The opcodes that the handlers serve; None if there are no handlers."""
    reference = loaded.policy.handlers
    if reference is None:
        return None
    try:
        folders = (os.getcwd(), os.path.dirname(os.path.abspath(loaded.path)))
        return served_by(load_handlers(reference, folders))
    except UsageError as error:
        notes.append(f"taken to serve everything: {error}")
        return frozenset(Op)


def _report(
    policy: CompiledPolicy,
    path: str,
    request: _Request,
    caller: Identity | None,
    handled: frozenset[int] | None,
) -> Report:
    try:
        names = names_of(path)
    except ValueError as error:
        raise UsageError(f"path '{path}': {error}") from error
    guess = "directory" if path.endswith("/") else "file"
    format_ = TYPES[request.type_name or guess]
    if request.source is None:
        return _checked(policy, path, make_up(policy, [], names, format_), request, caller, handled)
    try:
        root = os.open(request.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--source '{request.source}': {reason}: name a directory") from error
    try:
        with walk(policy, root, names) as found:
            subjects = make_up(policy, found, names, format_)
            return _checked(policy, path, subjects, request, caller, handled)
    except OSError as error:
        raise UsageError(
            f"path '{path}': {error.strerror} beneath {request.source}: name what is there"
        ) from error
    finally:
        os.close(root)


def _checked(
    policy: CompiledPolicy,
    path: str,
    subjects: Sequence[Subject],
    request: _Request,
    caller: Identity | None,
    handled: frozenset[int] | None,
) -> Report:
    report = report_on(policy, subjects, caller, handled)
    subject = subjects[-1]
    wanted = request.type_name
    if wanted is not None and TYPES[wanted] != subject.format:
        raise UsageError(f"--type {wanted}: '{path}' is a {report.type}: leave --type out")
    if path.endswith("/") and wanted is None and subject.format != stat.S_IFDIR:
        raise UsageError(f"path '{path}': is a {report.type}: leave the slash at its end out")
    return report


# --- in a live mount ---------------------------------------------------------------------------


def _of_mount(mountpoint: str, paths: Sequence[str], request: _Request) -> dict[str, Any]:
    _refuse(request, "with --mount", "tier", "type_name", "source")
    if not paths:
        raise UsageError("--mount: name a PATH in the mount, too")
    socket = control_path_of(mountpoint)
    answers = [
        asking.ask(socket, "explain", path=_inside(mountpoint, path), caller=request.caller)
        for path in paths
    ]
    return {
        "policy": answers[0]["policy"],
        "tier": answers[0]["tier"],
        "tier_from": "mount",
        "notes": [],
        "paths": [msgspec.convert(answer["path"], Report) for answer in answers],
    }


def _inside(mountpoint: str, path: str) -> str:
    """*path* relative to the mountpoint: absolute paths must lie in it, others begin there."""
    inside = os.path.normpath(path)
    if os.path.isabs(path):
        for root in (os.path.abspath(mountpoint), os.path.realpath(mountpoint)):
            if inside == root or inside.startswith(root.rstrip("/") + "/"):
                inside = os.path.relpath(inside, root)
                break
    if os.path.isabs(inside) or inside.split("/")[0] == ".." or not path:
        raise UsageError(f"path '{path}': not in the mount {mountpoint}: name what is in it")
    if len(os.fsencode(inside)) >= _LONGEST_PATH:
        raise UsageError(f"path '{path[:40]}...': {os.strerror(errno.ENAMETOOLONG)}: name less")
    try:
        inside.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"path {path_text([os.fsencode(inside)])}: not UTF-8: explain it by its policy"
        ) from None
    return inside
