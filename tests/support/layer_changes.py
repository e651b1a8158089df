"""What differs between two views: what ``inopt overlay diff`` must say."""

from __future__ import annotations

import stat
from typing import Any

Change = tuple[str, str, tuple[str, ...]]
"""Path, kind and fields, as ``inopt overlay diff --json`` has them."""


def expected_changes(
    before: dict[bytes, dict[str, Any]], after: dict[bytes, dict[str, Any]]
) -> set[Change]:
    """The changes from one view (`support.kernel_layers.view`) to another."""
    expected: set[Change] = set()
    for path in before.keys() | after.keys():
        name = path.decode("utf-8", "surrogateescape")
        old, new = before.get(path), after.get(path)
        if old is None:
            expected.add((name, "added", ()))
        elif new is None:
            above = after.get(path.rpartition(b"/")[0] or b".")
            was = before[path.rpartition(b"/")[0] or b"."]
            if above is not None and stat.S_ISDIR(above["mode"]) and stat.S_ISDIR(was["mode"]):
                expected.add((name, "removed", ()))
        elif stat.S_IFMT(old["mode"]) != stat.S_IFMT(new["mode"]):
            expected.add((name, "replaced", ()))
        else:
            fields = changed_fields(old, new)
            if fields:
                kind = "modified" if fields[0] == "contents" else "metadata"
                expected.add((name, kind, fields))
    return expected


def changed_fields(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    """In the order in which diff tells them."""
    is_directory = stat.S_ISDIR(old["mode"])
    keys = {
        "contents": ("bytes", "target", "rdev"),
        "mode": ("mode",),
        "owner": ("uid", "gid"),
        "mtime": () if is_directory else ("mtime",),
        "xattrs": ("xattrs",),
    }
    return tuple(
        field
        for field, compared in keys.items()
        if any(old.get(key) != new.get(key) for key in compared)
    )


def told_changes(answer: dict[str, Any]) -> set[Change]:
    """Those that ``inopt overlay diff --json`` has answered, each of which it tells once."""
    found = {
        (change["path"], change["kind"], tuple(change.get("fields", ())))
        for change in answer["changes"]
    }
    assert len(found) == len(answer["changes"])
    return found
