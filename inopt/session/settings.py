"""What to mount, where and how."""

from __future__ import annotations

from typing import Final

import msgspec
import pyfuse3

from inopt.kernel.dialects import Tier
from inopt.kernel.options import MountOptions
from inopt.layers.options import LayerOptions
from inopt.policy.load import Loaded

DEFAULT_BUDGET: Final = 4096
DEFAULT_READERS: Final = 8
NO_SOURCE: Final = "-"
OF_THE_HANDLERS: Final = "policy of the handlers"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What to mount, where and how.

    ``abi`` names a dialect, None for the best there is. ``fd_budget`` is how many descriptors the
    daemon may hold, None for the default or the system's limit, whichever is less. ``readers`` is
    the largest number of reader threads. ``handlers`` names a class in place of the policy's own,
    ``handlers_object`` is one that is made already. ``handler_timeout``: seconds after which a
    handler that does not answer is named in the log. ``directory`` is where handler classes are
    searched, beside the policy's own. ``layers``: what takes the source's place.
    """

    source: str
    mountpoint: str
    policy: Loaded
    tier: Tier | None = None
    abi: str | None = None
    options: MountOptions = MountOptions()
    fd_budget: int | None = None
    readers: int = DEFAULT_READERS
    handlers: str | None = None
    handlers_object: pyfuse3.Operations | None = None
    handler_timeout: float | None = None
    directory: str = "/"
    layers: LayerOptions | None = None
