"""Is the newest part of a curve flat, and does it improve? An equivalence test on straight lines.

- It says "flat" only once the values *exclude* an improvement worth having: noise leads to silence, not to alarms.
- Pure functions of the ring; the counting of checks in a row is the component's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Final

from .clock import Clock
from .ring import BlockRing, Line
from .settings import Settings

LEAST_PART: Final = 0.125
"""A line spans at least this part of the time elapsed."""
RECENT: Final = 0.4
"""The line that shows an improvement is the longest within this part of the time elapsed, or the shortest allowed: one
line, since of a dozen one would improve by chance."""
SURE: Final = 1.6
"""It improves if it falls by this many times its bound: others are asked many times whether they do."""
CHANGE: Final = 3.5
"""Standard errors by which a flat line must differ from the improvement before it: a curve that goes on falling as it
did has no flat part, only a stretch of noise."""
ELAPSED_PARTS: Final = 12
"""Where the plan is unknown, an improvement is measured over this part of the time elapsed, and over an epoch at least:
1.5 % in an epoch is much to ask of the fiftieth."""
UNKNOWN_GAIN: Final = 0.15
"""Improvement over the time elapsed below which a curve is flat, where neither plan nor epoch is known."""
UNKNOWN_Z: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found.

    Attributes:
        flat: Whether an improvement worth having is excluded.
        improving: Whether an improvement is certain, and worth having.
        span: Updates that the reported line spans: the longest flat one, else the shortest allowed.
        gain: Fall of ln(loss) per update along it.
        error: Half width of the bounds of `gain`.
        mean: Mean of ln(loss) along it.
    """

    flat: bool
    improving: bool
    span: float
    gain: float
    error: float
    mean: float


def check(ring: BlockRing, clock: Clock, settings: Settings, elapsed: float) -> Outcome | None:
    """Test the ring's lines; drops what lies before a rise.

    Args:
        ring: Block means of ln(loss).
        clock: Lengths in updates.
        settings: The test's settings.
        elapsed: Updates since the component's first value.

    Returns:
        None if no line is long enough.
    """
    noise, n_diffs = ring.noise()
    if ring.drop_rise(noise):
        noise, n_diffs = ring.noise()
    block = ring.cells_per_block * clock.cell
    shortest = max(clock.min_window, elapsed * LEAST_PART)
    if clock.unit is None:
        scale, limit, z = elapsed / block, UNKNOWN_GAIN, max(settings.z, UNKNOWN_Z)
    else:
        shortest = max(shortest, settings.window * clock.unit)
        unit = clock.unit if clock.plan is not None else max(clock.unit, elapsed / ELAPSED_PARTS)
        scale, limit, z = unit / block, settings.r, settings.z
    lines = ring.lines(shortest / block, noise, n_diffs, z)
    if not lines:
        return None
    flat = [line for line in lines if (line.gain + line.bound) * scale < limit]
    if flat:
        least = limit / scale
        flat = [each for each in flat if not _goes_on(each, ring.line_before(each.blocks, noise, n_diffs, z), least)]
    shown = flat[-1] if flat else lines[0]
    return Outcome(
        flat=bool(flat),
        improving=_improves(lines, elapsed * RECENT / block, limit / scale),
        span=shown.blocks * block,
        gain=shown.gain / block,
        error=shown.bound / block,
        mean=sum(ring.means[-shown.blocks :]) / shown.blocks,
    )


def _improves(lines: list[Line], longest: float, least: float) -> bool:
    """Whether an improvement is certain, and worth having.

    Args:
        lines: All lines, shortest first.
        longest: Blocks that the line may span.
        least: Improvement per block that is worth having.
    """
    line = [each for at, each in enumerate(lines) if at == 0 or each.blocks <= longest][-1]
    return line.gain > SURE * line.bound and line.gain >= least


def _goes_on(line: Line, before: Line | None, least: float) -> bool:
    """Whether a line may well be the continuation of an improvement worth having.

    Args:
        line: The line that looks flat.
        before: The line through what lies before it.
        least: Improvement per block that is worth having.
    """
    if before is None or before.gain <= least:
        return False
    return before.gain - line.gain < CHANGE * hypot(before.deviation, line.deviation)
