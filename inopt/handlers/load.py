"""Find the handler class that a policy names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import pyfuse3

from inopt.exceptions import UsageError


def load_handlers(reference: str, folders: Sequence[str] = ()) -> type[pyfuse3.Operations]:
    """Import the class that ``package.module:Class`` names.

    *folders* are searched, too: where the command was given, and where the policy lies. Raises
    `UsageError`.
    """
    module_name, _, class_name = reference.partition(":")
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"handlers '{reference}': module '{module_name}' cannot be imported "
            f"({type(error).__name__}: {error}): install it, or put it beside the policy"
        ) from error
    found: Any = getattr(module, class_name, None)
    if found is None:
        raise UsageError(f"handlers '{reference}': '{module_name}' has no '{class_name}'")
    if not isinstance(found, type) or not issubclass(found, pyfuse3.Operations):
        raise UsageError(f"handlers '{reference}': '{class_name}' is no subclass of inopt.Handlers")
    return found
