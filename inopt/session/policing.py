"""The policy of one mount: made ready before anything is mounted, applied, and replaced."""

from __future__ import annotations

import os
from typing import Final

import msgspec
import pyfuse3
import structlog

from inopt.backing.filesystems import ignores_case
from inopt.backing.tree import Tree
from inopt.backing.watch.changes import Watch
from inopt.backing.watch.choose import open_watch
from inopt.exceptions import UsageError
from inopt.handlers.answers import Answers
from inopt.handlers.base import Handlers
from inopt.handlers.daemon import Daemon
from inopt.handlers.forgetting import Forgetting
from inopt.handlers.gates import Gate, gates
from inopt.handlers.load import load_handlers
from inopt.handlers.locking import Locking
from inopt.handlers.reach import Backing, SessionReach
from inopt.handlers.running import (
    handler_table,
    methods_of,
    overrides,
    served_by,
    split_methods,
)
from inopt.handlers.serve import Context, Serve, operations
from inopt.handlers.stock import stock_table
from inopt.handlers.tasks import Tasks
from inopt.kernel.dialects import Tier
from inopt.kernel.negotiate import Terms
from inopt.ops import OPCODE_LIMIT, Op, OpsMask
from inopt.policy.compiled import CompiledPolicy
from inopt.policy.linting.findings import Finding, Level
from inopt.policy.linting.linter import lint
from inopt.policy.load import Loaded
from inopt.policy.rules import Rules, compile_rules
from inopt.session.settings import OF_THE_HANDLERS, Settings
from inopt.wire.uapi import InitFlag

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Prepared(msgspec.Struct, frozen=True):
    """A policy that is known to be enforceable, with the class that serves what is handled.

    ``handlers`` is an object of that class, where the embedding program has made one.
    ``findings``: the warnings and notes of the linter.
    """

    loaded: Loaded
    rules: Rules
    handler_class: type[pyfuse3.Operations] | None = None
    handlers: pyfuse3.Operations | None = None
    findings: tuple[Finding, ...] = ()

    def log_findings(self) -> None:
        """Tell of them, once the policy is in force."""
        for finding in self.findings:
            # Notes tell what any reader of docs/policy.md knows: they are for those who ask.
            tell = _log.warning if finding.level is Level.WARNING else _log.debug
            tell(str(finding))


def prepare(loaded: Loaded, settings: Settings) -> Prepared:
    """Make a policy ready for a mount. Raises `UsageError` for one that cannot be enforced.

    Handlers that *settings* has take the place of the policy's own.
    """
    handlers = settings.handlers_object
    reference = settings.handlers or loaded.policy.handlers
    handler_class: type[pyfuse3.Operations] | None = None
    if handlers is not None:
        handler_class = type(handlers)
    elif reference is not None:
        folders = (settings.directory, os.path.dirname(os.path.abspath(loaded.path)))
        handler_class = load_handlers(reference, folders)
    rules = compile_rules(loaded)
    if handler_class is None:
        findings = lint(rules, None)
    else:
        findings = lint(rules, served_by(handler_class), methods_of(handler_class))
    if loaded.path == OF_THE_HANDLERS:
        # It names whole words (create is tmpfile, too); the rest of them is the daemon's.
        findings = [finding for finding in findings if finding.code != "INO112"]
    errors = [str(finding) for finding in findings if finding.level is Level.ERROR]
    if errors:
        raise UsageError("\n".join(errors))
    return Prepared(loaded, rules, handler_class, handlers, tuple(findings))


def compile_for(prepared: Prepared, terms: Terms) -> CompiledPolicy:
    """The policy for what kernel and daemon have agreed on."""
    kernel = terms.dialect.accepts
    by_handle = terms.has(InitFlag.POSIX_LOCKS) or terms.has(InitFlag.FLOCK_LOCKS)
    if by_handle or _has_method(prepared, "poll"):
        # They come with the handle that OPEN has been answered with, and end with its RELEASE.
        kernel -= OpsMask.of(Op.OPEN)
    return CompiledPolicy(prepared.rules, reads_and_writes=terms.tier >= Tier.RW, kernel=kernel)


def require_case(prepared: Prepared, tree: Tree, source: str) -> None:
    """Raise `UsageError` where path rules could be got round by another spelling of a name."""
    if prepared.rules.by_path and ignores_case(tree.root.descriptor):
        raise UsageError(
            f"source '{source}': its filesystem finds names whatever their case, so the path rules "
            f"of {prepared.loaded.path} could be got round: use a case-sensitive filesystem, or a "
            "policy without 'path'"
        )


def require_links(prepared: Prepared, terms: Terms) -> None:
    """Raise `UsageError` for a policy that tells links to some only, if the kernel caches them."""
    if terms.has(InitFlag.CACHE_SYMLINKS) and prepared.rules.depends(Op.READLINK):
        raise UsageError(
            f"{prepared.loaded.path}: who may read a symbolic link depends on the caller or on "
            "facts, but the kernel caches links since this mount was made: unmount, and mount again"
        )


def watch_for(prepared: Prepared, tree: Tree) -> Watch | None:
    """The watch that the policy wants; None if it wants none.

    Raises `UsageError` where there is none to be had: what changes underneath would not show for
    as long as the kernel is told to believe.
    """
    loaded = prepared.loaded
    if loaded.policy.cache.coherence == "timeout":
        return None
    place = loaded.place("cache", "coherence")
    if is_stock(prepared):
        raise UsageError(
            f"{place}: coherence 'notify': a filesystem written for pyfuse3 has no backing tree "
            "that could be watched: leave it out"
        )
    if tree.has_layers:
        raise UsageError(
            f"{place}: coherence 'notify': layers are not to be changed while they are mounted, "
            "and are believed for long without it: leave it out"
        )
    try:
        watch, but = open_watch(tree)
    except UsageError as error:
        source = os.readlink(f"/proc/self/fd/{tree.root.descriptor}")
        raise UsageError(
            f"{place}: coherence 'notify': source '{source}' cannot be watched: {error}: use "
            "'coherence: timeout'"
        ) from error
    because = {"because": but} if but else {}
    _log.info("changes underneath are watched", by=watch.kind, **because, **watch.facts())
    return watch


def require_tier(loaded: Loaded, terms: Terms) -> None:
    """Raise `UsageError` for a policy that demands more than the kernel gives."""
    required = Tier[loaded.policy.require.upper()]
    if terms.tier < required:
        raise UsageError(
            f"{loaded.path}: requires tier '{required.label}', but this kernel gives "
            f"'{terms.tier.label}': see 'inopt doctor'"
        )


# What the kernel is told once that it need not ask for.
_TOLD_AT_MOUNT: Final = {
    "locks (getlk, setlk)": ("getlk", "setlk"),
    "locks (flock)": ("flock",),
    "poll": ("poll",),
}


def _has_method(prepared: Prepared, *names: str) -> bool:
    """Whether the handler class overrides one of these."""
    handler_class = prepared.handler_class
    return handler_class is not None and any(overrides(handler_class, name) for name in names)


def is_stock(prepared: Prepared) -> bool:
    """Whether the handlers are a filesystem of their own, written for pyfuse3."""
    handler_class = prepared.handler_class
    return handler_class is not None and not issubclass(handler_class, Handlers)


class Policing:
    """What a session asks for each request: `table` by opcode, and before it `gates`."""

    def __init__(
        self, context: Context, prepared: Prepared, tasks: Tasks, reach: SessionReach
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._reach = reach
        self._daemon = Daemon(context)
        self.table: list[Serve | None] = operations(context)
        self.gates: list[Gate | None] = [None] * OPCODE_LIMIT
        self.prepared = prepared
        self.handlers: pyfuse3.Operations | None = None
        # The opcodes of which async methods serve some, and of which plain ones do.
        self.served_by: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        self._first = prepared
        self._locking: Locking | None = None

    async def start(self) -> None:
        """Make the handlers and let them begin."""
        self.handlers = await self._make(self.prepared)
        if self.handlers is not None and is_stock(self.prepared):
            self.table[:] = stock_table(self.handlers, self._context, self._tasks)
            self.served_by = split_methods(self.handlers)
            return
        if not _has_method(self.prepared, "poll"):
            self.table[Op.POLL] = None  # ENOSYS: the kernel does not ask again
        locks = self._context.locks
        if locks is not None:
            self._locking = Locking(locks, Answers(self._context), self._tasks)
            self._locking.guard(self.table)
        self.gates = self._gates(self.handlers, self._functions(self.handlers))

    async def stop(self) -> None:
        """Nothing will be asked any more."""
        if isinstance(self.handlers, Handlers):
            await self.handlers.stopped()

    async def _make(self, prepared: Prepared) -> pyfuse3.Operations | None:
        handlers = prepared.handlers
        if handlers is None and prepared.handler_class is not None:
            handlers = prepared.handler_class()
        if isinstance(handlers, Handlers):
            handlers.daemon = self._daemon
            handlers.backing = Backing(self._context)
            handlers.session = self._reach
            await handlers.started(self._reach)
        elif handlers is not None:
            handlers.init()
        return handlers

    def _functions(self, handlers: pyfuse3.Operations | None) -> list[Serve | None]:
        table: list[Serve | None] = [None] * OPCODE_LIMIT
        self.served_by = (frozenset(), frozenset())
        if handlers is not None:
            table = handler_table(handlers, Answers(self._context), self._tasks)
            self.served_by = split_methods(handlers)
        if self._locking is not None:
            self._locking.adopt(table, handlers)
        return table

    def _gates(
        self, handlers: pyfuse3.Operations | None, functions: list[Serve | None]
    ) -> list[Gate | None]:
        table = gates(self._context, self.table, functions)
        if handlers is not None and overrides(type(handlers), "forget"):
            # No policy decides about it.
            forget = Forgetting(handlers, self._context, self._tasks).serve
            table[Op.FORGET] = table[Op.BATCH_FORGET] = lambda _header, _body: forget
        return table

    async def replace(self, prepared: Prepared, policy: CompiledPolicy) -> list[Gate | None]:
        """Go by another policy from now on; returns its gates. If this fails, nothing changes.

        Handlers of the same class go on as they are.
        """
        if is_stock(self.prepared) or is_stock(prepared):
            raise UsageError(
                f"{prepared.loaded.path}: a filesystem written for pyfuse3 serves everything "
                "itself: unmount, and mount again"
            )
        for name, methods in _TOLD_AT_MOUNT.items():
            if _has_method(prepared, *methods) and not _has_method(self._first, *methods):
                raise UsageError(
                    f"{prepared.loaded.path}: its handlers serve {name}, which the kernel does by "
                    "itself since this mount was made: unmount, and mount again"
                )
        earlier, handlers = self.handlers, self.handlers
        if prepared.handler_class is not self.prepared.handler_class:
            handlers = await self._make(prepared)
        functions = self._functions(handlers)
        self._context.placement.adopt(policy)
        self.gates = self._gates(handlers, functions)
        self.prepared, self.handlers = prepared, handlers
        if isinstance(earlier, Handlers) and earlier is not handlers:
            await earlier.stopped()
        return self.gates
