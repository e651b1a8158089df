"""What all gates come down to: a request's inodes, their plans, and what these say of slots."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.handlers.facts import xattr_beneath
from inopt.handlers.failures import DeniedError
from inopt.handlers.serve import Context, Serve
from inopt.ops import Op
from inopt.policy.callers import Caller
from inopt.policy.paths.match import State
from inopt.policy.plan import CONDITIONAL, HANDLER, Plan, wants
from inopt.policy.words import Part
from inopt.wire.bodies import Header
from inopt.wire.replies import Attributes


class Substitute:
    """The daemon's own answer to a request, in another form than usual: no handler's."""

    __slots__ = ("serve",)

    def __init__(self, serve: Serve) -> None:
        self.serve = serve

    def __call__(self, header: Header, body: Any) -> bytes | None:
        """Serve the request."""
        return self.serve(header, body)


Gate: TypeAlias = Callable[[Header, Any], Serve | None]

# An open asks whether these are denied; that a handler serves them matters when they come.
_SERVED_LATER: Final = frozenset({Op.READ, Op.WRITE})


class Deciding:
    """The gates of one mount under one policy; see `inopt.handlers.gates`."""

    def __init__(
        self, context: Context, served: Sequence[Serve | None], handlers: Sequence[Serve | None]
    ) -> None:
        self.context = context
        self.placement = context.placement
        self.tree = context.tree
        self.served = served
        self.handlers = handlers

    def inode(self, header: Header) -> Inode:
        """The inode that a request is about."""
        return self.tree.table.get(header.nodeid)

    def decide(self, plan: Plan, header: Header, *slots: int) -> Serve | None:
        """Refuse what is denied; a handler of any of *slots* gets the whole request."""
        handled = False
        for slot in slots:
            code = plan.codes[slot]
            if code == CONDITIONAL:
                code = plan.code(slot, Caller(header.uid, header.gid, header.pid))
            if code > 0:
                raise DeniedError(code)
            handled = handled or (code == HANDLER and slot not in _SERVED_LATER)
        return self.handler(header.opcode) if handled else None

    def handler(self, opcode: int) -> Serve | None:
        """What serves an opcode if a handler does."""
        return self.handlers[opcode]

    def attributes(self, parent: Inode, name: bytes) -> Attributes | None:
        """The attributes of what has a name now; None if nothing has."""
        try:
            return attributes_of(self.tree.holder(parent, name), name)
        except FileNotFoundError:
            return None

    def plan_of(self, parent: Inode, name: bytes, state: State, attributes: Attributes) -> Plan:
        """The plan of what has a name now, be it known or not."""
        reader = xattr_beneath(self.tree.holder(parent, name), name)
        return self.placement.plan_at(state, attributes, reader)

    def hides(self, parent: Inode, name: bytes, state: State) -> bool:
        """Whether what has a name now is hidden: by type and facts, while another might not be."""
        if not self.placement.policy.may_hide(state):
            return False
        attributes = self.attributes(parent, name)
        return attributes is not None and self.plan_of(parent, name, state, attributes).hidden


def opening(flags: int) -> tuple[int, ...]:
    """The slots that decide about an open with *flags* of open(2)."""
    reads, writes = wants(flags)
    slots: list[int] = [Op.OPEN]
    if reads:
        slots.append(Op.READ)
    if writes or flags & os.O_TRUNC:
        slots.append(Op.WRITE)
    if flags & os.O_TRUNC:
        slots.append(Part.TRUNCATE)
    return tuple(slots)
