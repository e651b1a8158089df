"""What `bench/handlers.py` mounts: classes that override one operation, and pass it on."""

from __future__ import annotations

import pyfuse3

import inopt


class Async(inopt.Handlers):
    """An ``async def`` that does nothing of its own."""

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> inopt.EntryAttributes:
        """GETATTR."""
        return await super().getattr(inode, ctx)


class Plain(inopt.Handlers):
    """A plain ``def`` that does nothing of its own."""

    @inopt.plain
    def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> inopt.EntryAttributes:
        """GETATTR."""
        return self.daemon.getattr(inode, ctx)
