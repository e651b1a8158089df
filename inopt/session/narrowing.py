"""A new policy against what the kernel serves by itself already (tier inode).

A mask that the kernel has been given with an inode holds until it forgets the inode. So where the
new policy allows less, the kernel is asked to forget; what is in use stays, and then the policy is
refused rather than not enforced.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import structlog

from inopt.backing.attached import attached_to
from inopt.backing.inodes import Inode
from inopt.exceptions import UsageError
from inopt.handlers.serve import Context
from inopt.kernel.device import Device
from inopt.kernel.negotiate import Terms
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.plan import NEEDED
from inopt.wire import notifications

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_PRUNE_MINOR: Final = 45
_AT_ONCE: Final = 1000  # nodeids in one notification
_PATIENCE: Final = 2.0  # seconds in which nothing more is forgotten, before giving up
_NAMED: Final = 3


def make_room(context: Context, device: Device, terms: Terms, policy: CompiledPolicy) -> int:
    """Let the kernel forget every inode of which *policy* lets it serve less than it does.

    Returns how many there were. Raises `UsageError` if one stays. Must not be called by a reader,
    and while nothing new is attached.
    """
    if not _may_narrow(policy):
        return 0
    too_wide = [
        inode for inode in context.tree.table.snapshot() if _is_too_wide(context, policy, inode)
    ]
    if not too_wide:
        return 0
    left = too_wide
    if terms.minor >= _PRUNE_MINOR:
        left = _evict(context, device, too_wide)
    if left:
        raise UsageError(_refusal(context, policy, left))
    return len(too_wide)


def _may_narrow(policy: CompiledPolicy) -> bool:
    """Whether any rule has a say about what the kernel may serve by itself, or about opens."""
    touched = policy.touched
    slots = {int(slot) for needed in NEEDED.values() for slot in needed}
    return policy.hides or not touched.isdisjoint(slots)


def _is_too_wide(context: Context, policy: CompiledPolicy, inode: Inode) -> bool:
    attached = attached_to(inode)
    if attached is None or inode is context.tree.root:  # the root's is asked for at each OPENDIR
        return False
    with context.tree.descriptors.use():
        plan = context.placement.plan_under(policy, inode)
    return plan is None or bool(attached.mask - plan.allowed)


def _evict(context: Context, device: Device, inodes: list[Inode]) -> list[Inode]:
    """Ask the kernel to forget them; returns those that it has not forgotten."""
    # What is below a directory keeps it in memory, so all that is known must go with it.
    everything = [inode.nodeid for inode in context.tree.table.snapshot()][1:]
    left, deadline = inodes, time.monotonic() + _PATIENCE
    while left and time.monotonic() < deadline:
        for start in range(0, len(everything), _AT_ONCE):
            with suppress(OSError):
                device.notify(notifications.prune(everything[start : start + _AT_ONCE]))
        time.sleep(0.02)  # FORGET comes by itself
        now = [inode for inode in left if attached_to(inode) is not None]
        if len(now) < len(left):
            deadline = time.monotonic() + _PATIENCE
        left = now
    return left


def _refusal(context: Context, policy: CompiledPolicy, left: list[Inode]) -> str:
    named = []
    for inode in left[:_NAMED]:
        try:
            with context.tree.descriptors.use():
                names = context.tree.location(inode)
            named.append("/" + b"/".join(names).decode(errors="backslashreplace"))
        except OSError:
            named.append(f"inode {inode.number}")
    attached = attached_to(left[0])
    opcodes = ", ".join(op.name.lower() for op in attached.mask) if attached is not None else ""
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return (
        f"{policy.rules.loaded.path}: the kernel serves more of {', '.join(named)}{more} by itself "
        f"({opcodes}) than this policy allows, and does so until they are closed and left: close "
        "what is in use, or unmount and mount again; the old policy is kept"
    )
