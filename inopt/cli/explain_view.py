"""How ``inopt explain`` looks: tables on a terminal, in a pipe, as HTML and as a picture."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inopt.exceptions import UsageError
from inopt.policy.explaining.lines import Alternative, Line
from inopt.policy.explaining.matrix import MIXED, Cell, Row
from inopt.policy.explaining.report import Report
from inopt.policy.text.problems import Place

_WIDTH: Final = 100
_STYLES: Final = {
    "kernel": "green", "daemon": "cyan", "handler": "yellow", "deny": "red", "depends": "magenta",
    "bypass": "green", "handle": "yellow",
}  # fmt: skip
_NARROW: Final = {"bypass": "by", "handle": "ha", MIXED: "mix"}
_LONGEST_MATCH: Final = 40
_SHORTEST_LABEL: Final = 20
_HEADER: Final = 4  # characters of a column's name in one line, if it is narrow


def view(
    show: Callable[[Console], None], *, quiet: bool, html: str | None, svg: str | None
) -> None:
    """*show* on the terminal unless *quiet*, and in files. Raises `UsageError` for those."""
    for option, path in (("--html", html), ("--svg", svg)):
        if path is not None:
            picture = Console(
                record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True,
                color_system="truecolor", legacy_windows=False,
            )  # fmt: skip
            show(picture)
            text = (
                picture.export_html() if option == "--html" else picture.export_svg(title="inopt")
            )
            try:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise UsageError(
                    f"{option} '{path}': {reason}: name a file that can be written"
                ) from error
    if not quiet:
        # Not a terminal's width of 80, which rich takes a pipe to have.
        own = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH
        show(Console(file=sys.stdout, width=own, highlight=False))


def _head(answer: dict[str, Any]) -> Iterator[Text]:
    yield Text.assemble(
        "policy ", (answer["policy"], "bold"), ", tier ", (answer["tier"], "bold"),
        {"kernel": " (what this kernel gives)", "mount": " (of the mount)"}.get(
            answer["tier_from"], ""
        ),
    )  # fmt: skip
    for note in answer["notes"]:
        yield Text(f"note: {note}", "yellow")


def _routed(text: str) -> Text:
    return Text(text, _STYLES.get(text.split(" ", maxsplit=1)[0], ""))


# --- paths -------------------------------------------------------------------------------------


def show_reports(answer: dict[str, Any], console: Console) -> None:
    """What happens with paths: a table for each, operations that have all in common in one row."""
    for text in _head(answer):
        console.print(text)
    for report in answer["paths"]:
        console.print()
        _show_report(report, console)


def _show_report(report: Report, console: Console) -> None:
    facts = report.facts
    told = "not looked up, so nothing is known of it but its type"
    if facts is not None:
        links = f", {facts['links']} names" if facts["links"] > 1 and facts["size"] >= 0 else ""
        told = (
            f"mode {facts['mode']}, owner {facts['owner']}:{facts['group']}, "
            f"{facts['size']} bytes{links if report.type != 'directory' else ''}"
        )
    console.print(Text.assemble((report.path, "bold"), f"  {report.type}; {told}"))
    if report.live is not None:
        console.print(_live(report.live))
    for note in report.notes:
        console.print(Text(f"note: {note}", "yellow"))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", expand=True)
    table.add_column("operation", ratio=26, overflow="fold")
    table.add_column("served by", no_wrap=True)
    table.add_column("rule, place", ratio=22, overflow="fold")
    table.add_column("why", ratio=36)
    for operations, line in _grouped(report.lines):
        table.add_row(", ".join(operations), _routed(line.route), _source(line), Text(line.why))
        for each in line.alternatives:
            table.add_row("", _routed(each.route), _source(each), Text(_case(each)))
    console.print(table)


def _grouped(lines: Sequence[Line]) -> Iterator[tuple[list[str], Line]]:
    """Lines that differ in the operation alone, together, where the first of them stands."""
    groups: dict[Line, list[Line]] = {}
    for line in lines:
        groups.setdefault(_of_several(line), []).append(line)
    for common, some in groups.items():
        yield [line.operation for line in some], common if len(some) > 1 else some[0]


def _of_several(line: Line) -> Line:
    """*line* without the name of its operation."""

    def told(why: str) -> str:
        return why.replace(f"bypass {line.operation}:", "bypass these:")

    alternatives = tuple(
        msgspec.structs.replace(each, why=told(each.why)) for each in line.alternatives
    )
    return msgspec.structs.replace(
        line, operation="", why=told(line.why), alternatives=alternatives
    )


def _source(line: Line | Alternative) -> Text:
    if isinstance(line, Line) and line.alternatives:
        return Text("")
    where = f"\n{_short(line.place)}" if line.place else " (the default)"
    return Text.assemble(line.rule, (where, "dim"))


def _short(place: Place) -> str:
    return f"{os.path.basename(place.path)}:{place.line}:{place.column}"


def _case(each: Alternative) -> str:
    return ": ".join(filter(None, (each.when or "else", each.why)))


def _live(live: dict[str, Any]) -> Text:
    if not live["nodeid"]:
        return Text("the kernel does not know it: nothing is held of it")
    opens = "not open"
    if live["opens"]:
        by = "the daemon" if live["io"] == "daemon" else "bypass"
        by += f" (backing id {live['backing_id']})" if live["backing_id"] else ""
        opens = f"open {live['opens']} times, all through {by}"
    attached = ""
    if live["attached"]:
        attached = f", attached: the kernel serves {', '.join(live['attached'])} by itself"
    elif live["not_attached"]:
        attached = f", not attached: {live['not_attached']}"
    return Text(
        f"nodeid {live['nodeid']}, {live['lookups']} lookups, {opens}, "
        f"under the {live['policy']} policy{', pinned' if live['pinned'] else ''}{attached}"
        f"{'; ' + live['layer'] if live['layer'] else ''}"
    )


# --- all rules ---------------------------------------------------------------------------------


def show_matrix(answer: dict[str, Any], console: Console) -> None:
    """All rules by all operations; abbreviated where whole words do not fit."""
    for text in _head(answer):
        console.print(text)
    console.print()
    columns: list[str] = list(answer["columns"])
    rows: list[Row] = answer["rows"]
    short: dict[str, str] = {}
    room = _room(console, columns, rows, short, max(map(len, columns)))
    longest = max(max(map(len, _label(row, _LONGEST_MATCH).plain.split("\n"))) for row in rows)
    if longest > room:
        short = _abbreviations(rows)
        room = _room(console, columns, rows, short, _HEADER)
    room = min(max(room, _SHORTEST_LABEL), longest)
    console.print(_matrix(columns, rows, short, room))
    console.print()
    for text in _legend(answer, short):
        console.print(text)


def _room(
    console: Console, columns: Sequence[str], rows: Sequence[Row], short: dict[str, str], most: int
) -> int:
    """The characters that *columns* leave for the rules, their names cut to *most* a line."""
    return console.width - sum(1 + _width(name, rows, short, most) for name in columns)


def _width(name: str, rows: Sequence[Row], short: dict[str, str], most: int) -> int:
    return max(min(len(name), most), *(len(_cell(row.cells.get(name), short)) for row in rows))


def _matrix(columns: Sequence[str], rows: Sequence[Row], short: dict[str, str], room: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("rule", width=room, overflow="fold")
    for name in columns:
        width = _width(name, rows, short, _HEADER if short else len(name))
        table.add_column(name, width=width, overflow="fold")
    for row in rows:
        texts = [Text(_cell(row.cells.get(name), short), _style(row, name)) for name in columns]
        table.add_row(_label(row, room), *texts)
    return table


def _label(row: Row, room: int) -> Text:
    about = f"hidden: {row.match}" if row.hides else row.match
    if len(about) > room:
        about = about[: room - 3] + "..."
    place = f" {_line_of(row.place)}" if row.place else " (the default)"
    return Text.assemble((row.rule, "bold"), (place, "dim"), f"\n{about}")


def _line_of(place: Place) -> str:
    return f"{os.path.basename(place.path)}:{place.line}"


def _style(row: Row, column: str) -> str:
    cell = row.cells.get(column)
    return "dim" if cell is None else _STYLES.get(cell.text.split(" ")[0], "magenta")


def _cell(cell: Cell | None, short: dict[str, str]) -> str:
    if cell is None:
        return "."
    text = short.get(cell.text) or cell.text.removeprefix("deny ")
    return f"{text}*" if cell.partly else text


def _abbreviations(rows: Sequence[Row]) -> dict[str, str]:
    """Two or three letters for what cells say; more where errnos begin alike."""
    texts = {cell.text for row in rows for cell in row.cells.values()}
    short = {text: _NARROW[text] for text in texts if text in _NARROW}
    names = {text: text.removeprefix("deny E") for text in sorted(texts) if text not in short}
    for text, name in names.items():
        others = [other for other in names.values() if other != name]
        length = next(
            (n for n in range(3, len(name)) if not any(o[:n] == name[:n] for o in others)),
            len(name),
        )
        short[text] = name[:length]
    return short


def _legend(answer: dict[str, Any], short: dict[str, str]) -> Iterator[Text]:
    if short:
        yield Text("  ".join(f"{brief} = {text}" for text, brief in sorted(short.items())))
    cells = [cell for row in answer["rows"] for cell in row.cells.values()]
    said = [". = the rule says nothing of it"]
    if any(cell.partly for cell in cells):
        said.append("* = of some of these operations only")
    if any(cell.text == MIXED for cell in cells):
        said.append(f"{short.get(MIXED, MIXED)} = different for each of them")
    yield Text("; ".join(said))
    others = answer["columns"].get("others")
    if others:
        yield Text(f"others: {', '.join(others)}", "dim")
    yield Text("The first rule that names an operation decides it.", "dim")
