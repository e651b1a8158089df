"""``inopt completion``: the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(epilog="Example: inopt completion bash > /etc/bash_completion.d/inopt")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    found = get_completion_class(shell)
    root = context.find_root()
    if found is not None:
        click.echo(found(root.command, {}, "inopt", "_INOPT_COMPLETE").source())
