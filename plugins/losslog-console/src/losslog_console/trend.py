"""How each component has gone: its change against the last epoch, and its curve over all epochs.

Runs on the plugin's lane. Contract:

- Memory is bounded: of many epochs every second one of the middle is forgotten.
- A resume takes back what it supersedes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from losslog import scalars
from losslog_console.spark import spark

KEPT: Final = 400
CURVE: Final = 16  # cells
ROOM: Final = 60  # cells of a terminal from which there is room for it


class Trend:
    """The epoch means so far."""

    def __init__(self) -> None:
        self._means: dict[str, list[tuple[int, float]]] = {}

    def add(self, epoch: int, losses: Any, total: Any) -> None:
        """An epoch has ended."""
        if losses is None:
            return
        values = scalars("x", losses, total)
        names = ["total", *losses] if isinstance(losses, Mapping) else [""]
        for name in names:
            kept = self._means.setdefault(name, [])
            kept.append((epoch, values[f"x_{name}" if name else "x"]))
            if len(kept) > KEPT:
                del kept[1:-1:2]

    def rewind(self, epoch: int) -> None:
        """What came after that epoch does not count."""
        self._means = {name: [each for each in kept if each[0] <= epoch] for name, kept in self._means.items()}

    def told(self, width: int | None, braille: bool) -> dict[str, str]:
        """By component what stands behind its value; nothing where there is no room, or no epoch to compare with."""
        if width is None or width < ROOM:
            return {}
        return {
            name: _told([value for _, value in kept], braille) for name, kept in self._means.items() if len(kept) > 1
        }


def _told(values: list[float], braille: bool) -> str:
    before, now = values[-2:]
    change = ""
    if math.isfinite(before) and math.isfinite(now) and before:
        percent = 100 * (now - before) / abs(before)
        down = percent <= -0.05  # else it reads 0.0
        mark = ("▼ " if down else "▲ ") if braille else "-" if down else "+"
        change = f"{mark}{abs(percent):{5 if braille else 0}.1f} %" if abs(percent) < 1000 else f"x{now / before:.3g}"
    curve = spark(values, CURVE, braille=braille).rstrip() if len(values) > 2 else ""  # two dots say nothing
    return f"  {change:>9}  {curve}"
