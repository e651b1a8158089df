"""``inopt doctor``: stub until the report exists."""

from __future__ import annotations

import click


@click.command()
def doctor() -> None:
    """Show what this machine can do."""
