"""From settings to a session, and back: check the source, mount, negotiate INIT, unmount."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Final

import msgspec
import structlog
import trio

from inopt import syscalls
from inopt.backing.descriptors import SMALLEST_BUDGET
from inopt.backing.examine import examine
from inopt.backing.locks import Locks
from inopt.backing.tree import Tree
from inopt.exceptions import UsageError
from inopt.handlers.placement import Placement
from inopt.handlers.running import overridden
from inopt.handlers.serve import Context
from inopt.kernel import mounts
from inopt.kernel.abilities import Abilities, needs_probe
from inopt.kernel.device import Device
from inopt.kernel.dialects import Tier
from inopt.kernel.negotiate import Terms, Wishes, check_wishes, negotiate
from inopt.kernel.probe import read_init
from inopt.layers.copying import Copier
from inopt.layers.naming import LayeredNaming
from inopt.layers.options import LayerOptions
from inopt.layers.stack import Stack, layer_directory
from inopt.layers.tree import LayeredTree
from inopt.ops import Op
from inopt.session import places
from inopt.session.known import known_abilities
from inopt.session.policing import (
    Prepared,
    compile_for,
    is_stock,
    prepare,
    require_case,
    require_tier,
    watch_for,
)
from inopt.session.registering import attachments_for
from inopt.session.session import Session
from inopt.session.settings import DEFAULT_BUDGET, NO_SOURCE, Settings
from inopt.wire import notifications, replies
from inopt.wire.uapi import InitFlag

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
# Where what may be large is kept for a while (hier(7)); each has a name of its own there.
_LARGE: Final = "/var/tmp"  # noqa: S108


def _descriptor_budget(wanted: int | None) -> int:
    """Raise the soft limit of open files as far as it goes, and fit the budget into it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if wanted is None:
        return min(DEFAULT_BUDGET, hard)
    if wanted < SMALLEST_BUDGET:
        raise UsageError(f"--fd-budget {wanted}: too small: use {SMALLEST_BUDGET} or more")
    if wanted > hard:
        raise UsageError(
            f"--fd-budget {wanted}: above the hard limit of open files ({hard}): use less, or "
            "raise it with 'ulimit -Hn' (systemd: LimitNOFILE=)"
        )
    return wanted


def wishes_for(settings: Settings, source: str, prepared: Prepared) -> Wishes:
    """What is asked of the kernel. Raises `UsageError` for what excludes each other."""
    if is_stock(prepared):
        if settings.abi is not None:
            raise UsageError(
                f"--abi {settings.abi}: nothing bypasses a filesystem written for pyfuse3: leave "
                "it out"
            )
        return _stock_wishes(prepared)
    tier = settings.tier
    if tier is Tier.NONE and settings.abi is not None:
        raise UsageError(f"--abi {settings.abi}: means nothing with --tier none: leave one out")
    if tier is None and os.environ.get("INOPT_NO_BYPASS", "") not in ("", "0"):
        tier = Tier.NONE
    required = Tier[settings.policy.policy.require.upper()]
    if tier is None and required > Tier.RW:
        tier = required
    if tier is not None and tier < required:
        raise UsageError(
            f"{settings.policy.path}: requires tier '{required.label}', but '{tier.label}' was "
            "asked for: leave --tier (and INOPT_NO_BYPASS) out, or use another policy"
        )
    methods = overridden(prepared.handler_class) if prepared.handler_class else frozenset()
    wishes = Wishes(
        tier=tier,
        abi=settings.abi if tier is not Tier.NONE else None,
        acl=examine(source).acls if settings.options.acl is None else settings.options.acl,
        writeback_cache=settings.options.writeback_cache,
        max_stack_depth=settings.options.max_stack_depth,
        export=settings.layers is None,
        cache_symlinks=Op.READLINK not in prepared.rules.touched,
        posix_locks=not methods.isdisjoint(("getlk", "setlk")),
        flock_locks="flock" in methods,
    )
    check_wishes(wishes)
    return wishes


def _stock_wishes(prepared: Prepared) -> Wishes:
    """What a filesystem written for pyfuse3 says that it can do."""
    handlers: Any = prepared.handlers or prepared.handler_class
    return Wishes(
        tier=Tier.NONE,
        acl=bool(handlers.enable_acl),
        writeback_cache=bool(handlers.enable_writeback_cache),
        export=bool(handlers.supports_dot_lookup),
        like_libfuse=True,
    )


@asynccontextmanager
async def mounted(settings: Settings) -> AsyncIterator[Session]:
    """Mount, serve while the body runs, and unmount.

    Raises `UsageError` for what the user can mend and `InoptError` for the rest; then nothing is
    mounted and nothing left behind.
    """
    prepared = prepare(settings.policy, settings)
    with ExitStack() as places_made:
        settings = _with_upper(settings, places_made)
        source = _source_of(settings, prepared, places_made)
        async with _mounted(settings, prepared, source) as session:
            yield session


def _with_upper(settings: Settings, places_made: ExitStack) -> Settings:
    """Make the upper layer of a mount that keeps none; it is taken away afterwards.

    In ``TMPDIR``, or in /var/tmp: what is meant to be small is often in memory.
    """
    layers = settings.layers
    if layers is None or not layers.temporary:
        return settings
    place = os.path.abspath(os.environ.get("TMPDIR") or _LARGE)
    try:
        made = places_made.enter_context(tempfile.TemporaryDirectory(prefix="inopt-", dir=place))
    except OSError as error:
        raise UsageError(
            f"--temporary: nothing can be made in '{place}': {error.strerror}: "
            "set TMPDIR to a directory that can be written to"
        ) from error
    upper, work = os.path.join(made, "upper"), os.path.join(made, "work")
    for path in (upper, work):
        os.mkdir(path)
    os.chmod(upper, os.stat(layers.lower[0]).st_mode & 0o7777)
    replaced = msgspec.structs.replace(layers, upper=upper, work=work)
    _log.info("changes are lost when this is unmounted", upper=upper)
    return msgspec.structs.replace(settings, source=upper, layers=replaced)


def _source_of(settings: Settings, prepared: Prepared, places_made: ExitStack) -> str:
    """The real path of the source; an empty directory, taken away afterwards, where none is."""
    if settings.source != NO_SOURCE:
        if is_stock(prepared) and settings.layers is not None:
            raise UsageError(
                "--lower: the handlers are a filesystem of their own, without a backing tree: give "
                f"'{NO_SOURCE}' and the mountpoint instead of layers"
            )
        if is_stock(prepared):
            raise UsageError(
                f"source '{settings.source}': the handlers are a filesystem of their own, without "
                f"a backing tree: give '{NO_SOURCE}'"
            )
        if settings.layers is not None:
            return layer_directory(*settings.layers.top)
        return places.check_source(settings.source)
    if prepared.handler_class is None:
        raise UsageError(
            f"source '{NO_SOURCE}': without a backing tree everything must be handled: name "
            "handlers in the policy or with --handlers"
        )
    empty = tempfile.TemporaryDirectory(prefix="source-", dir=places.runtime_directory())
    return places_made.enter_context(empty)


@asynccontextmanager
async def _mounted(settings: Settings, prepared: Prepared, source: str) -> AsyncIterator[Session]:
    wishes = wishes_for(settings, source, prepared)
    budget = _descriptor_budget(settings.fd_budget)
    mountpoint = places.check_mountpoint(settings.mountpoint, source)
    _require_outside(mountpoint, settings.layers)
    settings = msgspec.structs.replace(settings, source=source)
    if not is_stock(prepared):
        _be_nobody_in_particular()
    device = Device()
    try:
        tree = _open_tree(settings, source, budget)
        try:
            require_case(prepared, tree, source)
            tree.watch = watch_for(prepared, tree)
            mounts.mount(device, source, mountpoint, settings.options)
            try:
                session = begin(settings, mountpoint, device, tree, wishes, prepared)
            except BaseException:
                mounts.unmount(mountpoint, lazy=True)
                raise
        except BaseException:
            tree.close()
            raise
    except BaseException:
        device.close()
        raise
    _log.info(
        "mounted",
        source=source,
        mountpoint=mountpoint,
        policy=settings.policy.path,
        tier=session.terms.tier.label,
        dialect=session.terms.dialect.name,
        protocol=f"7.{session.terms.minor}",
        fd_budget=budget,
    )
    prepared.log_findings()
    if settings.tier is None and session.terms.tier is Tier.NONE:
        _log.warning("no bypass on this kernel: the daemon serves everything; see 'inopt doctor'")
    if not tree.has_handles:
        _log.warning("no file handles here: each known inode costs a descriptor", source=source)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            await session.start(nursery)
            try:
                yield session
            except Exception as error:
                failure = error  # raised as it is, not in the nursery's group
            finally:
                with trio.CancelScope(shield=True):
                    if not session.has_ended:
                        await session.unmount()
                        await session.wait_ended()
                    nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            # After the background tasks, which have ended with the nursery.
            await session.stop()
            await trio.to_thread.run_sync(session.close)
        _log.info("unmounted", mountpoint=mountpoint)
    if failure is not None:
        raise failure


def begin(
    settings: Settings,
    mountpoint: str,
    device: Device,
    tree: Tree,
    wishes: Wishes,
    prepared: Prepared,
    *,
    privileged: bool | None = None,
    proof: Abilities | None = None,
) -> Session:
    """Come to terms with the kernel that is behind *device*; nothing is served yet.

    *privileged*: whether it takes backing files; *proof*: what it can do. None to find out.
    """
    if privileged is None:
        privileged = syscalls.has_capability(syscalls.CAP_SYS_ADMIN)
    unique, offer = read_init(device)
    if proof is None and needs_probe(offer.flags, wishes.tier, wishes.abi):
        proof = known_abilities(offer.flags)
    terms = negotiate(offer, wishes, privileged=privileged, proof=proof)
    require_tier(settings.policy, terms)
    os.write(device.descriptor, replies.message(unique, terms.reply))
    dialect = terms.dialect
    attachments = attachments_for(tree, device, terms)
    bypasses = terms.tier >= Tier.RW and not dialect.one_shot
    if bypasses and settings.options.noatime and tree.has_handles:
        tree.leave_access_times()
    placement = Placement(compile_for(prepared, terms), tree)
    naming = None
    if isinstance(tree, LayeredTree):
        tree.is_bound = lambda inode: bool(attachments.backing_id(inode))
        tree.finder.choose = placement.layer
        naming = LayeredNaming(tree, Copier(tree, placement.require_copy_up))
    context = Context(
        tree,
        placement,
        attachments,
        dialect,
        settings.policy.policy.cache,
        lambda nodeid: _tell(device, notifications.invalidate_inode(nodeid, -1, 0)),
        tell=lambda message: _tell(device, message),
        locks=_locks_for(tree, terms),
        names=naming,
        open_flags=settings.options.open_flags,
        reads_back=terms.has(InitFlag.WRITEBACK_CACHE),
    )
    if isinstance(tree, LayeredTree):
        tree.moved = context.reopen
    return Session(settings, mountpoint, device, context, terms, prepared)


def _tell(device: Device, message: bytes) -> None:
    with suppress(OSError):  # ENOENT: the kernel does not know it any more; or all has ended
        device.notify(message)


def _locks_for(tree: Tree, terms: Terms) -> Locks | None:
    """The locks that the kernel does not keep by itself, None if it keeps all."""
    posix, flock = terms.has(InitFlag.POSIX_LOCKS), terms.has(InitFlag.FLOCK_LOCKS)
    return Locks(tree, posix=posix, flock=flock) if posix or flock else None


def _require_outside(mountpoint: str, layers: LayerOptions | None) -> None:
    """What is mounted must not lie in a layer, nor hide one."""
    for path in () if layers is None else (*layers.lower, layers.upper, layers.work):
        if path is not None and os.path.isdir(path):
            places.check_mountpoint(mountpoint, os.path.realpath(path))


def _open_tree(settings: Settings, source: str, budget: int) -> Tree:
    if settings.layers is not None:
        return LayeredTree(Stack(settings.layers, noatime=settings.options.noatime), budget)
    try:
        return Tree(source, budget)
    except OSError as error:
        raise UsageError(f"source '{source}': cannot be opened: {error.strerror}") from error


def _be_nobody_in_particular() -> None:
    """Drop what this process has inherited that would show in files made for others.

    Its umask would not: each file is made with the caller's.
    """
    if os.geteuid() == 0:
        os.setgroups([])
