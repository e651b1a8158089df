"""``inopt reload``: another policy, or the same file again, for a live mount."""

from __future__ import annotations

import os
from typing import Final

import click
import msgspec

from inopt.cli.stats import control_path_of
from inopt.policy.load import load_policy
from inopt.session import asking

_PATIENCE: Final = 120.0  # seconds: a daemon that knows millions of inodes tells of each


@click.command(epilog="Example: inopt reload /mnt/data stricter.yaml")
@click.argument("mountpoint", type=click.Path())
@click.argument("policy", required=False)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def reload(mountpoint: str, policy: str | None, as_json: bool) -> None:
    """Put MOUNTPOINT under POLICY (a file, or the name of a shipped policy) without unmounting.

    Without POLICY, the mount's own policy file is read again, as on SIGHUP. A policy that is not
    in order changes nothing. Files that are open keep what they were opened under.
    """
    path = control_path_of(mountpoint)
    chosen = os.path.abspath(load_policy(policy).path) if policy else None
    report = asking.ask(path, "reload", _PATIENCE, policy=chosen)
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"{report['mountpoint']}: now under {report['policy']}")
    if report["on_old_plan"]:
        click.echo(
            f"{report['on_old_plan']} open inodes keep the earlier policy until they are closed"
        )
