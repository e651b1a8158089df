"""The gates of attributes, those of inodes and the extended ones."""

from __future__ import annotations

from functools import partial

from inopt.handlers.gates.deciding import Deciding, Gate, Substitute
from inopt.handlers.serve import Serve
from inopt.handlers.serve.attributes import unchanged
from inopt.handlers.serve.extended import changes_flags, is_acl
from inopt.ops import Op
from inopt.policy.plan import CONDITIONAL, HANDLER
from inopt.policy.words import Part
from inopt.wire import bodies, uapi
from inopt.wire.bodies import Header


class AttributeGates(Deciding):
    """The gates of SETATTR, of extended attributes, and of IOCTL, which sets inode flags."""

    def by_opcode(self) -> dict[int, Gate]:
        """The gates."""
        return {
            Op.SETATTR: self.setattr_,
            Op.GETXATTR: self.getxattr,
            Op.SETXATTR: self.change_xattr,
            Op.REMOVEXATTR: self.change_xattr,
            Op.IOCTL: self.ioctl,
        }

    def setattr_(self, header: Header, body: bodies.Setattr) -> Serve | None:
        """SETATTR: each part of it must be allowed; a handler for any of them gets it all."""
        plan = self.placement.plan(self.inode(header))
        parts = _parts(body.valid)
        if not parts:
            # chown(path, -1, -1), or a write that is to remove privileges: it removes them itself.
            code = plan.codes[Part.CHOWN]
            if code <= 0 and code != CONDITIONAL:
                return self.handler(Op.SETATTR) if code == HANDLER else None
            return Substitute(partial(unchanged, self.context))
        return self.decide(plan, header, *parts)

    def getxattr(self, header: Header, body: bodies.Getxattr) -> Serve | None:
        """GETXATTR: ACLs are always told, the kernel decides by them."""
        if is_acl(body.name):
            return None
        return self.decide(self.placement.plan(self.inode(header)), header, Op.GETXATTR)

    def change_xattr(
        self, header: Header, body: bodies.Setxattr | bodies.Removexattr
    ) -> Serve | None:
        """SETXATTR and REMOVEXATTR: an ACL is a mode, too."""
        plan = self.placement.plan(self.inode(header))
        more = (Part.CHMOD,) if is_acl(body.name) else ()
        return self.decide(plan, header, header.opcode, *more)

    def ioctl(self, header: Header, body: bodies.Ioctl) -> Serve | None:
        """IOCTL: setting inode flags is a change of attributes."""
        plan = self.placement.plan(self.inode(header))
        more = (Part.CHATTR,) if changes_flags(body.command) else ()
        return self.decide(plan, header, Op.IOCTL, *more)


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
