"""What ran where: every reply is counted by opcode and route.

What the kernel served by itself is seen as absence: a bypassed READ is one that is not counted.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from inopt.ops import OPCODE_LIMIT, Op

if TYPE_CHECKING:
    from inopt.handlers.serve import Context
    from inopt.kernel.negotiate import Terms

ROUTES: Final = ("daemon", "handler", "denied", "errors")


class Counts:
    """One reader's counts by opcode: no other thread writes them."""

    __slots__ = ("daemon", "denied", "errors", "handler")

    def __init__(self) -> None:
        self.daemon = [0] * OPCODE_LIMIT
        self.handler = [0] * OPCODE_LIMIT
        self.denied = [0] * OPCODE_LIMIT
        self.errors = [0] * OPCODE_LIMIT


def by_opcode(all_counts: list[Counts]) -> dict[str, dict[str, int]]:
    """The sums by opcode name; ``errors`` are those among the others that answered an errno."""
    return {
        op.name: {
            route: sum(getattr(counts, route)[op] for counts in all_counts) for route in ROUTES
        }
        for op in Op
    }


def snapshot(
    context: Context, terms: Terms, all_counts: list[Counts], started: float, readers: int
) -> dict[str, Any]:
    """Everything that ``inopt stats`` shows: facts in lower case, opcodes in upper case.

    *started* is of `time.monotonic`; times are in seconds.
    """
    tree, attached = context.tree, context.attachments.attached
    facts: dict[str, Any] = {
        "pid": os.getpid(),
        "uptime_seconds": round(time.monotonic() - started, 3),
        "tier": terms.tier.label,
        "dialect": terms.dialect.name,
        "protocol": f"7.{terms.minor}",
        "known_inodes": len(tree.table),
        "open_files": len(context.files),
        "open_directories": len(context.directories),
        "backing_ids": context.attachments.registered,
        "attached_inodes": attached.count if attached is not None else 0,
        "fds": len(os.listdir("/proc/self/fd")) - 1,
        "fd_budget": tree.descriptors.budget,
        "cached_descriptors": len(tree.descriptors),
        "file_handles": tree.has_handles,
        "readers": readers,
        "resident_bytes": _resident_bytes(),
    }
    return facts | by_opcode(all_counts)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
