"""``inopt mount``: in the background by default, back in the shell when requests are served."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import click
import msgspec
import trio

from inopt.exceptions import InoptError, UsageError
from inopt.kernel.dialects import BY_NAME, Tier
from inopt.kernel.mounts import require_privilege
from inopt.layers.options import LayerOptions
from inopt.policy.load import load_policy, shipped_policies
from inopt.session import logs, places
from inopt.session.elsewhere import serve_on_pyfuse3
from inopt.session.layering import layers_for
from inopt.session.running import run
from inopt.session.settings import DEFAULT_BUDGET, DEFAULT_READERS, NO_SOURCE, Settings


class _Report(msgspec.Struct):
    """What a background daemon tells the shell that started it; code 0: it serves."""

    code: int
    message: str = ""


_Serve: TypeAlias = Callable[[Settings, Callable[[], None]], None]


def _complete_policy(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    return [name for name in shipped_policies() if name.startswith(incomplete)]


@click.command(epilog="Example: inopt mount mirror /srv/data /mnt/data -o noatime --fd-budget 8192")
@click.argument("policy", shell_complete=_complete_policy)
@click.argument("source", type=click.Path())
@click.argument("mountpoint", type=click.Path(), required=False)
@click.option(
    "--lower", metavar="DIR[:DIR…]", help="Read-only layers in place of SOURCE, the topmost first."
)
@click.option("--upper", metavar="DIR", help="The layer that changes go to.  [default: read-only]")
@click.option(
    "--work", metavar="DIR", help="An empty directory on the filesystem of --upper, for its use."
)
@click.option(
    "--temporary", is_flag=True, help="Changes go to a layer that is removed when unmounted."
)
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground, log to stderr.")
@click.option(
    "--tier",
    type=click.Choice(["auto", "none", "rw", "inode"]),
    default="auto",
    show_default=True,
    help="How much the kernel serves; auto is all it can, anything else is demanded.",
)
@click.option(
    "--abi",
    type=click.Choice(sorted(BY_NAME)),
    help="How to speak to the kernel, instead of finding out.",
)
@click.option(
    "-o", "options", multiple=True, metavar="OPT,…", help="Mount options, as of mount(8)."
)
@click.option(
    "--fd-budget",
    type=int,
    metavar="N",
    help=f"Descriptors the daemon may hold.  [default: {DEFAULT_BUDGET}]",
)
@click.option(
    "--readers",
    type=click.IntRange(1, 64),
    default=DEFAULT_READERS,
    show_default=True,
    help="Most reader threads; more than one only while one is stuck in a system call.",
)
@click.option(
    "--handlers",
    metavar="MODULE:CLASS",
    help="The class that serves what is handled.  [default: the policy's own]",
)
@click.option(
    "--transport",
    type=click.Choice(["kernel", "pyfuse3"]),
    default="kernel",
    show_default=True,
    help="Serve the kernel directly, or through pyfuse3: no privileges, no bypass.",
)
@click.option(
    "--handler-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Name a handler in the log that does not answer for so long.",
)
@click.option(
    "--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True
)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.option(
    "--log-file",
    type=click.Path(),
    help="Where a daemon in the background logs.  [default: beside the control socket]",
)
def mount(
    policy: str,
    source: str,
    mountpoint: str | None,
    lower: str | None,
    upper: str | None,
    work: str | None,
    temporary: bool,
    foreground: bool,
    tier: str,
    abi: str | None,
    options: tuple[str, ...],
    fd_budget: int | None,
    readers: int,
    handlers: str | None,
    transport: str,
    handler_timeout: float | None,
    log_format: str,
    log_level: str,
    log_file: str | None,
) -> None:
    """Mount SOURCE at MOUNTPOINT under POLICY (a file, or the name of a shipped policy).

    With layers there is no SOURCE: inopt mount POLICY MOUNTPOINT --lower DIR --upper DIR --work DIR
    """
    loaded = load_policy(policy)
    layers, mount_options = layers_for(
        loaded, options, lower=lower, upper=upper, work=work, temporary=temporary
    )
    source, mountpoint = _places(source, mountpoint, layers)
    settings = Settings(
        # Before the daemon changes its directory; an empty path stays one, to be refused.
        source=os.path.abspath(source) if source not in ("", NO_SOURCE) else source,
        mountpoint=os.path.abspath(mountpoint) if mountpoint else "",
        policy=loaded,
        tier=None if tier == "auto" else Tier[tier.upper()],
        abi=abi,
        options=mount_options,
        fd_budget=fd_budget,
        readers=readers,
        handlers=handlers,
        handler_timeout=handler_timeout,
        directory=os.getcwd(),
        layers=layers,
    )
    serve: _Serve = _run
    if transport == "pyfuse3":
        serve = serve_on_pyfuse3
    else:
        require_privilege()
    if foreground:
        logs.configure(sys.stderr, log_format, log_level)
        serve(settings, lambda: None)
    else:
        log_path = _writable_log(log_file) if log_file else None
        _run_in_background(serve, settings, log_path, log_format, log_level)


def _places(source: str, mountpoint: str | None, layers: LayerOptions | None) -> tuple[str, str]:
    """Source and mountpoint; with layers, the one place that is given is the mountpoint."""
    if layers is None:
        if mountpoint is None:
            raise click.MissingParameter(param_type="argument", param_hint="'MOUNTPOINT'")
        return source, mountpoint
    if mountpoint is not None:
        raise UsageError(
            f"source '{source}': layers are mounted in its place: give the mountpoint only"
        )
    return layers.upper or layers.lower[0], source


def _writable_log(path: str) -> str:
    """The absolute path of a log file. Raises `UsageError` while there is a shell to tell."""
    try:
        with open(path, "a", encoding="utf-8"):
            return os.path.abspath(path)
    except OSError as error:
        raise UsageError(f"--log-file '{path}': {error.strerror}: name a writable file") from error


def _run(settings: Settings, ready: Callable[[], None]) -> None:
    # Known inodes live long, by the hundred thousand, and refer to nothing that could refer back:
    # looking through them for cycles all the time would only stop the reader.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        trio.run(run, settings, ready)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that matters of those that ended the session together."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _run_in_background(
    serve: _Serve, settings: Settings, log_path: str | None, log_format: str, log_level: str
) -> None:
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        _wait_for_daemon(reading)
        return
    os.close(reading)
    _daemon(serve, settings, writing, log_path, log_format, log_level)


def _wait_for_daemon(reading: int) -> None:
    with os.fdopen(reading, "rb") as pipe:
        line = pipe.read()
    if not line:
        raise InoptError("the daemon died while starting: run again with --foreground to see why")
    report = msgspec.json.decode(line, type=_Report)
    if report.code == UsageError.exit_code:
        raise UsageError(report.message)
    if report.code:
        raise InoptError(report.message)


def _daemon(
    serve: _Serve,
    settings: Settings,
    writing: int,
    log_path: str | None,
    log_format: str,
    log_level: str,
) -> NoReturn:
    code = 0
    own_log = log_path is None
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        log_path = log_path or os.path.join(places.runtime_directory(), f"{os.getpid()}.log")
        with open(log_path, "a", buffering=1, encoding="utf-8") as log:
            os.chdir("/")
            logs.configure(log, log_format, log_level)

            def ready() -> None:
                os.write(writing, msgspec.json.encode(_Report(0)))
                os.close(writing)

            serve(settings, ready)
    except BaseException as error:
        code = error.exit_code if isinstance(error, InoptError) else 1
        message = (
            str(error) if isinstance(error, InoptError) else f"{type(error).__name__}: {error}"
        )
        try:
            os.write(writing, msgspec.json.encode(_Report(code, message)))
        except OSError:
            own_log = False  # it was serving already: the log tells what happened
            with open(log_path or os.devnull, "a", encoding="utf-8") as log:
                log.write(f"{message}\n")
    if own_log and log_path and os.path.exists(log_path):
        os.unlink(log_path)
    os._exit(code)
