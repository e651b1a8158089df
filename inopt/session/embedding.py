"""Mounts inside of other programs: `mount` in a trio program, `run` as all a program does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pyfuse3
import trio

from inopt.exceptions import UsageError
from inopt.handlers.base import Handlers
from inopt.handlers.running import overridden
from inopt.kernel.dialects import Tier
from inopt.policy.load import Loaded, load_policy, parse_policy
from inopt.session.layering import layers_for
from inopt.session.mounting import mounted
from inopt.session.running import run as run_session
from inopt.session.session import Session
from inopt.session.settings import NO_SOURCE, OF_THE_HANDLERS, Settings


def settings_for(
    handlers: pyfuse3.Operations | None,
    source: str | os.PathLike[str] | None,
    mountpoint: str | os.PathLike[str],
    *,
    policy: str | os.PathLike[str] | None = None,
    tier: str | None = None,
    abi: str | None = None,
    options: str = "",
    fd_budget: int | None = None,
    handler_timeout: float | None = None,
) -> Settings:
    """The settings of a mount, from what programs give. Raises `UsageError`.

    *policy* is a file's path, the name of a shipped policy, or the YAML itself if it has several
    lines; without one, all that the class of *handlers* overrides is handled, and all else
    bypasses. Without *source* there is no backing tree, unless *options* (``lowerdir=…``) or the
    policy name layers. *tier* and *abi* are those of the command line; without them, the best that
    the kernel has.
    """
    loaded = _policy_for(handlers, policy)
    layers, mount_options = layers_for(loaded, (options,) if options else ())
    if layers is not None:
        if source is not None:
            raise UsageError(f"source '{os.fspath(source)}': layers are mounted in its place")
        source = layers.upper or layers.lower[0]
    return Settings(
        source=NO_SOURCE if source is None else os.path.abspath(source),
        mountpoint=os.path.abspath(mountpoint),
        policy=loaded,
        tier=None if tier is None else Tier[tier.upper()],
        abi=abi,
        options=mount_options,
        fd_budget=fd_budget,
        handlers_object=handlers,
        handler_timeout=handler_timeout,
        directory=os.getcwd(),
        layers=layers,
    )


def _policy_for(
    handlers: pyfuse3.Operations | None, policy: str | os.PathLike[str] | None
) -> Loaded:
    if policy is not None:
        text = os.fspath(policy)
        if "\n" in text:
            return parse_policy(text.encode(), "policy")
        return load_policy(text)
    lines = ["version: 1"]
    if isinstance(handlers, Handlers):
        names = sorted(overridden(type(handlers)))
        lines.append(f"rules: [{{handle: [{', '.join(names)}]}}]")
    return parse_policy("\n".join(lines).encode(), OF_THE_HANDLERS)


@asynccontextmanager
async def mount(
    mountpoint: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    handlers: pyfuse3.Operations | None = None,
    policy: str | os.PathLike[str] | None = None,
    tier: str | None = None,
    abi: str | None = None,
    options: str = "",
    fd_budget: int | None = None,
    handler_timeout: float | None = None,
) -> AsyncIterator[Session]:
    """Mount *source* at *mountpoint*, serve it while the body runs, and unmount.

    Parameters are those of ``inopt mount``; see `settings_for`. Raises `UsageError` for what the
    caller can mend and `InoptError` for the rest. The program must not use the mount from the
    thread that runs trio: it would wait for itself.
    """
    settings = settings_for(
        handlers,
        source,
        mountpoint,
        policy=policy,
        tier=tier,
        abi=abi,
        options=options,
        fd_budget=fd_budget,
        handler_timeout=handler_timeout,
    )
    async with mounted(settings) as session:
        yield session


def run(
    handlers: pyfuse3.Operations | None,
    mountpoint: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    policy: str | os.PathLike[str] | None = None,
    tier: str | None = None,
    abi: str | None = None,
    options: str = "",
    fd_budget: int | None = None,
    handler_timeout: float | None = None,
) -> None:
    """Mount and serve until unmounted, or until SIGINT or SIGTERM; see `mount`."""
    settings = settings_for(
        handlers,
        source,
        mountpoint,
        policy=policy,
        tier=tier,
        abi=abi,
        options=options,
        fd_budget=fd_budget,
        handler_timeout=handler_timeout,
    )
    trio.run(run_session, settings, lambda: None)
