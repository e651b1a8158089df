"""The picture of a run: for each workload, a bar for each contender, relative to one of them."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

_COLOURS = ("#2a78b5", "#d98b2b", "#8a8a8a", "#7db8e0")
_LEFT, _TOP, _RIGHT = 200, 64, 70
_BAR, _GAP, _SPACE = 16, 4, 22  # pixels: a bar's height, below it, and between workloads
_WIDTH = 720


class Words(NamedTuple):
    """What the picture says: what is 1, what the dashed lines are, and the contenders' names."""

    reference: str
    goal: str
    names: dict[str, str]


def draw(
    speeds: dict[str, dict[str, float]],
    titles: dict[str, str],
    wanted: dict[str, float],
    caption: str,
    words: Words,
) -> str:
    """An SVG of *speeds* by workload and contender, where the reference's is 1.

    *titles* are the workloads' names for people, *wanted* the goals, shown as dashed lines.
    """
    most = max([1.0, *(speed for row in speeds.values() for speed in row.values())])
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    colours = dict(zip(words.names, _COLOURS, strict=False))
    parts: list[str] = []
    top = _TOP
    for workload, row in speeds.items():
        height = len(row) * (_BAR + _GAP) - _GAP
        parts.append(_text(_LEFT - 10, top + height / 2 + 4, titles[workload], "end"))
        for number, (name, speed) in enumerate(row.items()):
            y = top + number * (_BAR + _GAP)
            length = max(speed * scale, 1)
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}"'
                f' fill="{colours[name]}"/>'
            )
            parts.append(_text(_LEFT + length + 6, y + _BAR - 4, number_of(speed)))
        if workload in wanted:
            parts.append(_line(_LEFT + wanted[workload] * scale, top - 5, top + height + 5, "5 3"))
        top += height + _SPACE
    bottom = top - _SPACE + 8
    parts.append(_line(_LEFT + scale, _TOP - 8, bottom))
    parts.append(_text(_LEFT + scale, _TOP - 14, words.reference, "middle"))
    legend = 10
    for name in next(iter(speeds.values()), {}):
        square = f'<rect x="{legend}" y="14" width="12" height="12" fill="{colours[name]}"/>'
        parts += [square, _text(legend + 18, 24, words.names[name])]
        legend += 50 + 7 * len(words.names[name])
    parts += [_line(legend + 6, 12, 28, "5 3"), _text(legend + 18, 24, words.goal)]
    parts.append(_text(10, bottom + 22, caption))
    total = bottom + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}"'
        f' width="{_WIDTH}" height="{total}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{_WIDTH}" height="{total}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def number_of(speed: float) -> str:
    """A speed with two digits that mean something."""
    return f"{speed:.2f}" if speed >= 0.1 else f"{speed:.2g}"


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222222">'
        f"{escape(words)}</text>"
    )


def _line(x: float, top: float, bottom: float, dashes: str = "none") -> str:
    return (
        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#222222"'
        f' stroke-dasharray="{dashes}"/>'
    )
