"""Which directories are layered, and how: from a command line, mount options, or a policy."""

from __future__ import annotations

import os
import re
from typing import Final, NoReturn

import msgspec

from inopt.exceptions import UsageError

_PART: Final = re.compile(r"((?:\\.|[^:\\])*)(?::|$)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
# What the kernel's overlayfs can do and inopt does not: only the value that turns it off.
_ONLY: Final = {
    "redirect_dir": ("off", "nofollow"),
    "metacopy": ("off",),
    "index": ("off",),
    "nfs_export": ("off",),
    "xino": ("off", "auto"),
    "uuid": ("off", "null", "auto"),
    "verity": ("off",),
}
_DATA_ONLY: Final = "datadir+"
_KEYS: Final = ("lowerdir", "upperdir", "workdir")
FLAGS: Final = ("userxattr", "volatile")
TEMPORARY: Final = "temporary"


class LayerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Layers by their paths.

    ``lower``: the topmost first. ``upper`` and ``work``: where changes go, and a directory beside
    it on the same filesystem; None for a read-only mount. ``user_marks``: marks are
    ``user.overlay.*``. ``volatile``: copies are not brought to stable storage before they show.
    ``temporary``: an upper layer is made for the mount, and removed with it.
    """

    lower: tuple[str, ...]
    upper: str | None = None
    work: str | None = None
    user_marks: bool = False
    volatile: bool = False
    temporary: bool = False

    @property
    def top(self) -> tuple[str, str]:
        """How the topmost layer is called on a command line, and its path."""
        return ("--lower", self.lower[0]) if self.upper is None else ("--upper", self.upper)


def split_lowers(text: str | None) -> list[str]:
    r"""The directories in a list like ``A:B``, as mount(8) has them; ``\:`` is a colon in a name.

    Raises `UsageError` for an empty one.
    """
    if not text:
        return []
    found = [_ESCAPED.sub(r"\1", part) for part in _PART.findall(text)]
    # The pattern also matches the nothing at the end.
    found = found[:-1] if found and not found[-1] and not text.endswith(":") else found
    if "" in found:
        raise UsageError(
            f"'{text}': an empty name among the lower layers: write L1:L2, the topmost first "
            "(data-only layers, after '::', are not read)"
        )
    return found


def is_layer_option(option: str) -> bool:
    """Whether an option of ``-o`` is about layers."""
    key = option.partition("=")[0]
    return key in _KEYS or key in _ONLY or key in FLAGS or key in ("lowerdir+", _DATA_ONLY)


class Wanted:
    """What has been asked for so far; later words win over earlier ones, except for lowers."""

    def __init__(self) -> None:
        self.lower: list[str] = []
        self.upper: str | None = None
        self.work: str | None = None
        self.flags: set[str] = set()

    def take(self, option: str) -> None:
        """Take an option of ``-o``. Raises `UsageError` for a feature that is not there."""
        key, _, value = option.partition("=")
        if key in FLAGS:
            self.flags.add(key)
        elif key in _ONLY:
            if value not in _ONLY[key]:
                raise UsageError(
                    f"-o {option}: inopt does not do this: leave it out, or use "
                    f"{key}={_ONLY[key][0]}"
                )
        elif key == _DATA_ONLY:
            _refuse(f"-o {option}", "inopt does not read data-only layers", "leave it out")
        elif not value:
            _refuse(f"-o {option}", "names no directory", "write " + key + "=DIRECTORY")
        elif key == "lowerdir":
            self.lower = split_lowers(value)
        elif key == "lowerdir+":
            self.lower.append(value)
        elif key == "upperdir":
            self.upper = value
        else:
            self.work = value

    def options(self, directory: str) -> LayerOptions | None:
        """The options, paths seen from *directory*; None if there are none.

        Raises `UsageError` for what does not go together.
        """
        if not (self.lower or self.upper or self.work):
            if self.flags:
                flag = min(self.flags)
                named = f"--{flag}" if flag == TEMPORARY else f"-o {flag}"
                _refuse(named, "there are no layers", "give --lower")
            return None
        if not self.lower:
            _refuse("--lower", "no lower directory is given", "give --lower DIRECTORY[:…]")
        temporary = TEMPORARY in self.flags
        if temporary and (self.upper or self.work):
            _refuse(
                "--temporary",
                f"there is --upper {self.upper}, which would be kept",
                "leave one of them out",
            )
        if self.upper is None and self.work is not None:
            _refuse(f"--work {self.work}", "means nothing without --upper", "leave it out")
        if self.upper is not None and self.work is None:
            _refuse(
                f"--upper {self.upper}",
                "needs a work directory",
                "give --work DIRECTORY, an empty one on the same filesystem",
            )
        for what, path in (("--upper", self.upper), ("--work", self.work)):
            if path == "":
                _refuse(what, "the path is empty", "name a directory")
        return LayerOptions(
            lower=tuple(os.path.join(directory, path) for path in self.lower),
            upper=None if self.upper is None else os.path.join(directory, self.upper),
            work=None if self.work is None else os.path.join(directory, self.work),
            user_marks="userxattr" in self.flags,
            volatile=temporary or "volatile" in self.flags,
            temporary=temporary,
        )


def _refuse(what: str, reason: str, way_out: str) -> NoReturn:
    raise UsageError(f"{what}: {reason}: {way_out}")
