"""One component's curve: is it flat, improving, diverging, and where does it stand?

Runs in whatever thread feeds the watcher; never looks at the other components.

- `add` is the path of every update: a few additions and a logarithm. All else happens when a cell (a quarter of an
  epoch, as a rule) is complete.
- Constant memory: the ring, the newest cells and some scalars, below 2 kB.
- `state_dict` is plain data, and a restored component goes on exactly as the saved one would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log
from typing import Any, Final

from .clock import Clock
from .oscillation import CELLS as OSCILLATION_CELLS
from .oscillation import is_oscillating
from .ring import BlockRing
from .settings import Settings

CELL: Final = 1
NON_FINITE: Final = 2
UNKNOWN_GAIN: Final = 0.15
"""Improvement over the time elapsed below which a curve is flat, where neither plan nor epoch is known."""
UNKNOWN_Z: Final = 2.0
DIVERGING_RISE: Final = 0.3
DIVERGING_RISE_IN_RANGE: Final = 0.69
"""A component within its typical range must double: small losses are noisy, and harmless there."""
DIVERGING_ERRORS: Final = 6.0
DIVERGING_FALL: Final = 0.1
FALL_ERRORS: Final = 3.0
LEAST_PART: Final = 0.125
LEAST_PART_UNPLANNED: Final = 0.25
"""A line spans at least this part of the time elapsed; more where the plan is unknown, since time is the only scale."""
RECENT: Final = 0.25
"""A line that shows an improvement may span this part of the time elapsed."""
NOISE_MEMORY: Final = 0.1
"""Weight of the newest difference of cells in the running noise of a cell."""
MEAN_ABS_DIFF: Final = 1.128
"""Mean of |a - b| for independent normal a, b of unit deviation: 2 / sqrt(pi)."""
RECOVERY_CELLS: Final = 4
"""Cells of finite values after which a non-finite component counts as alive again."""

_PLAIN: Final = (
    "index",
    "updates",
    "due",
    "values",
    "total",
    "log_total",
    "log_squares",
    "zeros",
    "bad",
    "zero_cells",
    "bad_since",
    "sane_cells",
    "first_step",
    "level",
    "peak",
    "lowest",
    "highest",
    "fell",
    "cell_noise",
    "diverging",
    "flat_checks",
    "last_flat",
    "flat_start",
    "flat_span",
    "improving",
    "rate",
    "rate_error",
    "oscillating",
    "checked",
    "lr_settled",
    "seen",
)


class Component:
    """The curve of one loss component.

    Args:
        name: Its name.
        clock: Lengths, shared by all components.
        settings: The test's settings.
        first_step: Step of its first value.
        typical: Its typical final values, or None.
    """

    __slots__ = (*_PLAIN, "cells", "clock", "inner", "name", "raised", "range", "ring", "settings")

    def __init__(
        self,
        name: str,
        clock: Clock,
        settings: Settings,
        first_step: int,
        typical: tuple[float, float] | None = None,
    ) -> None:
        self.name = name
        self.clock = clock
        self.settings = settings
        self.first_step = first_step
        self.range = typical
        self.ring = BlockRing()
        self.cells: list[tuple[float, float]] = []  # newest cells: mean of ln(loss), mean of the loss
        self.inner: list[tuple[float, float, int]] = []  # for oscillation: mean, squares within, count
        self.index = 0  # cells completed
        self.updates = 0
        self.due = round(clock.cell)
        self.values = 0
        self.total = self.log_total = self.log_squares = 0.0
        self.zeros = self.bad = 0
        self.zero_cells = 0
        self.bad_since: int | None = None
        self.sane_cells = 0
        self.level: float | None = None
        self.peak = 0.0
        self.lowest = inf  # lowest ln level since the early part
        self.highest = -inf  # highest ln level so far
        self.fell = False
        self.cell_noise = 0.0
        self.diverging: int | None = None  # update at which the rise was seen
        self.flat_checks = 0
        self.last_flat: int | None = None
        self.flat_start: int | None = None
        self.flat_span = 0
        self.improving = False
        self.rate: float | None = None  # fall of ln(loss) per update
        self.rate_error = 0.0
        self.oscillating: int | None = None
        self.checked = False
        self.lr_settled = 0  # updates when the learning rate stopped rising
        self.seen = 0  # the watcher's count of updates at the last completed cell
        self.raised: dict[str, int] = {}  # states told in this episode, and the step each began at

    def add(self, loss: float) -> int:
        """Take one value.

        Returns:
            0, or `CELL` if a cell is complete and `close_cell` is due, or `NON_FINITE` if the value is the first NaN or
            infinity (its cell is closed by a later value).
        """
        event = 0
        if 0.0 < loss < inf:
            y = log(loss)
            self.values += 1
            self.total += loss
            self.log_total += y
            self.log_squares += y * y
        elif loss == 0.0:
            self.zeros += 1
        elif not -inf < loss < inf:
            self.bad += 1
            self.sane_cells = 0
            if self.bad_since is None:
                self.bad_since = self.updates
                event = NON_FINITE
        self.updates += 1
        if self.updates >= self.due:
            return event | CELL
        return event

    def close_cell(self) -> bool:
        """Close the cell that is due.

        Returns:
            Whether the flatness test was made anew.
        """
        count, index = self.values, self.index
        cell_updates = self.updates - round(index * self.clock.cell)
        self.zero_cells = self.zero_cells + 1 if self.zeros and self.zeros == cell_updates else 0
        if self.bad_since is not None and not self.bad:
            self.sane_cells += 1
            if self.sane_cells >= RECOVERY_CELLS:
                self.bad_since = None
                self.forget_line()
        self.index = index + 1
        self.due = max(self.updates + 1, round((index + 2) * self.clock.cell))
        mean_log = self.log_total / count if count else 0.0
        mean = self.total / count if count else 0.0
        squares = max(0.0, self.log_squares - mean_log * self.log_total)
        self.total = self.log_total = self.log_squares = 0.0
        self.values = self.zeros = self.bad = 0
        if not count:
            return False
        self._take_level(mean_log, mean)
        if self.settings.oscillating:
            self._take_oscillation(mean_log, squares, count)
        return self.ring.append(index, mean_log) and self._check()

    def _take_level(self, mean_log: float, mean: float) -> None:
        """Level, peak and divergence from one more cell."""
        cells, wanted = self.cells, self.clock.cells_per_level
        if cells:
            diff = abs(mean_log - cells[-1][0]) / MEAN_ABS_DIFF
            # the first differences weigh equally, later ones by the memory
            weight = max(NOISE_MEMORY, 1.0 / self.index)
            self.cell_noise += weight * (diff - self.cell_noise)
        cells.append((mean_log, mean))
        keep = max(2, wanted)
        if len(cells) > keep:
            del cells[0]
        if len(cells) < wanted:
            return
        recent = cells[-wanted:]
        self.level = sum(cell[1] for cell in recent) / wanted
        self.peak = max(self.peak, self.level)
        if len(cells) < keep:
            return
        self._take_log_level(sum(cell[0] for cell in cells) / keep, keep)

    def _take_log_level(self, level: float, keep: int) -> None:
        """Divergence: has the level risen well above the lowest, in a curve that once fell?"""
        error = self.cell_noise / keep**0.5
        self.highest = max(self.highest, level)
        if not self.fell:
            self.fell = self.highest - level >= max(DIVERGING_FALL, FALL_ERRORS * error)
        if self.updates < self.clock.settled:  # early on a healthy component may dip and rise
            return
        self.lowest = min(self.lowest, level)
        least = DIVERGING_RISE
        if self.range is not None and self.level is not None and self.level <= self.range[1]:
            least = DIVERGING_RISE_IN_RANGE if self.level >= self.range[0] else inf
        rise, needed = level - self.lowest, max(least, DIVERGING_ERRORS * error)
        if rise <= needed / 2:
            self.diverging = None
        elif rise > needed and self.fell and self.diverging is None:
            self.diverging = self.updates

    def _take_oscillation(self, mean_log: float, squares: float, count: int) -> None:
        self.inner.append((mean_log, squares, count))
        if len(self.inner) > OSCILLATION_CELLS:
            del self.inner[0]
        if self.updates >= self.clock.warmup and is_oscillating(self.inner):
            if self.oscillating is None:
                self.oscillating = self.updates
        else:
            self.oscillating = None

    def _check(self) -> bool:
        """Test the ring's lines for flatness and for improvement.

        Returns:
            Whether a line was long enough to test.
        """
        clock, settings, ring = self.clock, self.settings, self.ring
        noise, n_diffs = ring.noise()
        if ring.drop_rise(noise):
            noise, n_diffs = ring.noise()
        block = ring.cells_per_block * clock.cell
        elapsed = float(self.updates)
        unit, limit, z = clock.unit, settings.r, settings.z
        if unit is None:
            unit, limit, z = elapsed, UNKNOWN_GAIN, max(z, UNKNOWN_Z)
            shortest = max(clock.min_window, elapsed * LEAST_PART_UNPLANNED)
        else:
            part = LEAST_PART if clock.plan is not None else LEAST_PART_UNPLANNED
            shortest = max(settings.window * unit, clock.min_window, elapsed * part)
        lines = ring.lines(shortest / block, noise, n_diffs, z)
        self.checked = bool(lines)
        if not lines:
            self._not_flat()
            self.improving = False
            return True
        flat = [line for line in lines if (line.gain + line.error) * unit / block < limit]
        self.improving = any(
            line.gain > line.error and (at == 0 or line.blocks * block <= elapsed * RECENT)
            for at, line in enumerate(lines)
        )
        shown = flat[-1] if flat else lines[0]
        self.rate = shown.gain / block
        self.rate_error = shown.error / block
        if flat:
            self.flat_checks += 1
            self.last_flat = self.updates
            self.flat_span = round(shown.blocks * block)
            start = self.updates - self.flat_span
            self.flat_start = start if self.flat_start is None else min(start, self.flat_start)
        else:
            self._not_flat()
        return True

    def _not_flat(self) -> None:
        self.flat_checks = 0
        self.flat_start = None

    @property
    def flat(self) -> bool:
        """Whether enough checks in a row found it flat, after the warm-up."""
        settled = self.updates >= self.clock.warmup and self.updates - self.lr_settled >= self.clock.rest
        return settled and self.flat_checks >= self.settings.confirm

    def forget_line(self) -> None:
        """Begin a new line (the learning rate changed); peak and level stay."""
        self.ring.clear()
        self._not_flat()
        self.last_flat = None
        self.improving = False
        self.rate = None
        self.checked = False
        self.diverging = None
        for state in ("stalled", "flat", "diverging"):
            self.raised.pop(state, None)
        self.inner.clear()
        self.oscillating = None

    def settle(self) -> None:
        """The learning rate's warm-up is over: a plateau in it says nothing."""
        self.forget_line()
        self.lr_settled = self.updates

    def relayout(self, clock: Clock) -> None:
        """Go on with other lengths: cells begin anew, peak and level stay."""
        self.clock = clock
        self.forget_line()
        self.cells.clear()
        self.cell_noise = 0.0
        self.index = int(self.updates / clock.cell)
        self.due = max(self.updates + 1, round((self.index + 1) * clock.cell))
        self.values = self.zeros = self.bad = 0
        self.total = self.log_total = self.log_squares = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores the component exactly."""
        state: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        state["lowest"] = None if self.lowest == inf else self.lowest
        state["highest"] = None if self.highest == -inf else self.highest
        state["cells"] = [list(cell) for cell in self.cells]
        state["inner"] = [list(cell) for cell in self.inner]
        state["raised"] = dict(self.raised)
        state["ring"] = self.ring.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.lowest = inf if state["lowest"] is None else state["lowest"]
        self.highest = -inf if state["highest"] is None else state["highest"]
        self.cells = [(cell[0], cell[1]) for cell in state["cells"]]
        self.inner = [(cell[0], cell[1], int(cell[2])) for cell in state["inner"]]
        self.raised = dict(state["raised"])
        self.ring.load_state_dict(state["ring"])
