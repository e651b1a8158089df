"""Handlers on stock pyfuse3: no privileges, any kernel, no bypass. Policies hold in the daemon."""

from __future__ import annotations

import errno
import inspect
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Final

import pyfuse3
import structlog
import trio

from inopt.backing.attach import Attachments
from inopt.backing.examine import examine
from inopt.backing.tree import Tree
from inopt.exceptions import InoptError, UsageError
from inopt.handlers.adapt import METHODS, errno_of
from inopt.handlers.answers import MisuseError
from inopt.handlers.base import Handlers
from inopt.handlers.daemon import Daemon
from inopt.handlers.gates import Gate, gates
from inopt.handlers.placement import Placement
from inopt.handlers.reach import Backing, SessionReach
from inopt.handlers.running import methods_of, overridden, overrides, served_by
from inopt.handlers.serve import Context, Serve
from inopt.handlers.types import EntryAttributes, FileInfo
from inopt.kernel.device import Device
from inopt.kernel.dialects import PLAIN, Tier
from inopt.ops import OPCODE_LIMIT, Op, OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.session import places
from inopt.session.embedding import settings_for
from inopt.session.places import check_source
from inopt.session.policing import Prepared, is_stock, prepare, require_case
from inopt.session.settings import DEFAULT_BUDGET, NO_SOURCE, Settings
from inopt.wire import bodies
from inopt.wire.bodies import Header

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_NO_DEVICE: Final = Device(-1)

_KINDS: Final[dict[str, type]] = {
    **dict.fromkeys(
        ("lookup", "getattr", "setattr", "mknod", "mkdir", "symlink", "link"),
        pyfuse3.EntryAttributes,
    ),
    **dict.fromkeys(("readlink", "read", "getxattr"), bytes),
    **dict.fromkeys(("opendir", "write", "poll"), int),
    "open": pyfuse3.FileInfo,
    "create": tuple,
    "statfs": pyfuse3.StatvfsData,
    "listxattr": Sequence,
}


class _HandledError(Exception):
    """The policy gives the operation to the user's handler."""


# The inodes that a handler is told of being forgotten, while it is told.
_forgotten: Final[ContextVar[frozenset[int]]] = ContextVar("inopt_forgotten", default=frozenset())


class OpenersDaemon(Daemon):
    """The daemon's own operations where reads and writes do not tell who does them.

    They are done as who opened the file: else all writes would be root's, which leave set-id
    bits in place and do not heed quotas. And attributes are filled in: libfuse gets them from
    pyfuse3, past all that Python could do about it.
    """

    def _attributes_in(self, payload: bytes, nodeid: int) -> EntryAttributes:
        """The attributes in a reply."""
        return self._unpack(payload, nodeid)

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give back lookups; those that the kernel is just giving back are no handler's affair."""
        told = _forgotten.get()
        super().forget([(inode, count) for inode, count in inode_list if inode not in told])

    def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """OPEN."""
        info = super().open(inode, flags, ctx)
        self.context.files.get(info.fh).opener = ctx
        return info

    def _create(
        self,
        opcode: Op,
        parent: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        made = super()._create(opcode, parent, name, mode, flags, ctx)
        self.context.files.get(made[0].fh).opener = ctx
        return made

    def write(self, fh: int, off: int, buf: bytes) -> int:
        """WRITE; one that appends goes to where the kernel believes the end."""
        file = self.context.files.get(fh)
        body = bodies.Write(fh, off, len(buf), 0, 0, 0, memoryview(buf))
        return int.from_bytes(
            self._call(Op.WRITE, file.inode.nodeid, body, file.opener)[:4], "little"
        )


class GatedDaemon(OpenersDaemon):
    """The daemon's own operations behind the gates of the policy."""

    def __init__(self, context: Context, handled: Iterable[int]) -> None:
        super().__init__(context)
        handlers: list[Serve | None] = [None] * OPCODE_LIMIT
        for opcode in handled:
            if opcode < OPCODE_LIMIT:  # no part of one
                handlers[opcode] = _raise_handled
        self._gates: list[Gate | None] = gates(context, self._table, handlers)

    def function(self, header: Header, body: Any) -> Serve:
        """What serves the operation, after the policy has been asked."""
        gate = self._gates[header.opcode]
        chosen = gate(header, body) if gate is not None else None
        return chosen or super().function(header, body)


def _raise_handled(_header: Header, _body: Any) -> bytes:
    raise _HandledError


class Elsewhere(pyfuse3.Operations):
    """What pyfuse3 serves: each call goes to the daemon's own function or to the handler."""

    supports_dot_lookup = True

    def __init__(
        self,
        gated: GatedDaemon,
        handlers: Handlers | None,
        *,
        acl: bool = False,
        writeback_cache: bool = False,
    ) -> None:
        self.enable_acl = acl
        self.enable_writeback_cache = writeback_cache
        self._gated = gated
        self._handlers = handlers
        names = set(METHODS)
        if handlers is None or not overrides(type(handlers), "poll"):
            names.discard("poll")  # pyfuse3's own ends all asking
        for name in names:
            if hasattr(pyfuse3.Operations, name):
                setattr(self, name, self._method(name))
        self._has_failed_to_forget = False

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel drops lookups: handlers are told, then they go."""
        handlers = self._handlers
        if handlers is not None and overrides(type(handlers), "forget"):
            token = _forgotten.set(frozenset(inode for inode, _ in inode_list))
            try:
                told: Any = handlers.forget(list(inode_list))
                if inspect.isawaitable(told):
                    await told
            except Exception:
                if not self._has_failed_to_forget:
                    self._has_failed_to_forget = True
                    _log.exception("forget failed; further failures are not logged")
            finally:
                _forgotten.reset(token)
        for inode, count in inode_list:
            self._gated.context.tree.forget(inode, count)

    def _method(self, name: str) -> Callable[..., Any]:
        serve = getattr(self._gated, name)

        async def call(*arguments: Any) -> Any:
            try:
                try:
                    return serve(*arguments)
                except _HandledError:
                    result = getattr(self._handlers, name)(*arguments)
                    result = await result if inspect.isawaitable(result) else result
                    return _checked(name, result)
            except pyfuse3.FUSEError:
                raise
            except OSError as error:
                raise pyfuse3.FUSEError(errno_of(error) or errno.EIO) from error
            except Exception as error:
                _log.exception("request failed", operation=name)
                raise pyfuse3.FUSEError(errno.EIO) from error

        return call


def _checked(name: str, result: Any) -> Any:
    """*result*, if it is of the kind that pyfuse3 takes: it ends the mount over anything else."""
    if not isinstance(result, _KINDS.get(name, type(None))):
        raise MisuseError(f"the handler of {name} returned {result!r:.60}")
    return result


def serve_on_pyfuse3(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Serve the mount of *settings* through pyfuse3 until it is unmounted, or told to stop.

    What only inopt's own session has is left out: bypass, cached directories, notifications,
    reload. Raises `UsageError` and `InoptError`.
    """
    prepared = prepare(settings.policy, settings)
    _require_little(settings)
    handlers = prepared.handlers
    if handlers is None and prepared.handler_class is not None:
        handlers = prepared.handler_class()
    if handlers is not None and is_stock(prepared):
        _serve(handlers, settings, ready, None)
        return
    if settings.source == NO_SOURCE:
        raise UsageError(
            f"source '{NO_SOURCE}': the handlers need a backing tree: name a directory"
        )
    source = check_source(settings.source)
    os.umask(0)
    acl = settings.options.acl
    tree = Tree(source, settings.fd_budget or DEFAULT_BUDGET)
    try:
        require_case(prepared, tree, source)
    except BaseException:
        tree.close()
        raise
    context = _context(tree, prepared, settings)
    try:
        served = served_by(prepared.handler_class) if prepared.handler_class else frozenset()
        _warn_of_missing(prepared)
        own = handlers if isinstance(handlers, Handlers) else None
        if own is not None:
            own.daemon = OpenersDaemon(context)
            own.backing = Backing(context)
        elsewhere = Elsewhere(
            GatedDaemon(context, served),
            own,
            acl=examine(source).acls if acl is None else acl,
            writeback_cache=settings.options.writeback_cache,
        )
        prepared.log_findings()
        _serve(elsewhere, settings, ready, own)
    finally:
        context.close()


def _warn_of_missing(prepared: Prepared) -> None:
    """Tell of methods that pyfuse3 has no words for: they are never called."""
    handler_class = prepared.handler_class
    if handler_class is None or not methods_of(handler_class):
        return
    missing = sorted(
        name for name in overridden(handler_class) if not hasattr(pyfuse3.Operations, name)
    )
    if missing:
        _log.warning(
            "pyfuse3 never asks for what the handlers override",
            methods=missing,
            served_by="the kernel, or nobody: see docs/handlers.md",
        )


def run_pyfuse3(
    handlers: pyfuse3.Operations | None,
    mountpoint: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    policy: str | os.PathLike[str] | None = None,
) -> None:
    """Serve *handlers* with stock pyfuse3, without privileges and without bypass.

    The parameters are those of `inopt.run`. Returns when unmounted, or told to stop.
    """
    serve_on_pyfuse3(settings_for(handlers, source, mountpoint, policy=policy))


def _require_little(settings: Settings) -> None:
    """Raise `UsageError` for what stock pyfuse3 cannot do."""
    if settings.layers is not None:
        raise UsageError("--lower: no layers with stock pyfuse3: use --transport kernel")
    if settings.policy.policy.cache.coherence != "timeout":
        raise UsageError(
            f"{settings.policy.place('cache', 'coherence')}: coherence 'notify': not with stock "
            "pyfuse3: use --transport kernel, or 'coherence: timeout'"
        )
    required = Tier[settings.policy.policy.require.upper()]
    if required > Tier.NONE:
        raise UsageError(
            f"{settings.policy.path}: requires tier '{required.label}', but pyfuse3 has no bypass: "
            "use --transport kernel, or another policy"
        )
    if settings.tier is not None and settings.tier > Tier.NONE:
        raise UsageError(
            f"--tier {settings.tier.label}: pyfuse3 has no bypass: use --transport kernel"
        )
    if settings.abi is not None:
        raise UsageError(f"--abi {settings.abi}: pyfuse3 has no bypass: use --transport kernel")


def _context(tree: Tree, prepared: Prepared, settings: Settings) -> Context:
    policy = CompiledPolicy(prepared.rules, reads_and_writes=False, kernel=OpsMask())
    return Context(
        tree,
        Placement(policy, tree),
        Attachments(),
        PLAIN,
        prepared.loaded.policy.cache,
        lambda _nodeid: None,
        open_flags=settings.options.open_flags,
        reads_back=settings.options.writeback_cache,
    )


class Pyfuse3Reach(SessionReach):
    """The mount as handlers see it, on stock pyfuse3.

    There is no request to ask about: `request` answers None, and nothing bypasses.
    """

    def __init__(self, context: Context, nursery: trio.Nursery, mountpoint: str) -> None:
        directory = places.runtime_directory()
        super().__init__(context, _NO_DEVICE, nursery, _no_stats, mountpoint, directory)

    async def invalidate_inode(self, inode: int, *, attributes_only: bool = False) -> bool:
        """Make the kernel drop what it remembers of an inode; False if it remembers nothing."""
        return await _known(pyfuse3.invalidate_inode, inode, attributes_only)

    async def invalidate_entry(self, parent: int, name: bytes, deleted: int = 0) -> bool:
        """Make the kernel drop a name; with *deleted*, its inode, tell that it was removed."""
        return await _known(pyfuse3.invalidate_entry, parent, name, deleted)

    async def expire_entry(self, parent: int, name: bytes) -> bool:
        """Drop the name: pyfuse3 cannot say "expire"."""
        return await self.invalidate_entry(parent, name)

    async def store(self, inode: int, offset: int, data: bytes) -> bool:
        """Put data into the kernel's cache of an inode."""
        return await _known(pyfuse3.notify_store, inode, offset, data)


async def _known(tell: Callable[..., None], *arguments: Any) -> bool:
    # In a thread: the kernel may wait for what only this loop can bring.
    try:
        await trio.to_thread.run_sync(tell, *arguments)
    except FileNotFoundError:
        return False
    return True


def _no_stats() -> dict[str, Any]:
    return {}


def _mount_options(settings: Settings) -> set[str]:
    options = {f"fsname={settings.options.source_name or 'inopt'}", "default_permissions"}
    words = settings.options.words()
    if os.geteuid() == 0:
        options.add("allow_other")
    else:
        words = [word for word in words if word not in ("suid", "dev")]  # not for users to say
    if settings.options.max_read is not None:
        options.add(f"max_read={settings.options.max_read}")
    return options | set(words)


def _serve(
    operations: pyfuse3.Operations,
    settings: Settings,
    ready: Callable[[], None],
    own: Handlers | None,
) -> None:
    options = _mount_options(settings)
    try:
        pyfuse3.init(operations, settings.mountpoint, options)
    except RuntimeError as error:
        raise InoptError(f"mountpoint '{settings.mountpoint}': {error}") from error
    try:
        trio.run(_main, own, settings.mountpoint, ready)
    finally:
        pyfuse3.close(unmount=True)


async def _main(own: Handlers | None, mountpoint: str, ready: Callable[[], None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def stop() -> None:
            async for _ in signals:
                pyfuse3.terminate()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            if own is not None:
                own.session = Pyfuse3Reach(own.daemon.context, nursery, mountpoint)
                await own.started(own.session)
            ready()
            await pyfuse3.main()
            nursery.cancel_scope.cancel()
    if own is not None:
        await own.stopped()
