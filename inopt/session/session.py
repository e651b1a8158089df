"""One mount from beginning to end: mount, negotiate, serve, unmount."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
import structlog
import trio

from inopt import syscalls
from inopt.backing.attach import Attachments
from inopt.backing.descriptors import SMALLEST_BUDGET
from inopt.backing.examine import examine
from inopt.backing.filesystems import ignores_case
from inopt.backing.inodes import Inode
from inopt.backing.tree import Tree
from inopt.exceptions import InoptError, UsageError
from inopt.handlers.placement import Placement
from inopt.handlers.serve import Context
from inopt.kernel import mounts
from inopt.kernel.device import Device
from inopt.kernel.dialects import Tier
from inopt.kernel.negotiate import Terms, Wishes, check_wishes, negotiate
from inopt.kernel.options import MountOptions
from inopt.kernel.probe import read_init
from inopt.ops import Op
from inopt.policy.load import Loaded, load_policy
from inopt.session import control, explain, places, reload, stats
from inopt.session.loop import INTERRUPT_SIGNAL, Loop
from inopt.session.policing import Policing, Prepared, compile_for, prepare
from inopt.wire import notifications, replies
from inopt.wire.requests import Decoder
from inopt.wire.uapi import InitFlag

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

DEFAULT_BUDGET: Final = 4096
DEFAULT_READERS: Final = 8
_GRACE: Final = 10.0  # seconds that readers have to finish when the session has ended


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What to mount, where and how.

    ``fd_budget`` is how many descriptors the daemon may hold, None for the default or the
    system's limit, whichever is less. ``readers`` is the largest number of reader threads.
    """

    source: str
    mountpoint: str
    policy: Loaded
    tier: Tier | None = None
    options: MountOptions = MountOptions()
    fd_budget: int | None = None
    readers: int = DEFAULT_READERS


class Session:
    """A mounted session. Made by `mounted`."""

    def __init__(
        self,
        settings: Settings,
        mountpoint: str,
        device: Device,
        context: Context,
        terms: Terms,
        prepared: Prepared,
    ) -> None:
        self.settings = settings
        self.mountpoint = mountpoint
        self.terms = terms
        self._context = context
        self._device = device
        self._started = time.monotonic()
        self._ended = trio.Event()
        self._policing = Policing(context, prepared)
        self._reloading = trio.Lock()
        token = trio.lowlevel.current_trio_token()
        self._loop = Loop(
            device,
            Decoder(terms.minor, setxattr_ext=terms.has(InitFlag.SETXATTR_EXT)),
            context,
            self._policing.table,
            self._policing.gates,
            settings.readers,
            lambda: token.run_sync_soon(self._ended.set),
        )
        self._loop.start()
        found = mounts.find_mount(mountpoint)
        self.device_minor = found.device_minor if found is not None else -1

    @property
    def has_ended(self) -> bool:
        """Whether the kernel has ended the session, or the daemon gave up."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait until the kernel has ended the session: it is unmounted, or was aborted."""
        await self._ended.wait()

    def stats(self) -> dict[str, Any]:
        """Counts by opcode and route, and the session's facts; see `inopt.session.stats`."""
        return {
            "mountpoint": self.mountpoint,
            "source": self.settings.source,
            "policy": self._policing.prepared.loaded.path,
        } | stats.snapshot(
            self._context, self.terms, self._loop.counts, self._started, self._loop.active
        )

    def explain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Who serves what on one path, and why; see `inopt.session.explain`."""
        return explain.explain(self._context, self._policing.prepared, self.terms, arguments)

    async def reload(self, name: str | None = None) -> dict[str, Any]:
        """Replace the policy by the file or shipped policy *name*; by default its own file again.

        Returns counts; see `inopt.session.reload`. Raises `UsageError`, and keeps the old policy,
        if the new one cannot be enforced, or not on this mount.
        """
        async with self._reloading:
            report = await trio.to_thread.run_sync(self._reload, name)
        _log.info("policy replaced", **{k: v for k, v in report.items() if k != "mountpoint"})
        return report

    def _reload(self, name: str | None) -> dict[str, Any]:
        path = name or os.path.abspath(self._policing.prepared.loaded.path)
        prepared = prepare(load_policy(path))
        policy = prepared.loaded.policy
        _require_tier(prepared.loaded, self.terms)
        _require_case(prepared, self._context.tree, self.settings.source)
        if self.terms.has(InitFlag.CACHE_SYMLINKS) and prepared.rules.depends(Op.READLINK):
            raise UsageError(
                f"{path}: who may read a symbolic link depends on the caller or on facts, but the "
                "kernel caches links since this mount was made: unmount, and mount again"
            )
        context = self._context
        context.keep_caches(policy.cache)
        self._loop.gates = self._policing.replace(prepared, compile_for(prepared, self.terms))
        prepared.log_findings()
        report = reload.settle(context)
        how = reload.make_stale(self._device, context, self.terms)
        return {
            "mountpoint": self.mountpoint,
            "policy": prepared.loaded.path,
            "invalidated_by": how,
        } | report

    async def unmount(self) -> None:
        """Unmount; while the mount is in use, it is only detached and served to its last user."""
        try:
            await trio.to_thread.run_sync(mounts.unmount, self.mountpoint)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # not mounted any more
            _log.warning(
                "in use: detached, and served until its last user is gone",
                mountpoint=self.mountpoint,
                error=error.strerror,
            )
            await trio.to_thread.run_sync(lambda: mounts.unmount(self.mountpoint, lazy=True))

    def abort(self) -> None:
        """End the session now: requests in flight fail."""
        _log.warning("aborting", mountpoint=self.mountpoint)
        if not mounts.abort(self.mountpoint, self.device_minor):
            # The kernel aborts a session whose device is closed, and readers hold it open.
            with suppress(OSError):
                os.unlink(places.control_path(self.device_minor))
            os._exit(1)

    def close(self) -> None:
        """Free everything, once the session has ended; a mount that was aborted goes, too."""
        found = mounts.find_mount(self.mountpoint)
        if found is not None and found.device_minor == self.device_minor:
            mounts.unmount(self.mountpoint, lazy=True)
        if not self._loop.join(_GRACE):
            _log.error("a request is stuck; its thread is left behind", mountpoint=self.mountpoint)
            return
        self._context.close()
        self._device.close()


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


def _wishes(settings: Settings, source: str, prepared: Prepared) -> Wishes:
    tier = settings.tier
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
    wishes = Wishes(
        tier=tier,
        acl=examine(source).acls if settings.options.acl is None else settings.options.acl,
        writeback_cache=settings.options.writeback_cache,
        max_stack_depth=settings.options.max_stack_depth,
        cache_symlinks=Op.READLINK not in prepared.rules.touched,
    )
    check_wishes(wishes)
    return wishes


@asynccontextmanager
async def mounted(settings: Settings) -> AsyncIterator[Session]:
    """Mount, serve while the body runs, and unmount.

    Raises `UsageError` for what the user can mend and `InoptError` for the rest; then nothing is
    mounted and nothing left behind.
    """
    prepared = prepare(settings.policy)
    source = places.check_source(settings.source)
    wishes = _wishes(settings, source, prepared)
    budget = _descriptor_budget(settings.fd_budget)
    mountpoint = places.check_mountpoint(settings.mountpoint, source)
    settings = msgspec.structs.replace(settings, source=source)
    _be_nobody_in_particular()
    device = Device()
    try:
        tree = _open_tree(source, budget)
        try:
            _require_case(prepared, tree, source)
            mounts.mount(device, source, mountpoint, settings.options)
            try:
                session = _begin(settings, mountpoint, device, tree, wishes, prepared)
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
    try:
        yield session
    finally:
        with trio.CancelScope(shield=True):
            if not session.has_ended:
                await session.unmount()
                await session.wait_ended()
            await trio.to_thread.run_sync(session.close)
        _log.info("unmounted", mountpoint=mountpoint)


def _begin(
    settings: Settings,
    mountpoint: str,
    device: Device,
    tree: Tree,
    wishes: Wishes,
    prepared: Prepared,
) -> Session:
    unique, offer = read_init(device)
    terms = negotiate(offer, wishes, privileged=syscalls.has_capability(syscalls.CAP_SYS_ADMIN))
    _require_tier(settings.policy, terms)
    os.write(device.descriptor, replies.message(unique, terms.reply))
    dialect = terms.dialect
    attachments = Attachments()
    if terms.tier >= Tier.RW:

        def register(inode: Inode, descriptor: int) -> int:
            with tree.quiet(inode, descriptor) as file:
                return dialect.register(device, file)

        attachments = Attachments(register, lambda backing_id: dialect.release(device, backing_id))
        if settings.options.noatime and tree.has_handles:
            tree.leave_access_times()
    context = Context(
        tree,
        Placement(compile_for(prepared, terms), tree),
        attachments,
        dialect,
        settings.policy.policy.cache,
        lambda nodeid: _invalidate_attributes(device, nodeid),
        open_flags=settings.options.open_flags,
        reads_back=terms.has(InitFlag.WRITEBACK_CACHE),
    )
    return Session(settings, mountpoint, device, context, terms, prepared)


def _require_case(prepared: Prepared, tree: Tree, source: str) -> None:
    """Raise `UsageError` where path rules could be got round by another spelling of a name."""
    if prepared.rules.by_path and ignores_case(tree.root.descriptor):
        raise UsageError(
            f"source '{source}': its filesystem finds names whatever their case, so the path rules "
            f"of {prepared.loaded.path} could be got round: use a case-sensitive filesystem, or a "
            "policy without 'path'"
        )


def _require_tier(loaded: Loaded, terms: Terms) -> None:
    required = Tier[loaded.policy.require.upper()]
    if terms.tier < required:
        raise UsageError(
            f"{loaded.path}: requires tier '{required.label}', but this kernel gives "
            f"'{terms.tier.label}': see 'inopt doctor'"
        )


def _invalidate_attributes(device: Device, nodeid: int) -> None:
    with suppress(OSError):  # ENOENT: the kernel does not know it any more
        os.write(device.descriptor, notifications.invalidate_inode(nodeid, -1, 0))


def _open_tree(source: str, budget: int) -> Tree:
    try:
        return Tree(source, budget)
    except OSError as error:
        raise UsageError(f"source '{source}': cannot be opened: {error.strerror}") from error


def _be_nobody_in_particular() -> None:
    """Drop what this process has inherited that would show in files made for others."""
    os.umask(0)
    if os.geteuid() == 0:
        os.setgroups([])


async def run(settings: Settings, ready: Callable[[], None]) -> None:
    """Mount, call *ready* when requests are served, and serve until unmounted or told to stop.

    SIGHUP reads the policy again; at a terminal, which hangs up, it is like SIGTERM and SIGINT:
    they unmount, and a second one aborts.
    """
    signal.signal(INTERRUPT_SIGNAL, lambda *_: None)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with mounted(settings) as session, trio.open_nursery() as nursery:
            await nursery.start(
                control.serve,
                places.control_path(session.device_minor),
                _commands(session),
            )
            nursery.start_soon(_obey, signals, session, nursery)
            try:
                ready()
            except OSError as error:
                raise InoptError(f"cannot report readiness: {error.strerror}") from error
            await session.wait_ended()
            nursery.cancel_scope.cancel()


def _commands(session: Session) -> control.Commands:
    async def stats_(_arguments: dict[str, Any]) -> dict[str, Any]:
        return session.stats()

    async def reload_(arguments: dict[str, Any]) -> dict[str, Any]:
        return await session.reload(arguments.get("policy"))

    async def explain_(arguments: dict[str, Any]) -> dict[str, Any]:
        return await trio.to_thread.run_sync(session.explain, arguments)

    return {"stats": stats_, "reload": reload_, "explain": explain_}


async def _reload_and_log(session: Session) -> None:
    try:
        await session.reload()
    except InoptError as error:
        for line in str(error).splitlines():
            _log.error("policy not replaced", reason=line)
    except OSError as error:
        _log.error("policy not replaced", reason=error.strerror)


async def _obey(signals: AsyncIterator[int], session: Session, nursery: trio.Nursery) -> None:
    asked = False
    at_terminal = os.isatty(0)
    async for number in signals:
        if number == signal.SIGHUP and not at_terminal:
            nursery.start_soon(_reload_and_log, session)
            continue
        _log.info("asked to stop", signal=signal.Signals(number).name)
        if asked:
            session.abort()
        else:
            asked = True
            nursery.start_soon(session.unmount)
