"""Find and make the handler class that a policy names."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from inopt.exceptions import UsageError
from inopt.handlers.serve import Context, Serve
from inopt.ops import Op


class HandlerClass(Protocol):
    """What serves what does not bypass.

    ``opcodes``: those that it can serve.
    """

    opcodes: frozenset[Op]

    def __call__(self, context: Context, served: Sequence[Serve | None]) -> HandlerTable:
        """Make the handlers of one mount; *served* are the daemon's own functions by opcode."""
        ...


class HandlerTable(Protocol):
    """The handlers of one mount."""

    def table(self) -> list[Serve | None]:
        """The functions by opcode; None for what the class does not serve."""
        ...


def load_handlers(reference: str) -> HandlerClass:
    """Import the class that ``package.module:Class`` names.

    The working directory is searched first, as with ``python -m``. Raises `UsageError`.
    """
    module_name, _, class_name = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"handlers '{reference}': module '{module_name}' cannot be imported "
            f"({type(error).__name__}: {error}): install it, or run where it lies"
        ) from error
    found: Any = getattr(module, class_name, None)
    if not isinstance(found, type) or not isinstance(getattr(found, "opcodes", None), frozenset):
        raise UsageError(
            f"handlers '{reference}': '{class_name}' is no handler class of '{module_name}'"
        )
    return found  # type: ignore[return-value]
