"""The gates of names: what is made, found, moved and removed, and by which name."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from inopt import syscalls
from inopt.backing.inodes import Inode
from inopt.handlers.facts import xattr_beneath
from inopt.handlers.failures import DeniedError, fail
from inopt.handlers.gates.deciding import Deciding, Gate, opening
from inopt.handlers.placement import NAMELESS
from inopt.handlers.serve import Serve
from inopt.ops import Op
from inopt.policy.paths.match import State
from inopt.policy.plan import HANDLER
from inopt.wire import bodies
from inopt.wire.bodies import Header
from inopt.wire.replies import Attributes

_MAKING: Final = {stat.S_IFREG: Op.CREATE, stat.S_IFDIR: Op.MKDIR, stat.S_IFLNK: Op.SYMLINK}


class NameGates(Deciding):
    """The gates of LOOKUP, and of the opcodes that make, move and remove names."""

    def by_opcode(self) -> dict[int, Gate]:
        """The gates, but for that of LOOKUP."""
        return {
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
        }

    def lookup(self, header: Header, body: bodies.Lookup) -> Serve | None:
        """LOOKUP, where a handler may serve it: by the name, as what is there now."""
        parent = self.inode(header)
        state = self.placement.step(parent, body.name)
        attributes = self.attributes(parent, body.name)
        if attributes is None:
            plan = self.placement.plan_of_new(parent, state, stat.S_IFREG, 0, header)
        else:
            plan = self.plan_of(parent, body.name, state, attributes)
        return self.handler(Op.LOOKUP) if plan.codes[Op.LOOKUP] == HANDLER else None

    def _make(
        self, header: Header, name: bytes, mode: int, umask: int, *slots: int
    ) -> Serve | None:
        parent = self.inode(header)
        state = self.placement.step(parent, name)
        plan = self.placement.plan_of_new(parent, state, mode, umask, header)
        if plan.hidden or (name != NAMELESS and self.hides(parent, name, state)):
            raise DeniedError(errno.EACCES)  # whether it is there already is not told
        return self.decide(plan, header, *slots)

    def create(self, header: Header, body: bodies.Create) -> Serve | None:
        """CREATE: make and open."""
        slots = opening(body.flags & ~os.O_TRUNC)  # there is nothing yet to be truncated
        mode = stat.S_IFREG | body.mode
        return self._make(header, body.name, mode, body.umask, Op.CREATE, *slots)

    def tmpfile(self, header: Header, body: bodies.Create) -> Serve | None:
        """TMPFILE: judged by a name that no file can have."""
        slots = opening(body.flags & ~os.O_TRUNC)
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
        handler = self.decide(plan, header, Op.LINK)
        parent = self.inode(header)
        state = placement.step(parent, body.name)
        attributes = self.tree.attributes(inode)
        there = placement.plan_at(state, attributes, placement.reader(inode))
        if there.hidden or self.hides(parent, body.name, state):
            raise DeniedError(errno.EACCES)
        self.decide(there, header, Op.LINK)
        format_ = stat.S_IFMT(attributes.mode)
        treatment = placement.policy.treatment(state, format_)
        if any(other is not treatment for other in placement.treatments(inode, format_)):
            self.decide(there, header, _MAKING.get(format_, Op.MKNOD))
            raise DeniedError(errno.EXDEV)
        return handler

    def _remove(self, header: Header, name: bytes, slot: int) -> Serve | None:
        parent = self.inode(header)
        attributes = self.attributes(parent, name)
        if attributes is None:
            return None
        state = self.placement.step(parent, name)
        plan = self.plan_of(parent, name, state, attributes)
        if plan.hidden:
            fail(errno.ENOENT)
        return self.decide(plan, header, slot)

    def rename(self, header: Header, body: bodies.Rename) -> Serve | None:
        """RENAME: only between places that are treated alike."""
        placement = self.placement
        parent, new_parent = self.inode(header), self.tree.table.get(body.new_directory)
        attributes = self.attributes(parent, body.name)
        if attributes is None:
            return None
        state = placement.step(parent, body.name)
        new_state = placement.step(new_parent, body.new_name)
        plan = self.plan_of(parent, body.name, state, attributes)
        if plan.hidden:
            fail(errno.ENOENT)
        handler = self.decide(plan, header, header.opcode)
        target = self.attributes(new_parent, body.new_name)
        if target is not None:
            handler = self._replace(header, body, new_parent, new_state, target) or handler
        self._arrive(header, parent, body.name, attributes, state, new_state)
        if target is not None and body.flags & syscalls.RENAME_EXCHANGE:
            self._arrive(header, new_parent, body.new_name, target, new_state, state)
        if body.flags & syscalls.RENAME_WHITEOUT:
            whiteout = placement.plan_of_new(parent, state, stat.S_IFCHR, 0, header)
            self.decide(whiteout, header, Op.MKNOD)
        return handler

    def _replace(
        self, header: Header, body: bodies.Rename, parent: Inode, state: State, target: Attributes
    ) -> Serve | None:
        """What has the new name already is removed, or exchanged."""
        plan = self.plan_of(parent, body.new_name, state, target)
        if plan.hidden:
            raise DeniedError(errno.EACCES)
        if body.flags & syscalls.RENAME_EXCHANGE:
            return self.decide(plan, header, header.opcode)
        return self.decide(plan, header, Op.RMDIR if stat.S_ISDIR(target.mode) else Op.UNLINK)

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
        reader = xattr_beneath(self.tree.holder(parent, name), name)
        there = self.placement.plan_at(new_state, attributes, reader)
        if there.hidden:
            raise DeniedError(errno.EACCES)
        policy = self.placement.policy
        # A directory takes all that is below it along, so there the whole future must be equal.
        alike = format_ != stat.S_IFDIR and (
            policy.treatment(state, format_) is policy.treatment(new_state, format_)
        )
        if not alike:
            self.decide(there, header, _MAKING.get(format_, Op.MKNOD))
            raise DeniedError(errno.EXDEV)
