"""``inopt stats``: what ran where."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from inopt.exceptions import UsageError
from inopt.kernel import mounts
from inopt.session import asking, places
from inopt.session.stats import ROUTES


@click.command(epilog="Example: inopt stats /mnt/data --json | jq .READ")
@click.argument("mountpoint", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def stats(mountpoint: str, as_json: bool) -> None:
    """Show what MOUNTPOINT's daemon served, by opcode and route, and what it holds.

    What the kernel serves by itself is not counted: it never reaches the daemon.
    """
    answer = asking.ask(control_path_of(mountpoint), "stats")
    if as_json:
        click.echo(msgspec.json.encode(answer))
    else:
        show(answer, Console(file=sys.stdout))


def control_path_of(mountpoint: str) -> str:
    """The control socket of a mountpoint. Raises `UsageError` if it is no mount of inopt."""
    real = mounts.locate(mountpoint)
    mounted = mounts.find_mount(real)
    if mounted is None or not mounts.is_inopt(mounted):
        raise UsageError(f"'{mountpoint}': not an inopt mount: see 'findmnt -t fuse.inopt'")
    if not places.is_alive(mounted):
        raise UsageError(
            f"'{mountpoint}': its daemon is gone: clear it with 'inopt umount {mountpoint}'"
        )
    return places.control_path(mounted.device_minor)


def show(answer: dict[str, Any], console: Console) -> None:
    """Print facts and counts as two tables."""
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in answer.items():
        if name.islower():
            facts.add_row(name.replace("_", " "), str(value))
    console.print(facts)
    console.print(counts_table(answer))


def counts_table(answer: dict[str, Any]) -> Table:
    """The opcodes that arrived, with their counts by route."""
    table = Table("opcode", *ROUTES, title="requests that reached the daemon")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in answer.items():
        if not name.islower() and any(counts.values()):
            table.add_row(name, *(str(counts[route] or "") for route in ROUTES))
    return table
