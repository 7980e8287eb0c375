"""Is the newest part of a curve flat, and does it improve? An equivalence test on straight lines.

- It says "flat" only once the values *exclude* an improvement worth having: noise leads to silence, not to alarms.
- Pure functions of the ring; the counting of checks in a row is the component's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Final

from .clock import Clock
from .ring import BlockRing, Line, Power
from .settings import Settings

LEAST_PART: Final = 0.125
"""A line spans at least this part of the time elapsed."""
RECENT: Final = 0.4
"""The line that shows an improvement is the longest within this part of the time elapsed, or the shortest allowed: one
line, since of a dozen one would improve by chance."""
SURE: Final = 1.6
"""It improves if it falls by this many times its bound: others are asked many times whether they do."""
BEND_Z: Final = 1.28
"""A flat line certainly (by so many standard errors) falls by less than what lay before it did, per unit of ln(time): a
curve that goes on as it did has no flat part, only a stretch of noise or the slowness of late training."""
STOPPED: Final = 0.35
"""If it certainly still falls, then by less than this part: losses of large data sets slow down, and do not stop."""
KINK: Final = 0.1
"""Drop of the fall per unit of ln(time) from which a short line will do. After a slow fall a drift of some epochs looks
like a stand, and the line must span half of the time elapsed."""
LONG_PART: Final = 0.5
ALIKE: Final = 0.7
"""A line over about the same time as another spans at least this part of it."""
ELAPSED_PARTS: Final = 12
"""Where the plan is unknown, an improvement is measured over this part of the time elapsed, and over an epoch at least:
1.5 % in an epoch is much to ask of the fiftieth."""
UNKNOWN_GAIN: Final = 0.15
"""Improvement over the time elapsed below which a curve is flat, where neither plan nor epoch is known."""
UNKNOWN_Z: Final = 2.0
"""Without a plan or an epoch the unit is a guess, and so the bounds are wider."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found.

    Attributes:
        flat: Whether an improvement worth having is excluded, and a rise is not certain.
        improving: Whether an improvement is certain, and worth having.
        rising: Whether a rise is certain, and as large as an improvement worth having.
        span: Steps that the reported line spans: the longest flat one, else the one that shows an improvement.
        gain: Fall of ln(loss) per step along it.
        error: Half width of the bounds of `gain`.
        mean: Mean of ln(loss) along it.
        recent: Fall of ln(loss) per step along the line that shows an improvement.
        recent_error: Half width of the bounds of `recent`.
        least: Fall of ln(loss) per step that is worth having.
    """

    flat: bool
    improving: bool
    rising: bool
    span: float
    gain: float
    error: float
    mean: float
    recent: float
    recent_error: float
    least: float


def check(ring: BlockRing, clock: Clock, settings: Settings, elapsed: float) -> Outcome | None:
    """Test the ring's lines; drops what lies before a rise.

    Args:
        ring: Block means of ln(loss).
        clock: Lengths in steps.
        settings: The test's settings.
        elapsed: Steps since the component's first value.

    Returns:
        None if no line is long enough.
    """
    noise, n_diffs = ring.noise()
    if ring.drop_rise(noise):
        noise, n_diffs = ring.noise()
    block = ring.cells_per_block * clock.cell
    shortest = max(clock.min_window, elapsed * LEAST_PART, settings.window * (clock.unit or 0.0))
    z = _quantile(clock, settings)
    lines = ring.lines(shortest / block, noise, n_diffs, z)
    if not lines:
        return None
    least = _least(clock, settings, elapsed) * block
    flat = [line for line in lines if line.gain + line.bound < least and not _rises(line, least)]
    long = LONG_PART * elapsed / block
    bends = [ring.bend(line.blocks, elapsed / block, noise, n_diffs) for line in flat]
    flat = [line for line, bend in zip(flat, bends, strict=True) if _stopped(line, bend, least, z, long)]
    recent = [each for at, each in enumerate(lines) if at == 0 or each.blocks <= elapsed * RECENT / block][-1]
    shown = flat[-1] if flat else recent
    return Outcome(
        flat=bool(flat),
        improving=recent.gain > SURE * recent.bound and recent.gain >= least and lines[0].gain > 0,
        rising=_rises(recent, least),
        span=shown.blocks * block,
        gain=shown.gain / block,
        error=shown.bound / block,
        mean=sum(ring.means[-shown.blocks :]) / shown.blocks,
        recent=recent.gain / block,
        recent_error=recent.bound / block,
        least=least / block,
    )


@dataclass(frozen=True, slots=True)
class Fall:
    """How a curve fell over some span.

    Attributes:
        gain: Fall of ln(loss) per step.
        error: Half width of its bounds.
        sure: Whether the fall is certain, and worth having.
        least: Fall of ln(loss) per step that is worth having.
    """

    gain: float
    error: float
    sure: bool
    least: float


def fall_over(ring: BlockRing, clock: Clock, settings: Settings, elapsed: float, span: float) -> Fall | None:
    """How a curve fell over the newest steps, about as many as asked for; None if its ring holds no such line.

    Args:
        ring: Block means of ln(loss).
        clock: Lengths in steps.
        settings: The test's settings.
        elapsed: Steps since the component's first value.
        span: Steps.
    """
    block = ring.cells_per_block * clock.cell
    lines = ring.lines(ALIKE * span / block, *ring.noise(), _quantile(clock, settings))
    if not lines:
        return None
    line = min(lines, key=lambda each: abs(each.blocks * block - span))
    least = _least(clock, settings, elapsed)
    sure = line.gain > SURE * line.bound and line.gain >= least * block
    return Fall(line.gain / block, line.bound / block, sure, least)


def _quantile(clock: Clock, settings: Settings) -> float:
    """The normal quantile of the bounds."""
    known = clock.plan is not None and clock.epoch is not None
    return settings.z if known else max(settings.z, UNKNOWN_Z)


def _least(clock: Clock, settings: Settings, elapsed: float) -> float:
    """Improvement per step that is worth having."""
    if clock.unit is None:
        return UNKNOWN_GAIN / elapsed
    return settings.r / (clock.unit if clock.plan is not None else max(clock.unit, elapsed / ELAPSED_PARTS))


def _rises(line: Line, least: float) -> bool:
    return line.gain < -least and line.gain + line.bound < 0


def _stopped(line: Line, bend: tuple[Power, Power] | None, least: float, z: float, long: float) -> bool:
    """Whether a flat line is the end of a fall, rather than its continuation.

    Args:
        line: The flat line.
        bend: The fall before and within it, against ln(time); None if too little lies before.
        least: Improvement per block that is worth having.
        z: Normal quantile of the bounds.
        long: Blocks that a line must span after a slow fall.
    """
    if bend is None:
        return True
    before, within = bend
    if before.gain - within.gain < KINK and line.blocks < long:
        return False
    if before.gain <= max(z * before.deviation, least * before.time):  # there was no fall worth having
        return True
    if within.gain > max(z * within.deviation, STOPPED * before.gain):
        return False
    return before.gain - within.gain >= BEND_Z * hypot(before.deviation, within.deviation)
