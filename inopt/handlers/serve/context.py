"""What the daemon's answers are made from, and the pieces that several of them share."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from inopt.backing.attach import Attachments
from inopt.backing.caller import groups_for
from inopt.backing.files import Handles, OpenDirectory, OpenFile
from inopt.backing.inodes import Inode
from inopt.backing.locks import Locks
from inopt.backing.naming import Naming
from inopt.backing.tree import Tree
from inopt.backing.watch.changes import NAME
from inopt.handlers.failures import fail
from inopt.handlers.placement import NAMELESS, Placement
from inopt.handlers.serve.looking import Readers
from inopt.kernel.dialects import Dialect
from inopt.ops import Op
from inopt.policy.model import Cache, lifetimes, seconds
from inopt.policy.plan import Plan
from inopt.wire import replies
from inopt.wire.bodies import Header
from inopt.wire.directory import DOTS
from inopt.wire.replies import Attributes, Validity
from inopt.wire.uapi import FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_NOFLUSH

_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
# Seconds for which attributes of what may still be mapped are believed at most.
_SHORT: Final = 1.0
_NO_NAMES: Final = (*DOTS, NAMELESS)


def _tell_nobody(_message: bytes) -> None:
    return


class Context:
    """One mount's state as the daemon's answers see it.

    ``placement``: which plan an inode has under the policy.
    ``invalidate``: makes the kernel forget the attributes of a nodeid. ``negative``: what tells
    the kernel to remember that a name does not exist, if it should.
    ``names``: how names of the tree come and go.
    ``locks``: those that come here, None if the kernel keeps all of them by itself.
    ``lifetime``: for how many seconds it believes what it is told of names, at least.
    ``tell``: sends the kernel a notification that waits for nothing.
    ``no_flush``: closing a file needs no request. ``open_flags``: what every backing file is
    opened with (``O_NOATIME``, ``O_SYNC``). ``readers``: who lists directories.
    ``reads_back``: the kernel caches writes, so it may read what was opened for writing.
    """

    __slots__ = (
        "attachments",
        "dialect",
        "directories",
        "files",
        "invalidate",
        "lifetime",
        "locks",
        "mapped_validities",
        "name_validities",
        "names",
        "negative",
        "no_flush",
        "open_flags",
        "placement",
        "readers",
        "reads_back",
        "tell",
        "tree",
        "unsure_validity",
        "validities",
    )

    def __init__(
        self,
        tree: Tree,
        placement: Placement,
        attachments: Attachments,
        dialect: Dialect,
        cache: Cache,
        invalidate: Callable[[int], None],
        *,
        tell: Callable[[bytes], None] = _tell_nobody,
        locks: Locks | None = None,
        names: Naming | None = None,
        open_flags: int = 0,
        reads_back: bool = False,
    ) -> None:
        self.tree = tree
        self.names = names or Naming(tree)
        self.placement = placement
        self.attachments = attachments
        self.dialect = dialect
        self.unsure_validity = Validity.of(0, 0)
        self.keep_caches(cache)
        self.invalidate = invalidate
        self.files: Handles[OpenFile] = Handles()
        self.directories: Handles[OpenDirectory] = Handles()
        self.readers = Readers()
        self.tell = tell
        self.locks = locks
        # Closing a descriptor gives back the locks of the process: then FLUSH must be asked for.
        self.no_flush = not (tree.flushes_at_close or (locks is not None and locks.posix))
        self.open_flags = open_flags
        self.reads_back = reads_back

    def keep_caches(self, cache: Cache) -> None:
        """From now on let the kernel believe what it is told for as long as *cache* says."""
        entry, attributes = lifetimes(cache, watched=self.names.alone)
        long_entry, long_attributes = lifetimes(cache, watched=True)
        self.lifetime = min(entry, attributes)
        # By what the watch underneath covers: see `inopt.backing.watch.changes`.
        self.validities = (
            Validity.of(entry, attributes),
            Validity.of(long_entry, attributes),
            Validity.of(entry, long_attributes),
            Validity.of(long_entry, long_attributes),
        )
        self.name_validities = (Validity.of(entry, 0), Validity.of(long_entry, 0))
        short = min(attributes, _SHORT)
        self.mapped_validities = (Validity.of(entry, short), Validity.of(long_entry, short))
        negative = seconds(cache.negative)
        self.negative = self.dialect.negative_entry(Validity.of(negative, 0)) if negative else None

    def entry(self, inode: Inode, attributes: Attributes, *, stores: bool = False) -> bytes:
        """The payload of an entry reply; the lookup has been counted, the plan is there.

        *stores*: the same reply opens the inode, so that a mapping may change it.
        """
        validity = self.validity_of(inode, attributes, stores=stores)
        attached = self.attachments.attached
        backing_id = 0
        if attached is not None:
            backing_id = attached.attach(inode, inode.plan.mask, attributes)
        return self.dialect.entry(
            inode.nodeid, inode.generation, attributes, validity, inode.number, backing_id
        )

    def found(
        self, parent: Inode, name: bytes, header: Header, inode: Inode, attributes: Attributes
    ) -> bytes:
        """Like `entry`, for an inode that a lookup has found by *name*.

        Raises `OSError` for what the policy keeps from the caller; then the lookup is taken back.
        """
        self._arrive(parent, name, header, inode, attributes)
        return self.entry(inode, attributes)

    def _arrive(
        self, parent: Inode, name: bytes, header: Header, inode: Inode, attributes: Attributes
    ) -> None:
        try:
            self.placement.arrive(parent, name, header, inode, attributes)
        except OSError:
            self.tree.forget(inode.nodeid, 1)
            raise
        if self.tree.watch is not None:
            self._meet(parent, name, inode)

    def _meet(self, parent: Inode, name: bytes, inode: Inode) -> None:
        watch = self.tree.watch
        if watch is not None and name not in _NO_NAMES:
            watch.meet(parent, name, inode)

    def listed(
        self, parent: Inode, name: bytes, header: Header, inode: Inode, attributes: Attributes
    ) -> bytes:
        """Like `found`, for READDIRPLUS, whose entries have one form and attach nothing."""
        self._arrive(parent, name, header, inode, attributes)
        validity = self.validity_of(inode, attributes)
        return replies.entry(inode.nodeid, inode.generation, attributes, validity, inode.number)

    def made(
        self,
        parent: Inode,
        name: bytes,
        inode: Inode,
        attributes: Attributes,
        *,
        stores: bool = False,
    ) -> bytes:
        """Like `entry`, for an inode that the caller has just given the name *name*."""
        self.placement.admit(self.placement.step(parent, name), inode, attributes)
        self._meet(parent, name, inode)
        return self.entry(inode, attributes, stores=stores)

    def validity_of(
        self, inode: Inode, attributes: Attributes, *, stores: bool = False
    ) -> Validity:
        """How long the kernel may believe *attributes*, and the name that led to them.

        Attributes not at all for set-id files: writes of others remove the bits, and after some
        of them (fallocate, direct writes) the kernel does not ask for the mode again. Nor what
        the policy answers differently from caller to caller, or from moment to moment. Nor what
        may be mapped: stores by a mapping that bypasses move times, and the kernel does not notice.
        """
        standing = inode.layers
        if standing is not None:
            # A copy and what it was made of are two inodes, and each changes without the other.
            if standing.replaced:
                return self.unsure_validity
            if standing.has_twin:
                return self.name_validities[0]
        watch = self.tree.watch
        covered = 0 if watch is None else watch.covers(inode, attributes)
        plan = inode.plan
        if plan is not None:
            if plan.unsure:
                return self.unsure_validity
            if plan.attributes_unsure:
                return self.name_validities[covered & NAME]
        if attributes.mode & _SET_ID and stat.S_ISREG(attributes.mode):
            return self.name_validities[covered & NAME]
        if stores or (inode.io is not None and self.attachments.may_store(inode)):
            return self.name_validities[covered & NAME]
        if inode.mapped:
            return self.mapped_validities[covered & NAME]
        return self.validities[covered]

    def open_reply(self, handle: int, reply_flags: int, backing_id: int) -> bytes:
        """The payload of an open's reply."""
        if self.dialect.one_shot:
            backing_id = 0  # registered when the reply is sent: see `once`
        return self.dialect.open(handle, reply_flags, backing_id)

    def open_reply_flags(self, plan: Plan, flags: int, inode: Inode, backing_id: int) -> int:
        """The ``FOPEN_*`` flags of an open of *inode* with *flags* of open(2)."""
        no_flush = self.no_flush and not plan.is_handled(Op.FLUSH)
        reply_flags = FOPEN_NOFLUSH if no_flush else 0
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if backing_id:
            # The kernel would open the backing file with O_APPEND for good, and fcntl(2) can clear
            # it. So these opens send their reads and writes; each WRITE tells whether it appends.
            # A one-shot registration keeps the daemon's flags, and each write brings the client's.
            direct = bool(flags & os.O_APPEND) and not self.dialect.one_shot
        else:
            # No page cache, so no shared mapping: what it would write, nobody could judge.
            direct = plan.direct or (writes and plan.direct_writers)
            # Nor beside opens that bypass: what they write would be hidden by cached pages.
            direct = direct or bool(self.attachments.backing_id(inode))
            handled = plan.is_handled(Op.READ) or plan.is_handled(Op.OPEN)
            if self.tree.stays(inode) and not (direct or handled):
                reply_flags |= FOPEN_KEEP_CACHE  # what the kernel has read of it is still right
        return reply_flags | FOPEN_DIRECT_IO if direct else reply_flags

    def change_bypass(self, file: OpenFile, wish: bool | None, header: Header, flags: int) -> int:
        """Fulfil a handler's wish that an open, not answered yet, bypass or not.

        Returns the backing id of the inode's opens. The wish is not fulfilled where others have
        the inode open, or where the policy forbids it: a mixture would be an ``EIO`` for somebody.
        """
        inode = file.inode
        attachments = self.attachments
        earlier = attachments.backing_id(inode) if file.bypasses else 0
        if wish is None or wish == bool(earlier):
            return earlier
        plan = self.placement.plan(inode)
        if wish and (plan.direct or plan.direct_writers):
            return earlier
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        descriptor = file.fileno(self.tree)
        backing_id = attachments.change(inode, descriptor, writes=writes, bypasses=wish)
        if backing_id != earlier:
            file.reply_flags = self.open_reply_flags(plan, flags, inode, backing_id)
            file.bypasses = bool(backing_id)
            if backing_id and file.stores:
                self.invalidate(inode.nodeid)
            if writes and not backing_id:
                file.groups = groups_for(descriptor, header.uid, header.pid)
        return backing_id

    def reopen(self, inode: Inode) -> None:
        """The backing file of *inode* is another one: what the daemon serves goes on with that."""
        self.attachments.let_go(inode)
        if inode.io is not None:  # to look through all that is open takes long
            for file in self.files.of(inode):
                file.reopen(self.tree)
        self.invalidate(inode.nodeid)  # link count and change time are those of that one

    def close_file(self, handle: int) -> None:
        """End an open of a file."""
        file = self.files.remove(handle)
        if file is not None:
            file.close(self.tree)
            self.attachments.released(file.inode, stores=file.stores)
            if file.stores and file.bypasses:
                # A mapping keeps the backing file, not this open; nobody tells when it goes.
                file.inode.mapped = True

    def close_directory(self, handle: int) -> None:
        """End an open of a directory."""
        directory = self.directories.remove(handle)
        if directory is not None:
            directory.close(self.tree)

    def close(self) -> None:
        """End everything that is open, and give the tree up. No request may be running."""
        for file in self.files.clear():
            file.close(self.tree)
            self.attachments.released(file.inode, stores=file.stores)
        for directory in self.directories.clear():
            directory.close(self.tree)
        if self.locks is not None:
            self.locks.close()
        self.tree.close()


def require_room(length: int, size: int) -> None:
    """Raise ``ERANGE`` unless *length* bytes fit into the *size* that the caller has."""
    if length > size:
        fail(errno.ERANGE)


def without_direct(descriptor: int) -> None:
    """Let the daemon read and write by *descriptor* whatever its caller's alignment is."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & os.O_DIRECT:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
