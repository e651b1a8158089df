"""Acting as the process that asked: ownership, quota and set-id rules come out right by themselves.

The kernel has checked permissions already (``default_permissions``), so acting as the caller is
about *whose* file it becomes and *whose* privileges strip set-id bits, not about access. Only the
calling thread changes; everything is restored on the way out (credentials(7), capabilities(7)).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from inopt import syscalls

Result = TypeVar("Result")

_NO_GROUPS: Final[tuple[int, ...]] = ()


@contextmanager
def acting_as(
    user: int, group: int, groups: tuple[int, ...] = _NO_GROUPS, *, capabilities: int = 0
) -> Iterator[None]:
    """Run the body with the effective ids of the caller.

    *user*, *group* and *groups* (supplementary) are numbers of the initial user namespace.
    *capabilities* is a set (1 << number) that the body keeps although it is not root.
    """
    if (user == 0 and group == 0 and not groups) or os.geteuid():
        yield  # without privileges (on pyfuse3), the caller and the daemon are the same user
        return
    if groups:
        syscalls.set_thread_groups(groups)
    try:
        syscalls.set_thread_group(group)
        try:
            if user:
                syscalls.set_thread_user(user)
            try:
                if user and capabilities:
                    _, permitted, inheritable = syscalls.capabilities()
                    syscalls.CapabilitySet(capabilities, permitted, inheritable).apply()
                yield
            finally:
                if user:
                    syscalls.set_thread_user(0)
        finally:
            syscalls.set_thread_group(0)
    finally:
        if groups:
            syscalls.set_thread_groups(_NO_GROUPS)


def create_as(
    user: int, group: int, groups: tuple[int, ...], pid: int, create: Callable[[], Result]
) -> Result:
    """Run *create* as the caller, with what the kernel told of the caller's groups.

    The kernel names one supplementary group at most (protocol 7.38), older ones none. Where that
    is not enough (a right that an ACL gives to another group, a capability that the caller has),
    the kernel has still allowed the operation: it is repeated with all groups of process *pid*
    and without permission checks.
    """
    if user == 0 and group == 0:
        return create()
    try:
        with acting_as(user, group, groups):
            return create()
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        override = 1 << syscalls.CAP_DAC_OVERRIDE | 1 << syscalls.CAP_DAC_READ_SEARCH
        with acting_as(user, group, groups_of(pid) or groups, capabilities=override):
            return create()


def groups_of(pid: int) -> tuple[int, ...]:
    """The supplementary groups of process *pid*; empty when it is gone (proc(5), ``Groups``)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Groups:"):
                    return tuple(int(word) for word in line.split()[1:])
    except OSError:
        pass
    return ()


def groups_for(descriptor: int, user: int, pid: int) -> tuple[int, ...]:
    """The groups with which *user* may change a file and keep its set-group-id bit.

    Whether the bit stays depends on being in the file's group; reading all groups of process
    *pid* takes a while, so it is done only for files that have the bit.
    """
    if user and os.fstat(descriptor).st_mode & stat.S_ISGID:
        return groups_of(pid)
    return _NO_GROUPS


class RegisteringIdentity:
    """The credentials that the kernel keeps for all bypassed I/O of one backing file.

    Bypassed writes run with the credentials of the moment of registration, whoever writes. So
    these are the *owner's* filesystem uid (reserved blocks, and network filesystems), without
    CAP_FSETID (else a write would leave set-id bits in place) and without CAP_SYS_RESOURCE (else
    it would escape quotas). CAP_SYS_ADMIN stays: registering needs it.

    Where the kernel also changes attributes by them, having checked the caller's right to, they
    keep every other capability; and CAP_FSETID, without which a chmod could not set the bits.
    That kernel takes set-id bits away by itself, before a write.
    """

    __slots__ = ("_changing", "_full", "_reduced")

    def __init__(self) -> None:
        full, permitted, inheritable = syscalls.capabilities()
        reduced = full & ~(1 << syscalls.CAP_FSETID | 1 << syscalls.CAP_SYS_RESOURCE)
        self._full = syscalls.CapabilitySet(full, permitted, inheritable)
        changing = full & ~(1 << syscalls.CAP_SYS_RESOURCE)
        self._changing = syscalls.CapabilitySet(changing, permitted, inheritable)
        self._reduced = syscalls.CapabilitySet(reduced, permitted, inheritable)

    def run(
        self, owner: int, register: Callable[[], Any], *, changes_attributes: bool = False
    ) -> Any:
        """Call *register* in this thread with the reduced credentials of *owner* (a uid).

        *changes_attributes*: the kernel is to change attributes by them, too.
        """
        reduced = self._changing if changes_attributes else self._reduced
        reduced.apply()
        try:
            if owner == 0:
                return register()
            syscalls.set_filesystem_user(owner)  # and some capabilities are gone (credentials(7))
            try:
                if changes_attributes:
                    reduced.apply()
                return register()
            finally:
                syscalls.set_filesystem_user(0)
        finally:
            self._full.apply()
