"""What a live mount does with one path, and what it holds of it at the moment.

Runs beside the reader threads: it walks the tree by descriptors of its own, and counts nothing.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Literal

import msgspec

from inopt import syscalls
from inopt.backing.attached import attached_to, reason_of
from inopt.backing.inodes import Inode
from inopt.exceptions import UsageError
from inopt.handlers.running import served_by
from inopt.handlers.serve import Context
from inopt.kernel.negotiate import Terms
from inopt.policy.compiled import CompiledPolicy, Joint
from inopt.policy.explaining.identity import parse_identity
from inopt.policy.explaining.report import report_on
from inopt.policy.explaining.subjects import Subject, names_of, walk
from inopt.policy.paths.match import State
from inopt.session.policing import Prepared


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What the mount holds of an inode.

    ``nodeid`` and ``lookups`` are 0 if the kernel does not know it. ``backing_id`` is 0 where each
    open has one of its own. ``io``: how its opens read and write. ``attached``: the opcodes that
    the kernel serves by itself as long as it knows the inode; ``not_attached``: why it was not
    given the backing file. ``policy``: ``earlier`` if it was last placed under a policy that has
    been replaced since; ``pinned``: the daemon keeps a descriptor of it; ``layer``: which one it is
    in, empty where there are none.
    """

    nodeid: int = 0
    lookups: int = 0
    opens: int = 0
    backing_id: int = 0
    io: Literal["not open", "bypass", "daemon"] = "not open"
    attached: list[str] = []
    not_attached: str = ""
    policy: Literal["present", "earlier"] = "present"
    pinned: bool = False
    layer: str = ""


def explain(
    context: Context, prepared: Prepared, terms: Terms, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Explain ``path``, relative to the root, for ``caller`` (a text) if one is given.

    Raises `UsageError` for a path that leads nowhere.
    """
    path, caller = arguments.get("path"), arguments.get("caller")
    if not isinstance(path, str) or not isinstance(caller, str | None):
        raise UsageError("explain: takes 'path', and 'caller' if one is wanted, as texts")
    identity = None if caller is None else parse_identity(caller)
    policy = context.placement.policy
    try:
        names = names_of(path)
        with walk(policy, context.tree.root.descriptor, names, context.tree.open_names) as found:
            if len(found) <= len(names):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            inode = _known(context, found[-1])
            live = _live(context, inode)
            subjects = [*found[:-1], _placed(policy, found[-1], inode)]
            handler_class = prepared.handler_class
            handled = served_by(handler_class) if handler_class is not None else frozenset()
            report = report_on(policy, subjects, identity, handled)
            report = msgspec.structs.replace(report, live=msgspec.structs.asdict(live))
    except OSError as error:
        raise UsageError(f"'{path}': {error.strerror}: name what is in the mount") from error
    except ValueError as error:
        raise UsageError(f"'{path}': {error}") from error
    return {
        "policy": policy.rules.loaded.path,
        "tier": terms.tier.label,
        "path": report,
    }


def _known(context: Context, subject: Subject) -> Inode | None:
    """The inode as the session knows it; None if the kernel has not looked it up."""
    assert subject.attributes is not None  # noqa: S101 - it has been found
    if not subject.name:
        return context.tree.root
    inode = context.tree.table.find(context.tree.key(subject.attributes))
    if inode is None or not inode.handle:
        return inode
    try:
        handle = syscalls.name_to_handle(subject.descriptor)[0]
    except OSError:
        return inode
    return inode if handle == inode.handle else None  # else its number has been given away


def _live(context: Context, inode: Inode | None) -> Live:
    if inode is None:
        return Live()
    # What these are is the business of `inopt.backing.attach`.
    state = inode.io
    opens: int = getattr(state, "opens", 0)
    backing_id: int = getattr(state, "backing_id", 0)
    mask = attached_to(inode)
    reason = reason_of(inode.attached) if isinstance(inode.attached, int) else ""
    io: Literal["not open", "bypass", "daemon"] = "not open"
    if opens:
        io = "bypass" if backing_id else "daemon"
    return Live(
        nodeid=inode.nodeid,
        lookups=inode.lookups,
        opens=opens,
        backing_id=0 if context.dialect.one_shot else backing_id,
        io=io,
        attached=[op.name.lower() for op in mask.mask] if mask is not None else [],
        not_attached=reason,
        policy="present" if _is_present(context.placement.policy, inode) else "earlier",
        pinned=inode.descriptor >= 0,
        layer=context.tree.describe(inode),
    )


def _is_present(policy: CompiledPolicy, inode: Inode) -> bool:
    if policy.is_trivial:
        return True  # nothing that could differ by where an inode stands
    position = inode.position
    if isinstance(position, Joint):
        position = position.states[0]
    return isinstance(position, State) and position.matcher is policy.rules.matcher


def _placed(policy: CompiledPolicy, subject: Subject, inode: Inode | None) -> Subject:
    """*subject*, by all names that the session knows of it, as its next lookup will have it."""
    if inode is None or not subject.is_linked or not _is_present(policy, inode):
        return subject
    position = inode.position
    if not isinstance(position, State | Joint):
        return subject
    return msgspec.structs.replace(subject, position=policy.join(position, subject.state))
