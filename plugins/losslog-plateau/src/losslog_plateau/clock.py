"""How long an epoch, the unit of the test and the warm-up are, counted in updates.

Runs in whatever thread feeds the watcher; pure arithmetic, no state but its inputs.

- A watcher is fed once per *update*; an update stands for ``stride`` optimizer steps (1 in a run that logs every step,
  20 in a log with a row every 20 steps). Everything outside this module counts updates.
- The unit is what "an improvement of 1.5 %" refers to: a twentieth of the planned run, else one epoch, else none.
- With one value per epoch the minimum lengths in steps do not apply: such values are calm, and few.
"""

from __future__ import annotations

from typing import Final

PLAN_PARTS: Final = 20
"""The unit is this part of the planned run."""
MIN_WINDOW_STEPS: Final = 100
MIN_WARMUP_STEPS: Final = 300
MIN_WARMUP_STEPS_UNKNOWN: Final = 500
"""Steps before the first alarm where neither the plan nor the epoch is known."""
UNKNOWN_CELL: Final = 24.0
"""Steps in a cell where neither is known."""
WARMUP_UNITS: Final = 5
SETTLED_UNITS: Final = 3
SETTLED_EPOCHS: Final = 2


class Clock:
    """Lengths in updates, derived from the plan, the epoch and the stride.

    Args:
        planned_steps: Optimizer steps the whole run is going to take, or None.
        steps_per_epoch: Optimizer steps in one epoch; 1 says that one value comes per epoch; None if unknown.
        stride: Optimizer steps per update.
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
        self.planned_steps = planned_steps
        self.steps_per_epoch = steps_per_epoch
        self.stride = stride
        self.epoch = None if steps_per_epoch is None else max(1.0, steps_per_epoch / stride)
        self.plan = None if planned_steps is None else planned_steps / stride
        self.per_epoch_feed = self.epoch == 1.0
        self.unit = self.epoch if self.plan is None else max(self.plan / PLAN_PARTS, 1e-9)
        self.min_window = 0.0 if self.per_epoch_feed else MIN_WINDOW_STEPS / stride
        self.warmup = self._warmup()
        self.settled = self._settled()
        self.rest = self.warmup if self.unit is None else WARMUP_UNITS * self.unit
        self.cell = self._cell()
        self.level_span = self._level_span()
        self.cells_per_level = max(1, round(self.level_span / self.cell))

    def _warmup(self) -> float:
        """Updates before the first alarm."""
        if self.unit is None:
            return MIN_WARMUP_STEPS_UNKNOWN / self.stride
        least = 0.0 if self.per_epoch_feed else MIN_WARMUP_STEPS / self.stride
        return max(WARMUP_UNITS * self.unit, least)

    def _settled(self) -> float:
        """Updates after which a rise is no early hump: healthy components may dip and rise in their first eighth."""
        if self.plan is not None and self.unit is not None:
            return max(SETTLED_UNITS * self.unit, SETTLED_EPOCHS * (self.epoch or 0.0))
        return self.warmup if self.unit is None else WARMUP_UNITS * self.unit

    def _level_span(self) -> float:
        """Updates over which a component's level is averaged: an epoch, or a unit where an epoch is much longer."""
        if self.epoch is not None:
            return self.epoch if self.unit is None or self.epoch <= 2 * self.unit else max(self.unit, self.cell)
        return 96.0 / self.stride if self.unit is None else max(self.unit, self.cell)

    def _cell(self) -> float:
        """Updates in the smallest block: an epoch halved until another halving would make it too small.

        Blocks that end on epoch borders are calmer: every epoch visits the same images, so their difficulty cancels.
        """
        if self.epoch is None:
            if self.unit is None:
                return max(1.0, UNKNOWN_CELL / self.stride)
            return max(1.0, 8.0 / self.stride, self.unit / 8)
        assert self.unit is not None
        least = max(4.0 / self.stride, min(self.epoch / 4, self.unit / 2), 1.0)
        cell = self.epoch
        while cell / 2 >= least:
            cell /= 2
        return cell
