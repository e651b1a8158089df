"""Which layers a mount has: by the command line or mount options, else by the policy."""

from __future__ import annotations

import os

from inopt.exceptions import UsageError
from inopt.kernel.options import MountOptions, parse_options
from inopt.layers.options import (
    FLAGS,
    TEMPORARY,
    LayerOptions,
    Wanted,
    is_layer_option,
    split_lowers,
)
from inopt.policy.load import Loaded
from inopt.policy.model import listed


def layers_for(
    loaded: Loaded,
    options: tuple[str, ...],
    *,
    lower: str | None = None,
    upper: str | None = None,
    work: str | None = None,
    temporary: bool = False,
) -> tuple[LayerOptions | None, MountOptions]:
    """The layers that are asked for, None if none are, and all other options of ``-o``.

    What the command line says takes the place of what the policy says.
    """
    wanted = Wanted()
    others = []
    for option in ",".join(options).split(","):
        if is_layer_option(option):
            wanted.take(option)
        elif option:
            others.append(option)
    wanted.lower = wanted.lower if lower is None else split_lowers(lower)
    wanted.upper = upper if upper is not None else wanted.upper
    wanted.work = work if work is not None else wanted.work
    if temporary:
        wanted.flags.add(TEMPORARY)
    directory = os.getcwd()
    in_policy = loaded.policy.overlay
    if in_policy is not None and not (wanted.lower or wanted.upper or wanted.work):
        directory = os.path.dirname(os.path.abspath(loaded.place("overlay").path))
        wanted.lower = [str(path) for path in listed(in_policy.lower)]
        wanted.upper, wanted.work = in_policy.upper, in_policy.work
    if in_policy is not None:
        if not (wanted.lower or wanted.upper or wanted.work):
            raise UsageError(
                f"{loaded.place('overlay')}: layers are to be mounted, and none are named: give "
                "--lower, or 'lower' in the policy"
            )
        wanted.flags |= {flag for flag in (*FLAGS, TEMPORARY) if getattr(in_policy, flag)}
    layers = wanted.options(directory)
    if layers is not None and layers.upper is None and not layers.temporary:
        others.append("ro")
    return layers, parse_options(tuple(others))
