"""A policy with all that it includes, as one; it still knows where each part was written."""

from __future__ import annotations

import os
import stat
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from inopt.exceptions import UsageError
from inopt.policy.model import Cache, PolicyFile, Rule, listed
from inopt.policy.text.complain import checked
from inopt.policy.text.document import LARGEST_FILE, Document
from inopt.policy.text.problems import Place, PolicyError, Problems

_DEEPEST: Final = 16
_MERGED: Final = ("description", "require", "otherwise", "overlay", "handlers")


class Loaded(msgspec.Struct, frozen=True):
    """A policy merged from its files."""

    path: str
    policy: PolicyFile
    """What they say together: with the rules of all, and no includes."""
    documents: tuple[Document, ...]
    """One for each file: what an earlier one says wins over what a later one says."""

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files that it was made of, the main one first."""
        return tuple(document.path for document in self.documents)

    def place(self, *steps: str | int, key: bool = False) -> Place:
        """The place of a part of the merged policy: see `Document.place`."""
        main = self.documents[0]
        match steps:
            case ("rules", int(index), *rest) if index >= 0:
                for document in self.documents:
                    count = len(document.content.get("rules", ()))
                    if index < count:
                        return document.place("rules", index, *rest, key=key)
                    index -= count
                return main.place("rules", key=key)
            case ("cache", str(field), *_):
                return (self._giving("cache", field) or main).place(*steps, key=key)
            case (str(field), *_):
                return (self._giving(field) or main).place(*steps, key=key)
        return main.place(*steps, key=key)

    def _giving(self, *fields: str) -> Document | None:
        for document in self.documents:
            value: Any = document.content
            for field in fields:
                value = value.get(field) if isinstance(value, dict) else None
            if value is not None:
                return document
        return None


def shipped_policies() -> dict[str, Path]:
    """The policies that come with inopt, by name."""
    package = Path(str(resources.files("inopt")))
    for folder in (package / "shipped_policies", package.parent / "policies"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load_policy(name: str) -> Loaded:
    """Load a policy file, or a shipped policy by its name, and all that it includes.

    Raises `UsageError`, and `PolicyError` with the place of each mistake in the files.
    """
    path = name
    if not os.path.exists(name) and os.sep not in name:
        shipped = shipped_policies()
        if name not in shipped:
            raise UsageError(
                f"policy {name!r}: neither a file nor a shipped policy: "
                f"shipped are {', '.join(shipped) or 'none'}"
            )
        path = str(shipped[name])
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"policy {name!r}: cannot be read: {_reason(error)}") from error
    return parse_policy(data, path)


def parse_policy(data: bytes, path: str) -> Loaded:
    """Parse the bytes of a policy, and all that it includes, relative to *path*.

    Raises `PolicyError`.
    """
    loader = _Loader()
    loader.parse(data, path, [os.path.realpath(path)])
    if loader.problems:
        raise loader.problems.error()
    return Loaded(path, _merged(loader.parts), tuple(document for document, _ in loader.parts))


class _Loader:
    """Reads files, each once: where it stands first, nothing it says is overruled later."""

    def __init__(self) -> None:
        self.parts: list[tuple[Document, PolicyFile]] = []
        """What wins stands before what it wins over."""
        self.problems: Final = Problems()
        self._seen: set[str] = set()

    def parse(self, data: bytes, path: str, within: list[str]) -> None:
        """Parse a file, *within* those that include it and itself, by their real paths."""
        self._seen.add(within[-1])
        try:
            document = Document(data, path)
            policy = checked(document)
        except PolicyError as error:
            for problem in error.problems:
                self.problems.add(problem.place, problem.message)
            for _ in range(error.more):
                self.problems.count_another()
            return
        self.parts.append((document, policy))
        for index, name in reversed(list(enumerate(listed(policy.include)))):
            self._include(str(name), document.place("include", index), path, within)

    def _include(self, name: str, place: Place, including: str, within: list[str]) -> None:
        path = os.path.join(os.path.dirname(including), name)
        if not os.path.exists(path) and os.sep not in name:
            path = str(shipped_policies().get(name, path))
        try:
            real = os.path.realpath(path)
            data = b"" if real in self._seen else _read_file(path)
        except (OSError, ValueError) as error:
            shipped = ", ".join(shipped_policies()) or "none"
            self.problems.add(
                place,
                f"include: {name!r} cannot be read: {_reason(error)}: name a file relative to "
                f"this one, or a shipped policy ({shipped})",
            )
            return
        if real in within:
            chain = [*within[within.index(real) :], real]
            names = " includes ".join(repr(os.path.basename(each)) for each in chain)
            self.problems.add(place, f"include: {names}: remove one of these includes")
        elif len(within) >= _DEEPEST:
            self.problems.add(
                place, f"include: deeper than {_DEEPEST} files: include {name!r} higher up"
            )
        elif real not in self._seen:
            self.parse(data, path, [*within, real])


def _read_file(path: str) -> bytes:
    # Without O_NONBLOCK, a named pipe would keep us waiting for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        return file.read(LARGEST_FILE + 1)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _merged(parts: list[tuple[Document, PolicyFile]]) -> PolicyFile:
    """One policy of several, of which earlier ones win."""
    given: dict[str, Any] = {}
    cache: dict[str, Any] = {}
    rules: list[Rule] = []
    for document, policy in parts:
        for field in _MERGED:
            if field in document.content:
                given.setdefault(field, getattr(policy, field))
        for field in document.content.get("cache", ()):
            cache.setdefault(field, getattr(policy.cache, field))
        rules += policy.rules
    return PolicyFile(version=1, cache=Cache(**cache), rules=rules, **given)
