"""How ``inopt overlay`` shows what it finds, and how far it has got."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

import click

from inopt.layers.tools.comparing import Change, Kind
from inopt.layers.tools.findings import Finding, Level
from inopt.layers.tools.places import shown

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_COLORS: Final = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "cyan"}
_KIND_COLORS: Final = {
    Kind.ADDED: "green",
    Kind.MODIFIED: "yellow",
    Kind.METADATA: "cyan",
    Kind.REMOVED: "red",
    Kind.REPLACED: "magenta",
    Kind.OPAQUE: "blue",
}
_BETWEEN: Final = 0.1  # seconds between two looks at the terminal
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """How many entries and bytes are done, on the terminal if standard error is one."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._entries = 0
        self._bytes = 0
        self._path = b""
        self._next = time.monotonic() + 5 * _BETWEEN
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def seen(self, path: bytes) -> None:
        """The entry at *path* comes next."""
        self._entries += 1
        self._path = path
        self._look()

    def told(self, count: int) -> None:
        """So many bytes are done."""
        self._bytes += count
        self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _BETWEEN
        if self._rich is None or self._task is None:
            if not sys.stderr.isatty():
                self._next = float("inf")
                return
            self._start()
        if self._rich is not None and self._task is not None:
            done = f"{self._entries} entries, {size_text(self._bytes)}"
            self._rich.update(self._task, done=done, path=shown(self._path))

    def _start(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - most runs end before they need it
        from rich.markup import escape  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        self._rich = RichProgress(
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn(escape(self._doing)),
            TextColumn("{task.fields[done]}", markup=False),
            TextColumn(
                "{task.fields[path]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._rich.add_task("", total=None, done="", path="")
        self._rich.start()


def show_findings(upper: str, work: str, findings: list[Finding]) -> None:
    """One line for each, then one that counts them."""
    for each in findings:
        level = each.kind.level
        place = (work if each.in_work else upper).rstrip("/") + "/"
        styled = click.style(level.value, fg=_COLORS[level], bold=True)
        end = "mended" if each.fixed else each.way
        path = place + shown(each.path) if each.path else place
        click.echo(f"{path}: {each.code} {styled}: {each.reason}: {end}")
    counts = Counter("mended" if f.fixed else f.kind.level.value for f in findings)
    parts = [f"{count} {_plural(name, count)}" for name, count in counts.items()]
    bad = counts["error"] + counts["warning"]
    click.echo(f"{upper}: " + ", ".join([*([] if bad else ["ok"]), *parts]))


def _plural(name: str, count: int) -> str:
    return name if count == 1 or name == "mended" else name + "s"


def show_changes(changes: list[Change], *, exact: bool) -> None:
    """A table, then the counts. On a pipe it is as wide as its longest path."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = [(change, _what(change)) for change in changes]
    table = Table("change", "path", "type", "what", box=None, padding=(0, 2, 0, 0))
    table.columns[1].overflow = "fold"
    for change, what in rows:
        table.add_row(
            Text(change.kind.value, style=_KIND_COLORS[change.kind]),
            Text(shown(change.path)),
            Text(change.type),
            Text(what),
        )
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        longest = max((len(shown(change.path)) + len(what) for change, what in rows), default=0)
        console = Console(file=sys.stdout, width=longest + 80)
    if changes:
        console.print(table)
    counts = Counter(change.kind.value for change in changes)
    text = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no changes"
    console.print(Text(text if exact else f"{text} (as marks tell it: --lower says it exactly)"))


def _what(change: Change) -> str:
    if change.kind is Kind.ADDED:
        return size_text(change.size) if change.size >= 0 else ""
    if change.kind is Kind.REPLACED:
        return f"was a {change.was}"
    if change.kind is Kind.OPAQUE:
        return "hides what the lower layers have here"
    parts = ", ".join(change.fields)
    if change.kind is Kind.MODIFIED and change.size_before >= 0:
        sizes = f"{size_text(change.size_before)} to {size_text(change.size)}"
        return f"{parts} ({sizes})" if change.size != change.size_before else parts
    return parts


def size_text(size: int) -> str:
    """A number of bytes as people read it."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{size} B" if not unit else f"{amount:.1f} {_UNITS[unit]}"
