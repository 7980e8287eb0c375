"""How long an epoch, the unit of the test and the warm-up are, counted in steps.

Runs in whatever thread feeds the watcher; pure arithmetic, no state but its inputs.

- Time is the optimizer step, not the number of rows: a log may have a row every 20 steps, or the first and last of an
  epoch. ``stride`` is how far apart rows lie; no cell is shorter.
- The unit is what "an improvement of 1.5 %" refers to: a twentieth of the planned run and an epoch at least, else one
  epoch, else none.
- With one value per epoch the minimum lengths in steps do not apply: such values are calm, and few.
"""

from __future__ import annotations

from typing import Final

PLAN_PARTS: Final = 20
"""The unit is this part of the planned run, or an epoch where that is longer."""
FEWEST_UNITS: Final = 8
"""But the run has so many units at least, also where it has fewer epochs."""
MIN_WINDOW_STEPS: Final = 100
MIN_WARMUP_STEPS: Final = 300
UNKNOWN_WARMUP: Final = 500
"""Rows before the first alarm where neither the plan nor the epoch is known. How often somebody logs is then the only
hint of how long the run is going to be, so that these three count rows."""
UNKNOWN_CELL: Final = 24.0
"""Rows in a cell where neither is known."""
UNKNOWN_LEVEL: Final = 96.0
"""Rows over which a level is averaged where neither is known."""
WARMUP_UNITS: Final = 5
SETTLED_UNITS: Final = 3
SETTLED_EPOCHS: Final = 2


class Clock:
    """Lengths in steps, derived from the plan, the epoch and the stride.

    Args:
        planned_steps: Optimizer steps the whole run is going to take, or None.
        steps_per_epoch: Optimizer steps in one epoch; 1 says that one value comes per epoch; None if unknown.
        stride: Steps between two rows, the longest usual gap.
    """

    __slots__ = (
        "cell",
        "cells_per_level",
        "epoch",
        "level_span",
        "min_window",
        "per_epoch_feed",
        "plan",
        "planned_steps",
        "rest",
        "settled",
        "steps_per_epoch",
        "stride",
        "unit",
        "warmup",
    )

    def __init__(self, planned_steps: float | None, steps_per_epoch: float | None, stride: float = 1.0) -> None:
        self.plan = self.planned_steps = planned_steps
        self.epoch = self.steps_per_epoch = steps_per_epoch
        self.stride = stride
        self.per_epoch_feed = self.epoch == 1
        self.unit = self._unit()
        self.min_window = 0.0 if self.per_epoch_feed else MIN_WINDOW_STEPS
        self.warmup = self._warmup()
        self.settled = self._settled()
        self.rest = self.warmup if self.unit is None else WARMUP_UNITS * self.unit
        self.cell = self._cell()
        self.level_span = self._level_span()
        self.cells_per_level = max(1, round(self.level_span / self.cell))

    def _unit(self) -> float | None:
        if self.plan is None:
            return self.epoch
        return max(self.plan / PLAN_PARTS, min(self.epoch or 0.0, self.plan / FEWEST_UNITS))

    def _warmup(self) -> float:
        """Steps before the first alarm."""
        if self.unit is None:
            return UNKNOWN_WARMUP * self.stride
        return max(WARMUP_UNITS * self.unit, 0.0 if self.per_epoch_feed else MIN_WARMUP_STEPS)

    def _settled(self) -> float:
        """Steps after which a rise is no early hump: healthy components may dip and rise in their first eighth."""
        if self.plan is not None and self.unit is not None:
            return max(SETTLED_UNITS * self.unit, SETTLED_EPOCHS * (self.epoch or 0.0))
        return self.warmup if self.unit is None else WARMUP_UNITS * self.unit

    def _level_span(self) -> float:
        """Steps over which a component's level is averaged: an epoch, or a unit where an epoch is much longer."""
        if self.epoch is not None:
            unit = self.unit or self.epoch
            return max(self.cell, self.epoch if self.epoch <= 2 * unit else unit)
        return max(UNKNOWN_LEVEL * self.stride if self.unit is None else self.unit, self.cell)

    def _cell(self) -> float:
        """Steps in the smallest block: an epoch halved until another halving would make it too small.

        Blocks that end on epoch borders are calmer: every epoch visits the same images, so their difficulty cancels.
        """
        if self.epoch is None:
            return UNKNOWN_CELL * self.stride if self.unit is None else max(8.0, self.stride, self.unit / 8)
        assert self.unit is not None
        least = 1.0 if self.per_epoch_feed else max(4.0, min(self.epoch, self.unit) / 4)
        least = max(least, self.stride)
        cell = self.epoch
        while cell / 2 >= least:
            cell /= 2
        while cell < self.stride:  # a row in several epochs
            cell *= 2
        return cell
