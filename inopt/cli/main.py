"""The ``inopt`` command: exit code 2 for the user's mistake, 1 for ours, never a traceback."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from inopt._version import __version__
from inopt.exceptions import InoptError

_COMMANDS: Final = (
    "mount", "umount", "reload", "stats", "explain", "check", "doctor", "schema", "completion",
    "overlay",
)  # fmt: skip


class _Commands(click.Group):
    """A command is imported when it is asked for: some need much that the others do not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(f"inopt.cli.{cmd_name}"), cmd_name)
        return found


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: inopt mount mirror /srv/data /mnt && inopt stats /mnt",
)
@click.version_option(__version__, prog_name="inopt")
def inopt() -> None:
    """FUSE filesystems that stay out of the way: mount a directory under a policy."""


def main() -> None:
    """Run the command line and exit."""
    try:
        code = inopt.main(standalone_mode=False)
    except click.ClickException as error:
        where = (
            error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "inopt"
        )
        message = " ".join(error.format_message().split())
        _print(f"{message} (see '{where} --help')")
        code = 2
    except click.Abort:
        _print("interrupted")
        code = 1
    except InoptError as error:
        _print(str(error))
        code = error.exit_code
    except OSError as error:
        _print(f"{error.filename or 'system'}: {error.strerror or error}")
        code = 1
    except Exception as error:
        _print(f"this is a bug of inopt: {type(error).__name__}: {error}")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _print(message: str) -> None:
    for line in message.splitlines() or [""]:
        print("inopt: " + " ".join(line.split()), file=sys.stderr)  # noqa: T201
