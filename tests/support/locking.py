"""Mounts that serve locks, in each way in which they can be served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.clients import TESTS, Client
from support.mounting import Mount, mounted

EVERYWHERE: Final = "version: 1\nhandlers: support.lockers:{name}\nrules: [{{handle: locks}}]\n"
NOWHERE: Final = (
    "version: 1\nhandlers: support.lockers:{name}\n"
    "rules: [{{match: {{path: '*.none', type: file}}, handle: locks}}]\n"
)
# How the mount serves locks: class, policy, and who is counted as serving them.
WAYS: Final = {
    "async": ("Locks", EVERYWHERE, "handler"),
    "plain": ("PlainLocks", EVERYWHERE, "handler"),
    "daemon": ("Locks", NOWHERE, "daemon"),
    "own": ("KeepsItsOwn", EVERYWHERE, "handler"),
    "own-plain": ("KeepsItsOwnPlain", EVERYWHERE, "handler"),
}


@contextmanager
def locking(place: Path, name: str, policy: str, *arguments: str) -> Iterator[Mount]:
    path = place / "policy.yaml"
    path.write_text(policy.format(name=name))
    environment = {"PYTHONPATH": str(TESTS)}
    with mounted(
        place / "back", place / "mnt", *arguments, policy=path, environment=environment
    ) as mount:
        yield mount


def on_both_sides(mount: Mount, people: Any) -> tuple[Client, Client]:
    """A client of the mount and one of the bare tree, each with the file open."""
    inside, outside = people.get("user"), people.get("member")
    for client, path in ((inside, mount.path), (outside, mount.source)):
        client.enter(os.fsencode(path))
        client.open("f", b"f", os.O_RDWR)
    return inside, outside
