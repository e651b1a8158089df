"""Which plan an inode has: where it stands in the tree under the policy, and what follows of it.

A directory's position advances by one name at each lookup; no path is built. Facts that can change
are read again for each decision that depends on them.
"""

from __future__ import annotations

import errno
import stat
from typing import Any, Final

import structlog

from inopt.backing.attached import attached_to
from inopt.backing.filesystems import ignores_case, may_mark_directories
from inopt.backing.identity import attributes_of
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.handlers.facts import NewInode, inherit, no_xattr, xattr, xattr_beneath
from inopt.handlers.failures import DeniedError, fail
from inopt.ops import Op, OpsMask
from inopt.policy.callers import Caller
from inopt.policy.compiled import CompiledPolicy, Joint, Treatment
from inopt.policy.facts import Attributes, ReadXattr
from inopt.policy.paths.match import State
from inopt.policy.plan import Plan
from inopt.policy.words import Part
from inopt.wire.bodies import Header
from inopt.wire.directory import DOTS

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

# The name under which a file without a name (O_TMPFILE) is judged: no file can have it.
NAMELESS: Final = b"/"


def _walk(policy: CompiledPolicy, names: list[bytes]) -> State:
    state = policy.start
    for name in names:
        state = state.step(name)
    return state


def _plain_plans(policy: CompiledPolicy) -> tuple[Plan, Plan]:
    """Of all directories, in the second place, and of all else, under a policy without rules."""
    other, directory = (
        policy.plan(policy.start, NewInode(format_, 0, 0), no_xattr, linked=False)
        for format_ in (stat.S_IFREG, stat.S_IFDIR)
    )
    return other, directory


class Placement:
    """The policy of one mount, applied to its inodes. `policy` may be replaced at any time."""

    __slots__ = ("_asks_for_case", "_plain", "policy", "tree")

    def __init__(self, policy: CompiledPolicy, tree: Tree) -> None:
        self.tree = tree
        self.adopt(policy)

    def adopt(self, policy: CompiledPolicy) -> None:
        """Go by *policy* from now on. Plans made under the earlier one are replaced when used."""
        root = attributes_of(self.tree.root.descriptor)
        self._plain = _plain_plans(policy) if policy.is_trivial else None
        self.policy = policy
        self._asks_for_case = bool(policy.rules.by_path) and may_mark_directories()
        self.admit(policy.start, self.tree.root, root)

    # --- where an inode stands -----------------------------------------------------------------

    def state(self, directory: Inode) -> State:
        """The state of a directory. Raises `OSError` ``ESTALE`` if it cannot be told."""
        position = directory.position
        if isinstance(position, State) and position.matcher is self.policy.rules.matcher:
            return position
        if not directory.is_directory:
            fail(errno.ENOTDIR)
        state = _walk(self.policy, self.tree.location(directory))
        directory.position = state
        directory.plan = None
        return state

    def step(self, parent: Inode, name: bytes) -> State:
        """The state of *name* in a directory."""
        return self.state(parent).step(name)

    def admit(self, state: State, inode: Inode, attributes: Any) -> None:
        """An inode has been found, or made, by a name at *state*: set its position and plan."""
        if self._plain is not None:
            inode.plan = self._plain[inode.is_directory]
            return
        attached = attached_to(inode)
        several = attributes.links > 1 and not inode.is_directory
        earlier = inode.position
        if several and self._is_current(earlier):
            inode.position = self.policy.join(earlier, state)
        else:
            inode.position = state
        inode.plan = self.policy.plan(
            inode.position, attributes, self.reader(inode), linked=several
        )
        if attached is not None and attached.mask - inode.plan.allowed:
            self._require_as_wide(attached.mask, state, inode, attributes)

    def _require_as_wide(self, mask: OpsMask, state: State, inode: Inode, attributes: Any) -> None:
        """Keep back a name by which the kernel may do less than it does for the inode already.

        Such a name was made underneath, or led elsewhere when the inode was looked up. What the
        kernel does cannot be narrowed before it forgets the inode. Raises `OSError` ``EXDEV``.
        """
        plan = self.policy.plan(state, attributes, self.reader(inode), linked=False)
        excess = mask - plan.allowed
        if excess:
            _log.warning(
                "not shown: by another name the kernel serves more of it than the policy allows "
                "here, until it is forgotten",
                inode=inode.number,
                opcodes=[op.name for op in excess],
            )
            fail(errno.EXDEV)

    def linked(self, inode: Inode) -> None:
        """An inode has got one more name underneath: other rules may be about it there."""
        position = inode.position
        if self._plain is None and isinstance(position, State) and self._is_current(position):
            self.admit(position, inode, self.tree.attributes(inode))

    def _is_current(self, position: object) -> bool:
        if isinstance(position, Joint):
            position = position.states[0]
        return isinstance(position, State) and position.matcher is self.policy.rules.matcher

    # --- which plan it has ---------------------------------------------------------------------

    def plan(self, inode: Inode) -> Plan:
        """The plan of an inode, by facts of this moment.

        Raises `OSError` ``ESTALE`` for an inode that has not been looked up since the policy was
        replaced: the kernel then looks its name up again. One that is open keeps its plan.
        """
        plan: Plan | None = inode.plan
        if self._plain is not None and (plan is None or inode.io is None):
            return self._plain[inode.is_directory]
        position = inode.position
        if not self._is_current(position):
            if inode.is_directory:
                position = self.state(inode)
            elif plan is not None and inode.io is not None:
                return plan
            else:
                fail(errno.ESTALE)
        elif plan is not None and not plan.depends_on_facts:
            return plan
        attributes = self.tree.attributes(inode)
        plan = self.policy.plan(
            position,
            attributes,
            self.reader(inode),
            linked=attributes.links > 1 and not inode.is_directory,
        )
        inode.plan = plan
        return plan

    def require_copy_up(self, inode: Inode) -> None:
        """Raise `DeniedError` if the policy keeps an inode of a lower layer from being changed.

        Who is about to change it does not matter: what is denied to some is denied to all.
        """
        plan = self.plan(inode)
        codes = [plan.codes[Part.COPY_UP]]
        codes += [
            code for slot, choices in plan.choices if slot == Part.COPY_UP for _, code in choices
        ]
        for code in codes:
            if code > 0:
                raise DeniedError(code)

    def layer(self, parent: Inode, name: bytes) -> int:
        """The lower layer that is looked at first for a name; 0 for none."""
        if not self.policy.rules.choose_layers:
            return 0
        return self.policy.layer(self.step(parent, name))

    def settle(self, inode: Inode) -> bool:
        """Put an open inode under the present policy; False if it keeps its earlier plan.

        It keeps it if nobody can tell where the inode stands, or if its opens bypass and may not
        do so by the new plan.
        """
        if self._plain is not None:
            inode.plan = self._plain[inode.is_directory]
            return True
        if self._is_current(inode.position):
            return True
        earlier: Plan | None = inode.plan
        try:
            state = _walk(self.policy, self.tree.location(inode))
            attributes = self.tree.attributes(inode)
        except OSError:
            return False
        plan = self.policy.plan(state, attributes, self.reader(inode), linked=False)
        attached = attached_to(inode)
        if attached is not None and attached.mask - plan.allowed:
            return False
        if earlier is None or (earlier.bypasses and not plan.bypasses):
            return False
        inode.position, inode.plan = state, plan
        return True

    def plan_under(self, policy: CompiledPolicy, inode: Inode) -> Plan | None:
        """The plan that *inode* would have under *policy*; None if its place cannot be told."""
        try:
            state = _walk(policy, self.tree.location(inode))
            attributes = self.tree.attributes(inode)
            return policy.plan(state, attributes, self.reader(inode), linked=False)
        except OSError:
            return None

    def plan_at(self, state: State, attributes: Attributes, xattr: ReadXattr = no_xattr) -> Plan:
        """The plan of what is found by a name at *state*."""
        return self.policy.plan(state, attributes, xattr, linked=False)

    def plan_of_new(
        self, parent: Inode, state: State, mode: int, umask: int, header: Header
    ) -> Plan:
        """The plan of an inode that the caller is about to make in *parent*, at *state*."""
        new = NewInode(mode & ~umask, header.uid, header.gid)
        if self.policy.treatment(state, stat.S_IFMT(mode)).conditions:
            inherit(self.tree, parent, mode, new)
        return self.plan_at(state, new)

    def treatments(self, inode: Inode, format_: int) -> list[Treatment]:
        """How an inode is treated by the names it is known by."""
        position = inode.position
        if not self._is_current(position):
            fail(errno.ESTALE)
        states = position.states if isinstance(position, Joint) else (position,)
        return [self.policy.treatment(state, format_) for state in states]

    def reader(self, inode: Inode) -> ReadXattr:
        """Reads an extended attribute of *inode*; None where there is none."""
        return lambda name: xattr(self.tree.path(inode), name)

    # --- what a name shows ---------------------------------------------------------------------

    def arrive(
        self, parent: Inode, name: bytes, header: Header, inode: Inode, attributes: Any
    ) -> None:
        """A lookup has found *inode* by a name: it gets its plan, or is kept from the caller.

        Raises `FileNotFoundError` for what is hidden and `DeniedError` for what may not be found,
        by this name, whatever other names of the inode may say. By a dot (an NFS client's way back
        to an inode), as what it was found to be before.
        """
        if self._plain is not None:
            inode.plan = self._plain[inode.is_directory]
            return
        if name in DOTS:
            plan = self.plan(inode)
        else:
            state = self.step(parent, name)
            if self._asks_for_case and inode.is_directory and inode.position is None:
                self._require_case(inode)
            self.admit(state, inode, attributes)
            plan = inode.plan
            if inode.position is not state:
                plan = self.plan_at(state, attributes, self.reader(inode))
        if plan.hidden:
            fail(errno.ENOENT)
        if plan.codes[Op.LOOKUP]:
            code = plan.code(Op.LOOKUP, Caller(header.uid, header.gid, header.pid))
            if code > 0:
                raise DeniedError(code)

    def _require_case(self, directory: Inode) -> None:
        """Path rules could be got round in a directory that finds SECRET as secret, too."""
        if ignores_case(self.tree.descriptor(directory)):
            _log.warning("not shown: names in it match whatever their case", inode=directory.number)
            raise DeniedError(errno.EACCES)

    def shows(self, directory: Inode, name: bytes) -> bool:
        """Whether a listing of *directory* shows *name*."""
        if name in DOTS:
            return True
        state = self.step(directory, name)
        if not self.policy.may_hide(state):
            return True
        try:
            descriptor = self.tree.holder(directory, name)
            attributes = attributes_of(descriptor, name)
        except OSError:
            return True  # gone meanwhile
        return not self.plan_at(state, attributes, xattr_beneath(descriptor, name)).hidden
