"""The gate: what the policy says to a request before it is served, and who then serves it.

For each opcode a function takes the request's header and body. It returns the function that is to
serve it, or None for the daemon's own, and raises `DeniedError`. What no rule can touch has
no gate at all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, Final, TypeAlias

from inopt.backing.inodes import Inode
from inopt.backing.tree import attributes_of
from inopt.handlers.failures import DeniedError, fail
from inopt.handlers.placement import NAMELESS
from inopt.handlers.serve import Context, Serve
from inopt.handlers.serve.attributes import unchanged
from inopt.handlers.serve.extended import changes_flags, is_acl
from inopt.ops import OPCODE_LIMIT, Op
from inopt.policy.callers import Caller
from inopt.policy.paths.match import State
from inopt.policy.plan import CONDITIONAL, DAEMON, HANDLER, KERNEL, Plan, wants
from inopt.policy.words import SETATTR_PARTS, Part
from inopt.wire import bodies, uapi
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

_RENAME_EXCHANGE: Final = 2
_RENAME_WHITEOUT: Final = 4
# fallocate(2) modes that change bytes which are there: punch, collapse, zero, insert.
_REWRITING: Final = 0x02 | 0x08 | 0x10 | 0x20
_MAKING: Final = {stat.S_IFREG: Op.CREATE, stat.S_IFDIR: Op.MKDIR, stat.S_IFLNK: Op.SYMLINK}
_BY_NODEID: Final = (
    Op.GETATTR, Op.STATX, Op.READLINK, Op.STATFS, Op.READ, Op.LSEEK, Op.FSYNC, Op.OPENDIR,
    Op.READDIR, Op.READDIRPLUS, Op.FSYNCDIR, Op.LISTXATTR, Op.FLUSH, Op.RELEASE, Op.RELEASEDIR,
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
}
# An open asks whether these are denied; that a handler serves them matters when they come.
_SERVED_LATER: Final = frozenset({Op.READ, Op.WRITE})
# Whether these may be done is decided when the file is opened.
_DECIDED_AT_OPEN: Final = frozenset({Op.READ, Op.FLUSH, Op.RELEASE, Op.RELEASEDIR})


def gates(context: Context, served: Sequence[Serve | None], handlers: Sequence[Serve | None]
          ) -> list[Gate | None]:  # fmt: skip
    """The gates of the present policy, by opcode.

    *served* are the daemon's own functions, *handlers* those of the user's handler class.
    """
    policy = context.placement.policy
    table: list[Gate | None] = [None] * OPCODE_LIMIT
    if policy.is_trivial:
        return table
    gate = _Gates(context, served, handlers)
    for slot in _BY_NODEID:
        if slot in policy.touched:
            table[slot] = gate.by_nodeid(slot)
    table[Op.LOOKUP] = gate.lookup if policy.handles(Op.LOOKUP) else None
    for opcode, function in gate.by_opcode().items():
        looks_at = _LOOKS_AT.get(opcode)
        if looks_at is None or not policy.touched.isdisjoint(looks_at):
            table[opcode] = function
    return table


class _Gates:
    """The gates of one mount under one policy."""

    def __init__(
        self, context: Context, served: Sequence[Serve | None], handlers: Sequence[Serve | None]
    ) -> None:
        self.context = context
        self.placement = context.placement
        self.tree = context.tree
        self.served = served
        self.handlers = handlers
        # What must not come between looking how long a file is and writing behind its end.
        self.appending = Lock()

    def by_opcode(self) -> dict[int, Gate]:
        """The gates that are more than a look at the inode's plan."""
        return {
            Op.OPEN: self.open_file,
            Op.CREATE: self.create,
            Op.TMPFILE: self.tmpfile,
            Op.MKNOD: self.mknod,
            Op.MKDIR: lambda header, body: self._make(
                header, body.name, stat.S_IFDIR | body.mode, body.umask, Op.MKDIR
            ),
            Op.SYMLINK: lambda header, body: self._make(
                header, body.name, stat.S_IFLNK | 0o777, 0, Op.SYMLINK
            ),
            Op.LINK: self.link,
            Op.UNLINK: lambda header, body: self._remove(header, body.name, Op.UNLINK),
            Op.RMDIR: lambda header, body: self._remove(header, body.name, Op.RMDIR),
            Op.RENAME: self.rename,
            Op.RENAME2: self.rename,
            Op.SETATTR: self.setattr_,
            Op.WRITE: self.write,
            Op.FALLOCATE: self.fallocate,
            Op.COPY_FILE_RANGE: self.copy_file_range,
            Op.COPY_FILE_RANGE_64: self.copy_file_range,
            Op.GETXATTR: self.getxattr,
            Op.SETXATTR: self.change_xattr,
            Op.REMOVEXATTR: self.change_xattr,
            Op.IOCTL: self.ioctl,
        }

    # --- what all of them come down to ---------------------------------------------------------

    def _inode(self, header: Header) -> Inode:
        return self.tree.table.get(header.nodeid)

    def _decide(self, plan: Plan, header: Header, *slots: int) -> Serve | None:
        """Refuse what is denied; a handler of any of *slots* gets the whole request."""
        handled = False
        for slot in slots:
            code = plan.codes[slot]
            if code == CONDITIONAL:
                code = plan.code(slot, Caller(header.uid, header.gid, header.pid))
            if code > 0:
                raise DeniedError(code)
            handled = handled or (code == HANDLER and slot not in _SERVED_LATER)
        return self._handler(header.opcode) if handled else None

    def _handler(self, opcode: int) -> Serve | None:
        return self.handlers[opcode]

    def by_nodeid(self, slot: int) -> Gate:
        """A gate that only looks at the plan of the request's inode."""
        placement, table = self.placement, self.tree.table
        at_open = slot in _DECIDED_AT_OPEN

        def gate(header: Header, _body: Any) -> Serve | None:
            plan = placement.plan(table.get(header.nodeid))
            code = plan.codes[slot]
            if at_open:
                return self._handler(header.opcode) if plan.is_handled(slot) else None
            if code in (DAEMON, KERNEL):
                return None
            return self._decide(plan, header, slot)

        return gate

    def _attributes(self, parent: Inode, name: bytes) -> Attributes | None:
        """The attributes of what has a name now; None if nothing has."""
        try:
            return attributes_of(self.tree.descriptor(parent), name)
        except FileNotFoundError:
            return None

    def _plan_of(self, parent: Inode, name: bytes, state: State, attributes: Attributes) -> Plan:
        reader = self.placement.reader_beneath(self.tree.descriptor(parent), name)
        return self.placement.plan_at(state, attributes, reader)

    def _hides(self, parent: Inode, name: bytes, state: State) -> bool:
        """Whether what has a name now is hidden: by type and facts, while another might not be."""
        if not self.placement.policy.may_hide(state):
            return False
        attributes = self._attributes(parent, name)
        return attributes is not None and self._plan_of(parent, name, state, attributes).hidden

    # --- names ---------------------------------------------------------------------------------

    def lookup(self, header: Header, body: bodies.Lookup) -> Serve | None:
        """LOOKUP, where a handler may serve it: by the name, as what is there now."""
        parent = self._inode(header)
        state = self.placement.step(parent, body.name)
        attributes = self._attributes(parent, body.name)
        if attributes is None:
            plan = self.placement.plan_of_new(parent, state, stat.S_IFREG, 0, header)
        else:
            plan = self._plan_of(parent, body.name, state, attributes)
        return self._handler(Op.LOOKUP) if plan.codes[Op.LOOKUP] == HANDLER else None

    def _make(
        self, header: Header, name: bytes, mode: int, umask: int, *slots: int
    ) -> Serve | None:
        parent = self._inode(header)
        state = self.placement.step(parent, name)
        plan = self.placement.plan_of_new(parent, state, mode, umask, header)
        if plan.hidden or (name != NAMELESS and self._hides(parent, name, state)):
            raise DeniedError(errno.EACCES)  # whether it is there already is not told
        return self._decide(plan, header, *slots)

    def create(self, header: Header, body: bodies.Create) -> Serve | None:
        """CREATE: make and open."""
        slots = _opening(body.flags & ~os.O_TRUNC)  # there is nothing yet to be truncated
        mode = stat.S_IFREG | body.mode
        return self._make(header, body.name, mode, body.umask, Op.CREATE, *slots)

    def tmpfile(self, header: Header, body: bodies.Create) -> Serve | None:
        """TMPFILE: judged by a name that no file can have."""
        slots = _opening(body.flags & ~os.O_TRUNC)
        mode = stat.S_IFREG | body.mode
        return self._make(header, NAMELESS, mode, body.umask, Op.TMPFILE, Op.CREATE, *slots)

    def mknod(self, header: Header, body: bodies.Mknod) -> Serve | None:
        """MKNOD: of a regular file, creating one."""
        more = (Op.CREATE,) if stat.S_ISREG(body.mode) else ()
        return self._make(header, body.name, body.mode, body.umask, Op.MKNOD, *more)

    def link(self, header: Header, body: bodies.Link) -> Serve | None:
        """LINK: only where the new name is treated like those that the inode has."""
        placement = self.placement
        inode = self.tree.table.get(body.old_nodeid)
        plan = placement.plan(inode)
        handler = self._decide(plan, header, Op.LINK)
        parent = self._inode(header)
        state = placement.step(parent, body.name)
        attributes = self.tree.attributes(inode)
        there = placement.plan_at(state, attributes, placement.reader(inode))
        if there.hidden or self._hides(parent, body.name, state):
            raise DeniedError(errno.EACCES)
        self._decide(there, header, Op.LINK)
        format_ = stat.S_IFMT(attributes.mode)
        treatment = placement.policy.treatment(state, format_)
        if any(other is not treatment for other in placement.treatments(inode, format_)):
            self._decide(there, header, _MAKING.get(format_, Op.MKNOD))
            raise DeniedError(errno.EXDEV)
        return handler

    def _remove(self, header: Header, name: bytes, slot: int) -> Serve | None:
        parent = self._inode(header)
        attributes = self._attributes(parent, name)
        if attributes is None:
            return None
        state = self.placement.step(parent, name)
        plan = self._plan_of(parent, name, state, attributes)
        if plan.hidden:
            fail(errno.ENOENT)
        return self._decide(plan, header, slot)

    def rename(self, header: Header, body: bodies.Rename) -> Serve | None:
        """RENAME: only between places that are treated alike."""
        placement = self.placement
        parent, new_parent = self._inode(header), self.tree.table.get(body.new_directory)
        attributes = self._attributes(parent, body.name)
        if attributes is None:
            return None
        state = placement.step(parent, body.name)
        new_state = placement.step(new_parent, body.new_name)
        plan = self._plan_of(parent, body.name, state, attributes)
        if plan.hidden:
            fail(errno.ENOENT)
        handler = self._decide(plan, header, header.opcode)
        target = self._attributes(new_parent, body.new_name)
        if target is not None:
            handler = self._replace(header, body, new_parent, new_state, target) or handler
        self._arrive(header, parent, body.name, attributes, state, new_state)
        if target is not None and body.flags & _RENAME_EXCHANGE:
            self._arrive(header, new_parent, body.new_name, target, new_state, state)
        if body.flags & _RENAME_WHITEOUT:
            whiteout = placement.plan_of_new(parent, state, stat.S_IFCHR, 0, header)
            self._decide(whiteout, header, Op.MKNOD)
        return handler

    def _replace(
        self, header: Header, body: bodies.Rename, parent: Inode, state: State, target: Attributes
    ) -> Serve | None:
        """What has the new name already is removed, or exchanged."""
        plan = self._plan_of(parent, body.new_name, state, target)
        if plan.hidden:
            raise DeniedError(errno.EACCES)
        if body.flags & _RENAME_EXCHANGE:
            return self._decide(plan, header, header.opcode)
        return self._decide(plan, header, Op.RMDIR if stat.S_ISDIR(target.mode) else Op.UNLINK)

    def _arrive(
        self,
        header: Header,
        parent: Inode,
        name: bytes,
        attributes: Attributes,
        state: State,
        new_state: State,
    ) -> None:
        """What is moved comes to *new_state*: from an equal place, or not at all."""
        format_ = stat.S_IFMT(attributes.mode)
        if state is new_state:
            return
        reader = self.placement.reader_beneath(self.tree.descriptor(parent), name)
        there = self.placement.plan_at(new_state, attributes, reader)
        if there.hidden:
            raise DeniedError(errno.EACCES)
        policy = self.placement.policy
        # A directory takes all that is below it along, so there the whole future must be equal.
        alike = format_ != stat.S_IFDIR and (
            policy.treatment(state, format_) is policy.treatment(new_state, format_)
        )
        if not alike:
            self._decide(there, header, _MAKING.get(format_, Op.MKNOD))
            raise DeniedError(errno.EXDEV)

    # --- open files ----------------------------------------------------------------------------

    def open_file(self, header: Header, body: bodies.Open) -> Serve | None:
        """OPEN: here it is decided whether a file may be read, written or truncated."""
        plan = self.placement.plan(self._inode(header))
        return self._decide(plan, header, *_opening(body.flags))

    def write(self, header: Header, _body: bodies.Write) -> Serve | None:
        """WRITE: that it may be done was decided at open; what it may overwrite is decided now."""
        plan = self.placement.plan(self._inode(header))
        handler = self._handler(Op.WRITE) if plan.is_handled(Op.WRITE) else None
        if not plan.direct_writers:
            return handler
        serve = handler or self.served[Op.WRITE]

        def guarded(header: Header, body: bodies.Write) -> bytes | None:
            with self.appending:
                if not body.flags & os.O_APPEND:
                    self._require_end(plan, header, header.nodeid, body.offset)
                assert serve is not None  # noqa: S101 - WRITE is served
                return serve(header, body)

        return Substitute(guarded) if handler is None else guarded

    def _require_end(self, plan: Plan, header: Header, nodeid: int, offset: int) -> None:
        """Refuse to overwrite: *offset* must not be before the end of the file."""
        if offset < self.tree.attributes(self.tree.table.get(nodeid)).size:
            self._decide(plan, header, Part.OVERWRITE)

    def fallocate(self, header: Header, body: bodies.Fallocate) -> Serve | None:
        """FALLOCATE: some modes change bytes that are there."""
        plan = self.placement.plan(self._inode(header))
        handler = self._decide(plan, header, Op.FALLOCATE)
        if body.mode & _REWRITING:
            self._decide(plan, header, Part.OVERWRITE)
        return handler

    def copy_file_range(self, header: Header, body: bodies.CopyFileRange) -> Serve | None:
        """COPY_FILE_RANGE: with a handler for reading or writing, the caller reads and writes.

        What is denied is changing the target; that the source may be read was decided at open.
        """
        source = self.placement.plan(self._inode(header))
        target = self.placement.plan(self.tree.table.get(body.nodeid_out))
        handler = self._decide(target, header, header.opcode)
        if handler is None and source.is_handled(header.opcode):
            handler = self._handler(header.opcode)
        if handler is None and (source.is_handled(Op.READ) or target.is_handled(Op.WRITE)):
            fail(errno.EOPNOTSUPP)
        if target.direct_writers:
            fail(errno.EOPNOTSUPP)
        return handler

    # --- attributes ----------------------------------------------------------------------------

    def setattr_(self, header: Header, body: bodies.Setattr) -> Serve | None:
        """SETATTR: each part of it must be allowed; a handler for any of them gets it all."""
        plan = self.placement.plan(self._inode(header))
        parts = _parts(body.valid)
        if not parts:
            # chown(path, -1, -1), or a write that is to remove privileges: it removes them itself.
            code = plan.codes[Part.CHOWN]
            if code <= 0 and code != CONDITIONAL:
                return self._handler(Op.SETATTR) if code == HANDLER else None
            return Substitute(partial(unchanged, self.context))
        return self._decide(plan, header, *parts)

    def getxattr(self, header: Header, body: bodies.Getxattr) -> Serve | None:
        """GETXATTR: ACLs are always told, the kernel decides by them."""
        if is_acl(body.name):
            return None
        return self._decide(self.placement.plan(self._inode(header)), header, Op.GETXATTR)

    def change_xattr(
        self, header: Header, body: bodies.Setxattr | bodies.Removexattr
    ) -> Serve | None:
        """SETXATTR and REMOVEXATTR: an ACL is a mode, too."""
        plan = self.placement.plan(self._inode(header))
        more = (Part.CHMOD,) if is_acl(body.name) else ()
        return self._decide(plan, header, header.opcode, *more)

    def ioctl(self, header: Header, body: bodies.Ioctl) -> Serve | None:
        """IOCTL: setting inode flags is a change of attributes."""
        plan = self.placement.plan(self._inode(header))
        more = (Part.CHATTR,) if changes_flags(body.command) else ()
        return self._decide(plan, header, Op.IOCTL, *more)


def _opening(flags: int) -> tuple[int, ...]:
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


def _parts(valid: int) -> list[int]:
    parts: list[int] = []
    if valid & uapi.FATTR_MODE:
        parts.append(Part.CHMOD)
    if valid & (uapi.FATTR_UID | uapi.FATTR_GID):
        parts.append(Part.CHOWN)
    if valid & uapi.FATTR_SIZE:
        parts.append(Part.TRUNCATE)
    elif valid & (uapi.FATTR_ATIME | uapi.FATTR_MTIME):
        parts.append(Part.UTIMENS)
    return parts
