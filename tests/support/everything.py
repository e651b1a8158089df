"""Handlers that override every method and do what the daemon does: by super(), or plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from inopt import Handlers
from inopt.handlers import adapt

METHODS: Final = tuple(sorted(adapt.METHODS))


class AsyncEverything(Handlers):
    """Every method is ``async def`` and awaits super()."""


class PlainEverything(Handlers):
    """Every method is a plain ``def`` and calls ``self.daemon``."""


def _async_method(name: str) -> Callable[..., Any]:
    async def method(self: AsyncEverything, *arguments: Any) -> Any:
        return await getattr(super(AsyncEverything, self), name)(*arguments)

    return method


def _plain_method(name: str) -> Callable[..., Any]:
    def method(self: PlainEverything, *arguments: Any) -> Any:
        return getattr(self.daemon, name)(*arguments)

    return method


for _name in (*METHODS, "forget"):
    setattr(AsyncEverything, _name, _async_method(_name))
    setattr(PlainEverything, _name, _plain_method(_name))
