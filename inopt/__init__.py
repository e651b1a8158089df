"""FUSE filesystems that stay out of the way.

What a program may import is here, in `inopt.policy`, `inopt.handlers` and `inopt.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inopt._version import __version__ as __version__
from inopt.exceptions import InoptError as InoptError
from inopt.exceptions import UsageError as UsageError

if TYPE_CHECKING:
    from pyfuse3 import RequestContext as RequestContext
    from pyfuse3 import SetattrFields as SetattrFields

    from inopt.handlers.base import Handlers as Handlers
    from inopt.handlers.directory import readdir_reply as readdir_reply
    from inopt.handlers.reach import Backing as Backing
    from inopt.handlers.reach import SessionReach as SessionReach
    from inopt.handlers.types import EntryAttributes as EntryAttributes
    from inopt.handlers.types import FileInfo as FileInfo
    from inopt.handlers.types import FUSEError as FUSEError
    from inopt.handlers.types import Lock as Lock
    from inopt.handlers.types import PollHandle as PollHandle
    from inopt.handlers.types import StatvfsData as StatvfsData
    from inopt.handlers.types import plain as plain
    from inopt.session.elsewhere import run_pyfuse3 as run_pyfuse3
    from inopt.session.embedding import mount as mount
    from inopt.session.embedding import run as run
    from inopt.session.session import Session as Session

# Found when first asked for: the command line starts faster without them.
_PLACES = {
    "Handlers": ("inopt.handlers.base", "Handlers"),
    "Backing": ("inopt.handlers.reach", "Backing"),
    "EntryAttributes": ("inopt.handlers.types", "EntryAttributes"),
    "FUSEError": ("inopt.handlers.types", "FUSEError"),
    "FileInfo": ("inopt.handlers.types", "FileInfo"),
    "Lock": ("inopt.handlers.types", "Lock"),
    "PollHandle": ("inopt.handlers.types", "PollHandle"),
    "RequestContext": ("pyfuse3", "RequestContext"),
    "SetattrFields": ("pyfuse3", "SetattrFields"),
    "StatvfsData": ("inopt.handlers.types", "StatvfsData"),
    "SessionReach": ("inopt.handlers.reach", "SessionReach"),
    "Session": ("inopt.session.session", "Session"),
    "mount": ("inopt.session.embedding", "mount"),
    "plain": ("inopt.handlers.types", "plain"),
    "readdir_reply": ("inopt.handlers.directory", "readdir_reply"),
    "run": ("inopt.session.embedding", "run"),
    "run_pyfuse3": ("inopt.session.elsewhere", "run_pyfuse3"),
}
__all__ = ["InoptError", "UsageError", "__version__", *_PLACES]  # noqa: PLE0604 - all are names


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'inopt' has no attribute '{name}'")
    import importlib  # noqa: PLC0415 - only when it is needed

    module, attribute = _PLACES[name]
    found: object = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found
