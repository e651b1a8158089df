"""What a path leads to, for explaining what happens there: found in a tree, or made up.

A tree is walked one name at a time beneath a descriptor; no symbolic link is followed, and
nothing that a session counts is touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from inopt.backing.identity import attributes_of
from inopt.policy.compiled import CompiledPolicy, Position
from inopt.policy.facts import ReadXattr
from inopt.policy.paths.match import State
from inopt.policy.text.problems import shown
from inopt.wire.replies import Attributes

_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def _no_xattr(_name: str) -> bytes | None:
    return None


class Subject(msgspec.Struct, frozen=True):
    """An inode as far as it is known.

    ``name`` is empty for the root. ``state`` is that of the name by which it is asked about;
    ``position`` has the states of its other names, too. ``attributes`` is None for an inode that
    is not there: then nothing is known but its type, ``format``.
    """

    name: bytes
    state: State
    position: Position
    format: int
    attributes: Attributes | None = None
    xattr: ReadXattr = _no_xattr
    descriptor: int = -1

    @property
    def is_linked(self) -> bool:
        """Whether it has, or may have, further names."""
        links = self.attributes.links if self.attributes else 1
        return links > 1 and self.format != stat.S_IFDIR


def names_of(path: str) -> list[bytes]:
    """The names in a path that is relative to the root. Raises `ValueError` that says why not."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise ValueError("'..' could lead out of the tree: leave it out")
    if "\0" in path:
        raise ValueError("NUL is in no name")
    return [os.fsencode(name) for name in names]


def _open_last(above: int, names: Sequence[bytes]) -> int:
    return os.open(names[-1], _FLAGS, dir_fd=above)


@contextmanager
def walk(
    policy: CompiledPolicy,
    root: int,
    names: Sequence[bytes],
    opened: Callable[[int, Sequence[bytes]], int] = _open_last,
) -> Iterator[list[Subject]]:
    """What *names* lead to beneath a directory's descriptor, the root first.

    *opened* returns an ``O_PATH`` descriptor of what names lead to, seen from the root; it is also
    given one of what all of them but the last do. Ends at the first name that is not there. Raises
    `NotADirectoryError` for a name beneath something else, and other `OSError`. The descriptors
    are open while the body runs.
    """
    found: list[Subject] = []
    try:
        found.append(_subject(b"", policy.start, os.dup(root)))
        for number, name in enumerate(names, 1):
            above = found[-1]
            if above.format != stat.S_IFDIR:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            try:
                descriptor = opened(above.descriptor, names[:number])
            except FileNotFoundError:
                break
            found.append(_subject(name, above.state.step(name), descriptor))
        yield found
    finally:
        for subject in found:
            os.close(subject.descriptor)


def _subject(name: bytes, state: State, descriptor: int) -> Subject:
    def xattr(attribute: str) -> bytes | None:
        with suppress(OSError):
            return os.getxattr(f"/proc/self/fd/{descriptor}", attribute)
        return None

    try:
        attributes = attributes_of(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    format_ = stat.S_IFMT(attributes.mode)
    return Subject(name, state, state, format_, attributes, xattr, descriptor)


def make_up(
    policy: CompiledPolicy, found: Sequence[Subject], names: Sequence[bytes], format_: int
) -> list[Subject]:
    """*found*, and directories and an inode of *format_* for those *names* that are not there."""
    root = Subject(b"", policy.start, policy.start, stat.S_IFDIR)
    subjects = list(found) or [root]
    for number in range(len(subjects) - 1, len(names)):
        state = subjects[-1].state.step(names[number])
        last = number == len(names) - 1
        made = Subject(names[number], state, state, format_ if last else stat.S_IFDIR)
        subjects.append(made)
    return subjects


def path_text(names: Sequence[bytes]) -> str:
    """Names as a path from the root that can be printed."""
    text = "/" + b"/".join(names).decode(errors="backslashreplace")
    return text if text.isprintable() else shown(text)
