"""Is the newest part of a curve flat, and does it improve? An equivalence test on straight lines.

- It says "flat" only once the values *exclude* an improvement worth having: noise leads to silence, not to alarms.
- Pure functions of the ring; the counting of checks in a row is the component's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .clock import Clock
from .ring import BlockRing
from .settings import Settings

LEAST_PART: Final = 0.125
"""A line spans at least this part of the time elapsed."""
RECENT: Final = 0.25
"""A line that shows an improvement may span at most this part of the time elapsed (or is the shortest allowed)."""
UNKNOWN_GAIN: Final = 0.15
"""Improvement over the time elapsed below which a curve is flat, where neither plan nor epoch is known."""
UNKNOWN_Z: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found.

    Attributes:
        flat: Whether an improvement worth having is excluded.
        improving: Whether an improvement is certain.
        span: Updates that the reported line spans: the longest flat one, else the shortest allowed.
        gain: Fall of ln(loss) per update along it.
        error: Half width of the bounds of `gain`.
    """

    flat: bool
    improving: bool
    span: float
    gain: float
    error: float


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
        # in a run of fewer than 20 epochs the limit is per epoch: a twentieth of it would ask for too steep a fall
        scale, limit, z = max(clock.unit, clock.epoch or 0.0) / block, settings.r, settings.z
    lines = ring.lines(shortest / block, noise, n_diffs, z)
    if not lines:
        return None
    flat = [line for line in lines if (line.gain + line.error) * scale < limit]
    shown = flat[-1] if flat else lines[0]
    return Outcome(
        flat=bool(flat),
        improving=any(
            line.gain > line.error and (at == 0 or line.blocks * block <= elapsed * RECENT)
            for at, line in enumerate(lines)
        ),
        span=shown.blocks * block,
        gain=shown.gain / block,
        error=shown.error / block,
    )
