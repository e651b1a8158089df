"""Backing files that the kernel has from an inode's first lookup to its last FORGET (tier inode).

The kernel serves by itself what is in the mask that the backing file was registered with. It takes
a mask once: neither it nor the backing file of an inode can be changed or taken away while the
kernel knows the inode, and all opens of a regular file bypass then. So what may not be for good is
not attached at all, and is served as on the lower tiers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

import structlog

from inopt import syscalls
from inopt.backing.caller import RegisteringIdentity
from inopt.backing.filesystems import kernel_number, numbers_are_sure
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.ops import Op, OpsMask
from inopt.wire.replies import Attributes

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

Register = Callable[[Inode, int, OpsMask], int]

_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
# These may be over when the inode is next looked up.
_PASSING: Final = frozenset({errno.ENFILE, errno.EMFILE, errno.ENOMEM, errno.EINTR, errno.ESTALE})
_REASONS: Final = {
    errno.EXDEV: "the mount shows it by another inode number: of another device, or copied up",
    errno.ELOOP: "its filesystem is stacked too deep: see -o max_stack_depth",
    errno.EPERM: "registering needs CAP_SYS_ADMIN in the initial user namespace",
    errno.ENFILE: "too many open files",
    errno.EMFILE: "too many open files",
    errno.ENOMEM: "no memory",
}


class Attached:
    """What the kernel has of an inode: the backing id and the mask that it was registered with."""

    __slots__ = ("backing_id", "mask")

    def __init__(self, backing_id: int, mask: OpsMask) -> None:
        self.backing_id = backing_id
        self.mask = mask


def attached_to(inode: Inode) -> Attached | None:
    """What the kernel has of *inode*, None if nothing is attached."""
    attached = inode.attached
    return attached if isinstance(attached, Attached) else None


class AttachedInodes:
    """The backing files attached at lookup, of one mount. Thread-safe.

    *register* takes an inode, an ``O_PATH`` descriptor of it and a mask, and returns a backing id
    or raises `OSError`; *release* takes the id.
    """

    def __init__(self, tree: Tree, register: Register, release: Callable[[int], None]) -> None:
        self.lock = Lock()
        self._tree = tree
        self._register = register
        self._release = release
        self._identity = RegisteringIdentity()
        self._told: set[str] = set()
        self._sure: dict[int, bool] = {}
        self._count = 0
        self._paused = 0
        tree.dropped = self.detach

    @property
    def count(self) -> int:
        """How many inodes have a backing file attached."""
        return self._count

    def attach(self, inode: Inode, mask: OpsMask, attributes: Attributes) -> int:
        """The backing id for an entry reply that leads to *inode*; 0 for none.

        *mask* is what the kernel may serve of it; it counts for the first reply only.
        """
        attached = inode.attached
        if attached is not None:
            return attached.backing_id if isinstance(attached, Attached) else 0
        if inode is self._tree.root:
            return 0  # the kernel has it without an entry
        if not mask or self._paused:
            return 0
        mask = self._tree.attachable(inode, mask)
        if not mask or not self._may_stay(inode, mask, attributes):
            return 0
        with self.lock:
            if inode.attached is not None or inode.io is not None:
                # Open already, and not by this backing id: the kernel would refuse the entry.
                known = attached_to(inode)
                return known.backing_id if known is not None else 0
            try:
                backing_id = self._registered(inode, mask, attributes)
            except OSError as error:
                self._tell(inode, error)
                if error.errno not in _PASSING:
                    inode.attached = error.errno
                return 0
            inode.attached = Attached(backing_id, mask)
            self._count += 1
            return backing_id

    @staticmethod
    def _may_stay(inode: Inode, mask: OpsMask, attributes: Attributes) -> bool:
        if not stat.S_ISREG(attributes.mode):
            return True
        if inode.never_bypass:
            return False
        # Whether set-id bits stay depends on who writes. The kernel sees to that by itself where
        # it knows the mode of this moment.
        return not attributes.mode & _SET_ID or Op.GETATTR in mask

    def for_listing(self, directory: Inode, mask: OpsMask) -> int:
        """The backing id for an OPENDIR reply: the root's, whose entry nobody has looked up."""
        if directory is not self._tree.root:
            return 0
        if Op.READDIR not in self._tree.attachable(directory, mask):
            return 0
        with self.lock:
            known = attached_to(directory)
            if known is None:
                listing = OpsMask.of(Op.READDIR)
                try:
                    backing_id = self._register(directory, directory.descriptor, listing)
                except OSError as error:
                    self._tell(directory, error)
                    return 0
                known = directory.attached = Attached(backing_id, listing)
            return known.backing_id

    def lists(self, directory: Inode) -> bool:
        """Whether the kernel lists *directory* by itself."""
        known = attached_to(directory)
        return known is not None and Op.READDIR in known.mask

    def _registered(self, inode: Inode, mask: OpsMask, attributes: Attributes) -> int:
        if inode.number != attributes.inode:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        with self._tree.descriptors.use():
            descriptor = self._tree.descriptor(inode)
            if not self._is_sure(inode, descriptor) and kernel_number(descriptor) != inode.number:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            changes = Op.SETATTR in mask
            backing_id: int = self._identity.run(
                attributes.uid,
                lambda: self._register(inode, descriptor, mask),
                changes_attributes=changes,
            )
            return backing_id

    def _is_sure(self, inode: Inode, descriptor: int) -> bool:
        """Whether ``st_ino`` is what the kernel itself calls the inode, on this filesystem."""
        mount = inode.filesystem.mount_id
        sure = self._sure.get(mount)
        if sure is None:
            sure = self._sure[mount] = numbers_are_sure(syscalls.filesystem_type(descriptor))
        return sure

    def _tell(self, inode: Inode, error: OSError) -> None:
        # One line for each reason: a whole stacked filesystem would fail alike.
        reason = reason_of(error.errno or errno.EIO)
        level = _log.debug if reason in self._told else _log.warning
        self._told.add(reason)
        level("not attached: served as on the tier below", inode=inode.number, reason=reason)

    def detach(self, inode: Inode) -> None:
        """The kernel has forgotten *inode*: give its backing id back."""
        with self.lock:
            attached, inode.attached = inode.attached, None
            if isinstance(attached, Attached):
                self._count -= 1
                self._release(attached.backing_id)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """In the body, nothing new is attached."""
        with self.lock:
            self._paused += 1
        try:
            yield
        finally:
            with self.lock:
                self._paused -= 1


def reason_of(number: int) -> str:
    """Why the kernel, or inopt, does not attach an inode, by the errno of the attempt."""
    return _REASONS.get(number) or os.strerror(number)
