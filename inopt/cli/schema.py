"""``inopt schema``: the JSON Schema of policies, for editors."""

from __future__ import annotations

import json

import click

from inopt.exceptions import UsageError
from inopt.policy.text import schema as policy_schema


@click.command(epilog="Example: inopt schema -o policy.schema.json")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Where to write it.")
def schema(output: str | None) -> None:
    """Print the JSON Schema of policies (draft 7), for editors that complete and check YAML."""
    text = json.dumps(policy_schema.schema(), indent=2, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from error
