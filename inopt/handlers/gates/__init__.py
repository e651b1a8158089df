"""The gate: what the policy says to a request before it is served, and who then serves it.

For each opcode a function takes the request's header and body. It returns the function that is to
serve it, or None for the daemon's own, and raises `DeniedError`. What no rule can touch has
no gate at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from inopt.handlers.gates.attributes import AttributeGates
from inopt.handlers.gates.deciding import Deciding
from inopt.handlers.gates.deciding import Gate as Gate
from inopt.handlers.gates.deciding import Substitute as Substitute
from inopt.handlers.gates.files import FileGates
from inopt.handlers.gates.names import NameGates
from inopt.handlers.serve import Context, Serve
from inopt.ops import OPCODE_LIMIT, Op
from inopt.policy.plan import DAEMON, KERNEL
from inopt.policy.words import SETATTR_PARTS, Part
from inopt.wire.bodies import Header

_BY_NODEID: Final = (
    Op.GETATTR, Op.STATX, Op.READLINK, Op.STATFS, Op.READ, Op.LSEEK, Op.FSYNC, Op.OPENDIR,
    Op.READDIR, Op.READDIRPLUS, Op.FSYNCDIR, Op.LISTXATTR, Op.FLUSH, Op.RELEASE, Op.RELEASEDIR,
    Op.GETLK, Op.POLL,
)  # fmt: skip
# The slots that a gate looks at; those that are missing here look at places, too.
_LOOKS_AT: Final[dict[int, frozenset[int]]] = {
    Op.OPEN: frozenset({Op.OPEN, Op.READ, Op.WRITE, Part.TRUNCATE}),
    Op.SETATTR: frozenset(SETATTR_PARTS),
    Op.WRITE: frozenset({Op.WRITE, Part.OVERWRITE}),
    Op.FALLOCATE: frozenset({Op.FALLOCATE, Part.OVERWRITE}),
    Op.GETXATTR: frozenset({Op.GETXATTR}),
    Op.SETXATTR: frozenset({Op.SETXATTR, Part.CHMOD}),
    Op.REMOVEXATTR: frozenset({Op.REMOVEXATTR, Part.CHMOD}),
    Op.IOCTL: frozenset({Op.IOCTL, Part.CHATTR}),
    Op.SETLK: frozenset({Op.SETLK, Part.FLOCK}),
    Op.SETLKW: frozenset({Op.SETLKW, Part.FLOCK}),
}
# Whether these may be done is decided when the file is opened.
_DECIDED_AT_OPEN: Final = frozenset(
    {Op.READ, Op.FLUSH, Op.RELEASE, Op.RELEASEDIR, Op.GETLK, Op.POLL}
)


def gates(context: Context, served: Sequence[Serve | None], handlers: Sequence[Serve | None]
          ) -> list[Gate | None]:  # fmt: skip
    """The gates of the present policy, by opcode.

    *served* are the daemon's own functions, *handlers* those of the user's handler class.
    """
    policy = context.placement.policy
    table: list[Gate | None] = [None] * OPCODE_LIMIT
    if policy.is_trivial:
        return table
    names = NameGates(context, served, handlers)
    files = FileGates(context, served, handlers)
    attributes = AttributeGates(context, served, handlers)
    for slot in _BY_NODEID:
        if slot in policy.touched:
            table[slot] = _by_nodeid(names, slot)
    table[Op.LOOKUP] = names.lookup if policy.handles(Op.LOOKUP) else None
    more = names.by_opcode() | files.by_opcode() | attributes.by_opcode()
    for opcode, function in more.items():
        looks_at = _LOOKS_AT.get(opcode)
        if looks_at is None or not policy.touched.isdisjoint(looks_at):
            table[opcode] = function
    return table


def _by_nodeid(deciding: Deciding, slot: int) -> Gate:
    """A gate that only looks at the plan of the request's inode."""
    placement, table = deciding.placement, deciding.tree.table
    at_open = slot in _DECIDED_AT_OPEN

    def gate(header: Header, _body: Any) -> Serve | None:
        plan = placement.plan(table.get(header.nodeid))
        code = plan.codes[slot]
        if at_open:
            return deciding.handler(header.opcode) if plan.is_handled(slot) else None
        if code in (DAEMON, KERNEL):
            return None
        return deciding.decide(plan, header, slot)

    return gate
