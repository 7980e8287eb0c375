"""Small charts as SVG: a component each, its epoch means and validation losses.

No thread, no I/O. Contract:

- Some six kilobytes, whatever the length of the run: at most `POINTS` points a curve, `MOST` curves.
- Colours are those of the text around it, so that light and dark notebooks are served alike.
- Nothing a name contains becomes markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final

POINTS: Final = 60
NOISE: Final = 1e-6  # of its size; a curve that moves less is flat: that is what a float32 is rounded by
MOST: Final = 12
WIDTH: Final = 210
HEIGHT: Final = 96
ACROSS: Final = 3
PLOT: Final = (8, 26, WIDTH - 16, HEIGHT - 36)  # x, y, width, height

Curve = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Curve], others: Mapping[str, Curve], marked: Mapping[str, str]) -> str:
    """The SVG.

    Args:
        curves: (x, value) by component.
        others: a second curve, dashed, of the same components.
        marked: a word on components that are not well.
    """
    names = [name for name in curves if curves[name]][:MOST]
    rows = -(-len(names) // ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ACROSS * WIDTH} {max(1, rows) * HEIGHT}" '
        f'style="max-width:{ACROSS * WIDTH}px;width:100%" font-family="system-ui,sans-serif" font-size="11" '
        'fill="currentColor">'
    ]
    for place, name in enumerate(names):
        x, y = place % ACROSS * WIDTH, place // ACROSS * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">{_one(name, curves[name], others.get(name, ()), marked)}</g>')
    left = len([name for name in curves if curves[name]]) - len(names)
    tail = f"<p>{left} more are in the journal.</p>" if left > 0 else ""
    return "".join(parts) + "</svg>" + tail


def _one(name: str, curve: Curve, other: Curve, marked: Mapping[str, str]) -> str:
    curve, other = _fewer(curve), _fewer(other)
    known = [value for _, value in (*curve, *other) if math.isfinite(value)]
    word = marked.get(name, "")
    shown = html.escape(name if len(name) <= 24 else name[:23] + "…")
    colour = "#d97706" if word else "#2563eb"
    last = f"{curve[-1][1]:.4g}"
    title = f'<text x="8" y="16" font-weight="600">{shown}</text>'
    title += f'<text x="{WIDTH - 8}" y="16" text-anchor="end">{last}</text>'
    if word:
        title += f'<text x="8" y="{HEIGHT - 2}" fill="{colour}" font-size="10">{html.escape(word[:36])}</text>'
    if not known:
        return title
    low, high = min(known), max(known)
    if high - low <= NOISE * max(abs(low), abs(high)):
        low, high = low - abs(low) / 2, high + abs(high) / 2  # in the middle
    box = (curve[0][0], max(curve[-1][0], curve[0][0] + 1), low, high)
    lines = _line(curve, box, f'stroke="{colour}" stroke-width="1.8"')
    return title + _line(other, box, f'stroke="{colour}" stroke-width="1" stroke-dasharray="3 2"') + lines


def _line(curve: Curve, box: tuple[float, float, float, float], style: str) -> str:
    first, last, low, high = box
    left, top, width, height = PLOT
    points = [
        f"{left + width * (x - first) / (last - first):.1f},{top + height * (1 - (y - low) / ((high - low) or 1)):.1f}"
        for x, y in curve
        if math.isfinite(y)
    ]
    if len(points) == 1:
        x, _, y = points[0].partition(",")
        return f'<circle cx="{x}" cy="{y}" r="2" {style} fill="none"/>'
    return f'<polyline fill="none" {style} points="{" ".join(points)}"/>' if points else ""


def _fewer(curve: Curve) -> Curve:
    """At most `POINTS` points, the first and the last among them."""
    if len(curve) <= POINTS:
        return curve
    return [curve[round(place * (len(curve) - 1) / (POINTS - 1))] for place in range(POINTS)]
