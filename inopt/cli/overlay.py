"""``inopt overlay``: the tools for upper layers that are not mounted."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

import click

from inopt.cli.overlay_view import Progress, show_changes, show_findings, size_text
from inopt.exceptions import InoptError
from inopt.layers.format import Format
from inopt.layers.options import split_lowers
from inopt.layers.tools.below import Below, below_all
from inopt.layers.tools.checking import Check, check_work
from inopt.layers.tools.committing import Commit
from inopt.layers.tools.comparing import Change, Comparison
from inopt.layers.tools.entries import Layer, find_format
from inopt.layers.tools.exporting import Export
from inopt.layers.tools.findings import Finding, Level
from inopt.layers.tools.mounted import require_no_view, require_unused, users_of
from inopt.layers.tools.output import COMPRESSIONS, opened_archive
from inopt.layers.tools.places import (
    Directory,
    opened,
    require_apart,
    require_sight,
    shown,
)

# Of nested calls: several for each level of a tree, of which a path of 4095 bytes has 2047.
_DEPTH: Final = 8000

_lower = click.option(
    "--lower",
    metavar="L1:L2",
    help="The lower layers, the topmost first; a colon in a name is written '\\:'.",
)
_userxattr = click.option(
    "--userxattr/--trusted",
    "user",
    default=None,
    help="Its marks are user.overlay.* (or trusted.overlay.*). Default: as they are found.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="As one JSON object.")


class _Opened(NamedTuple):
    """What a command works on; ``below`` is None if no lower layer was given."""

    upper: Directory
    work: Directory | None
    lowers: tuple[Directory, ...]
    format: Format
    below: Below | None


@click.group(epilog="Example: inopt overlay diff /srv/build/upper --lower /srv/base")
def overlay() -> None:
    """Check, list, apply or pack the upper layer of an overlay: ours or the kernel's.

    Nothing needs to be mounted; better, nothing is.
    """


@overlay.command(epilog="Example: inopt overlay fsck /srv/build/upper --work /srv/build/work --fix")
@click.argument("upper", type=click.Path())
@_lower
@click.option("--work", type=click.Path(), help="The work directory that belongs to it.")
@click.option("--fix", is_flag=True, help="Mend what changes nothing that a mount shows.")
@_userxattr
@_as_json
@click.pass_context
def fsck(
    context: click.Context,
    upper: str,
    lower: str | None,
    work: str | None,
    fix: bool,
    user: bool | None,
    as_json: bool,
) -> None:
    """Tell whether the kernel takes the layer UPPER as it was meant.

    docs/overlay.md explains each code, and which of them --fix mends. Exits with 1 if errors or
    warnings remain.
    """
    with _open(upper, lower, user, work or "") as layers, Progress("checking") as progress:
        if fix:
            require_unused(layers.upper, "nothing can be mended under it")
            if layers.work is not None:
                require_unused(layers.work, "nothing can be mended under it")
        check = Check(
            layers.upper,
            layers.format,
            below=layers.below,
            lowers=layers.lowers,
            mend=fix,
            seen=progress.seen,
        )
        findings = list(check.upper())
        if layers.work is not None:
            findings += check_work(layers.work, layers.upper, mend=fix)
    left = [f for f in findings if not f.fixed and f.kind.level is not Level.NOTE]
    if as_json:
        _print_json(
            {
                "upper": upper,
                "ok": not left,
                "marks": layers.format.prefix,
                "findings": [_plain_finding(each) for each in findings],
            }
        )
    else:
        show_findings(upper, work or "", findings)
    if left:
        context.exit(1)


@overlay.command(epilog="Example: inopt overlay diff /srv/build/upper --lower /srv/base --json")
@click.argument("upper", type=click.Path())
@_lower
@_userxattr
@_as_json
def diff(upper: str, lower: str | None, user: bool | None, as_json: bool) -> None:
    """List what the layer UPPER changes: exactly with --lower, else as its marks tell it."""
    with _open(upper, lower, user) as layers, Progress("comparing") as progress:
        _warn_used(layers.upper)
        layer = Layer(layers.upper, layers.format)
        compared = Comparison(layer, layers.below, progress.seen, progress.told)
        changes = list(compared.changes())
    if as_json:
        counts = Counter(change.kind.value for change in changes)
        _print_json(
            {
                "upper": upper,
                "lower": split_lowers(lower),
                "exact": layers.below is not None,
                "counts": counts,
                "changes": [_plain_change(each) for each in changes],
            }
        )
    else:
        show_changes(changes, exact=layers.below is not None)


@overlay.command(epilog="Example: inopt overlay commit /srv/build/upper /srv/new --lower /srv/base")
@click.argument("upper", type=click.Path())
@click.argument("target", type=click.Path())
@_lower
@_userxattr
def commit(upper: str, target: str, lower: str | None, user: bool | None) -> None:
    """Apply the layer UPPER to TARGET, a copy of the tree that its lower layers make.

    Such a copy: cp -a --reflink=auto /srv/base /srv/new, or of a mount of the lower layers. A run
    that was cut short is completed by another one. --lower makes sure that TARGET is none of them.
    """
    with _open(upper, lower, user) as layers, closing(Directory(target, "target")) as place:
        require_apart(layers.upper, place, "the upper layer")
        for other in layers.lowers:
            require_apart(other, place, "the lower layer")
        require_no_view(place, (layers.upper, *layers.lowers))
        _warn_used(layers.upper)
        with Progress("applying") as progress:
            layer = Layer(layers.upper, layers.format)
            done = Commit(layer, place, progress.seen, progress.told).run()
    click.echo(
        f"{target}: {done.made} made, {done.removed} removed, {size_text(done.copied)} copied"
    )


@overlay.command(epilog="Example: inopt overlay export /srv/build/upper layer.tar.gz")
@click.argument("upper", type=click.Path())
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    help="Default: as FILE ends: .gz or .tgz, .zst, else none.",
)
@_userxattr
def export(upper: str, file: str, compression: str | None, user: bool | None) -> None:
    """Write the layer UPPER to FILE ('-': standard output) as an OCI image's layer.

    The same layer always makes the same bytes.
    """
    with _open(upper, None, user) as layers, Progress("packing") as progress:
        _warn_used(layers.upper)
        with opened_archive(file, compression, layers.upper) as write:
            layer = Layer(layers.upper, layers.format)
            run = Export(layer, write, progress.seen, progress.told)
            run.run()
    for path in run.skipped:
        click.echo(
            f"inopt: '{shown(path)}': a socket, which no archive can have: left out", err=True
        )


@contextmanager
def _open(upper: str, lower: str | None, user: bool | None, work: str = "") -> Iterator[_Opened]:
    """The layers that a command names. A tree that is too deep for us ends as an `InoptError`."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setrecursionlimit(max(_DEPTH, sys.getrecursionlimit()))
    with opened(upper, split_lowers(lower), work) as places:
        lowers = places[2:] if work else places[1:]
        chosen = find_format(places[0]) if user is None else Format(user=user)
        require_sight(places[0], chosen)
        below = below_all(lowers, chosen) if lowers else None
        try:
            yield _Opened(places[0], places[1] if work else None, lowers, chosen, below)
        except RecursionError as error:
            raise InoptError(
                f"'{upper}': directories more than 2000 deep: not to be done with this tool"
            ) from error


def _warn_used(place: Directory) -> None:
    users = users_of(place)
    if users:
        click.echo(
            f"inopt: '{place.path}': in use by the mount at '{users[0]}': what changes meanwhile "
            "may be missed",
            err=True,
        )


def _print_json(value: dict[str, Any]) -> None:
    # Bytes of a name that are no UTF-8 are written \udc80 to \udcff, as os.fsdecode has them.
    click.echo(json.dumps(value))


def _plain_finding(found: Finding) -> dict[str, Any]:
    return {
        "code": found.code,
        "name": found.kind.name,
        "level": found.kind.level.value,
        "where": "work" if found.in_work else "upper",
        "path": os.fsdecode(found.path) or ".",
        "reason": found.reason,
        "way_out": found.way,
        "fixable": found.kind.mends,
        "fixed": found.fixed,
    }


def _plain_change(change: Change) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "path": os.fsdecode(change.path) or ".",
        "kind": change.kind.value,
        "type": change.type or None,
    }
    if change.was:
        plain["was"] = change.was
    if change.fields:
        plain["fields"] = list(change.fields)
    if change.size >= 0:
        plain["size"] = change.size
    if change.size_before >= 0:
        plain["size_before"] = change.size_before
    return plain
