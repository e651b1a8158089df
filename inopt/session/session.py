"""A mounted session: serving, counting, replacing its policy, until it is stopped and closed."""

from __future__ import annotations

import errno
import os
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any, Final

import structlog
import trio

from inopt.backing.watch.changes import Watch
from inopt.handlers.reach import SessionReach
from inopt.handlers.serve import Context
from inopt.handlers.stock import redirected
from inopt.handlers.tasks import Tasks
from inopt.kernel import mounts
from inopt.kernel.device import Device
from inopt.kernel.negotiate import Terms
from inopt.policy.load import load_policy
from inopt.session import explain, narrowing, places, reload, stats
from inopt.session.coherence import Coherence
from inopt.session.leading import QUICK, Leader
from inopt.session.loop import Loop
from inopt.session.policing import (
    Policing,
    Prepared,
    compile_for,
    is_stock,
    prepare,
    require_case,
    require_links,
    require_tier,
    watch_for,
)
from inopt.session.serving import Observer, Server
from inopt.session.settings import Settings
from inopt.wire.requests import Decoder
from inopt.wire.uapi import InitFlag

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_GRACE: Final = 10.0  # seconds that readers have to finish when the session has ended


class Session:
    """A mounted session. Made by `inopt.session.mounting.mounted`."""

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
        self._prepared = prepared
        self._started = time.monotonic()
        self._ended = trio.Event()
        self._reloading = trio.Lock()
        self._redirection = ExitStack()
        self._coherence: Coherence | None = None
        self._serves = False
        found = mounts.find_mount(mountpoint)
        self.device_minor: int = found.device_minor if found is not None else -1

    async def start(self, nursery: trio.Nursery) -> None:
        """Let the handlers begin, then serve. Tasks live in *nursery*."""
        context, settings, token = self._context, self.settings, trio.lowlevel.current_trio_token()
        tasks = Tasks(nursery, settings.handler_timeout)
        reach = SessionReach(
            context,
            self._device,
            nursery,
            self.stats,
            self.mountpoint,
            places.runtime_directory(),
        )
        self._policing = Policing(context, self._prepared, tasks, reach)
        self._server = tasks.replies = Server(
            self._device,
            Decoder(self.terms.minor, setxattr_ext=self.terms.has(InitFlag.SETXATTR_EXT)),
            context,
            self._policing.table,
        )
        self._loop = Loop(
            self._server, settings.readers, lambda: token.run_sync_soon(self._ended.set)
        )
        self._loop.interrupt_task = tasks.interrupt
        await self._policing.start()
        handlers = self._policing.handlers
        if handlers is not None and is_stock(self._prepared):

            def terminate() -> None:
                nursery.start_soon(self.unmount)

            self._redirection.enter_context(redirected(handlers, self._device, terminate))
        self._server.gates = self._policing.gates
        if self._policing.handlers is not None:
            lead = Leader(self._server, tasks, nursery, self._loop.hand_over)
            self._loop.leader = tasks.lead = lead
            self._lead_what_waits()
        self._serves = True
        self._watch_by(context.tree.watch)
        self._loop.start()

    def _lead_what_waits(self) -> None:
        """Let the trio thread read by itself as long as requests are for async handlers."""
        lead = self._loop.leader
        if lead is not None:
            is_local = not self._context.tree.flushes_at_close
            waiting, plain = self._policing.served_by
            lead.serves(waiting | QUICK if is_local else waiting, plain)

    def _watch_by(self, watch: Watch | None) -> None:
        """Tell the kernel from now on what *watch* notices."""
        if watch is None:
            return
        coherence = Coherence(self._device, self._context, self.terms, watch, self._loop.thread_ids)
        coherence.start()
        self._coherence = coherence
        self._context.tree.watch = watch

    def observe(self, observer: Observer | None) -> None:
        """Let *observer* be told of every request from now on; None ends that."""
        self._server.observer = observer

    @property
    def has_ended(self) -> bool:
        """Whether the kernel has ended the session, or the daemon gave up."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait until the kernel has ended the session: it is unmounted, or was aborted."""
        await self._ended.wait()

    def stats(self) -> dict[str, Any]:
        """Counts by opcode and route, and the session's facts; see `inopt.session.stats`."""
        coherence = self._coherence
        return {
            "mountpoint": self.mountpoint,
            "source": self.settings.source,
            "policy": self._policing.prepared.loaded.path,
            **(coherence.facts() if coherence is not None else {"coherence": "timeout"}),
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
            prepared = await trio.to_thread.run_sync(self._prepare, name)
            policy = compile_for(prepared, self.terms)
            watch = await trio.to_thread.run_sync(self._another_watch, prepared)
            try:
                with self._nothing_attached():
                    await trio.to_thread.run_sync(
                        narrowing.make_room, self._context, self._device, self.terms, policy
                    )
                    self._server.gates = await self._policing.replace(prepared, policy)
            except BaseException:
                if watch is not None:
                    watch.close()
                raise
            self._lead_what_waits()
            self._context.keep_caches(prepared.loaded.policy.cache)
            prepared.log_findings()
            report = await trio.to_thread.run_sync(self._settle, watch)
        _log.info("policy replaced", **{k: v for k, v in report.items() if k != "mountpoint"})
        return report

    def _nothing_attached(self) -> AbstractContextManager[None]:
        attached = self._context.attachments.attached
        return attached.paused() if attached is not None else nullcontext()

    def _prepare(self, name: str | None) -> Prepared:
        # The daemon's own directory is another one by now.
        path = name or os.path.join(self.settings.directory, self._policing.prepared.loaded.path)
        prepared = prepare(load_policy(path), self.settings)
        require_tier(prepared.loaded, self.terms)
        require_case(prepared, self._context.tree, self.settings.source)
        require_links(prepared, self.terms)
        return prepared

    def _another_watch(self, prepared: Prepared) -> Watch | None:
        """The watch to begin with under another policy; None if things stay, or none is wanted."""
        present = self._coherence
        if present is not None and not present.has_failed:
            return None
        return watch_for(prepared, self._context.tree)

    def _settle(self, watch: Watch | None) -> dict[str, Any]:
        wanted = self._policing.prepared.loaded.policy.cache.coherence == "notify"
        earlier = self._coherence
        if earlier is not None and (watch is not None or not wanted):
            self._coherence = None
            earlier.believe_no_more()
        else:
            earlier = None
        self._watch_by(watch)
        report = self._make_stale()
        if earlier is not None:
            earlier.end()
        return report

    def _make_stale(self) -> dict[str, Any]:
        with self._context.tree.descriptors.use():
            report = reload.settle(self._context)
        how = reload.make_stale(self._device, self._context, self.terms)
        return {
            "mountpoint": self.mountpoint,
            "policy": self._policing.prepared.loaded.path,
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

    async def stop(self) -> None:
        """Let the handlers end, once the session has, if it ever began."""
        self._redirection.close()
        if self._serves:
            await self._policing.stop()

    def settle(self) -> None:
        """Once the session has ended: what was changed is brought to where it is to stay."""
        self._context.tree.settle()

    def close(self) -> None:
        """Free everything, once the session has ended; a mount that was aborted goes, too."""
        found = mounts.find_mount(self.mountpoint)
        if found is not None and found.device_minor == self.device_minor:
            mounts.unmount(self.mountpoint, lazy=True)
        if self._coherence is not None:
            self._coherence.end()
        if self._serves and not self._loop.join(_GRACE):
            _log.error("a request is stuck; its thread is left behind", mountpoint=self.mountpoint)
            return
        self._context.close()
        self._device.close()
