"""Where a component stands: its level over the last epoch, its peak, and whether it runs away.

- Fed with one cell (a quarter of an epoch, as a rule) at a time; constant memory.
- The level is the mean of the raw loss, as the logs print it; divergence is judged on ln(loss), where noise is even.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from statistics import median_low
from typing import Any, Final

from .clock import Clock
from .ring import BlockRing

RISE: Final = 0.3
"""Rise of ln(loss) above its lowest level from which a component diverges."""
RISE_IN_RANGE: Final = 0.69
"""The same within the typical range: there it must double, since small losses are noisy, and harmless."""
RISE_ERRORS: Final = 6.0
"""The rise must also be this many standard errors of a level."""
FALL: Final = 0.1
"""Fall of ln(loss) that shows that the component has learnt at all."""
FALL_ERRORS: Final = 3.0
MEMORY: Final = 0.03
"""Weight of the newest difference of cells in the running noise of a cell."""
EXCESSES: Final = 7
"""Newest levels, none sharing a cell, of which `Level.excess` is the median: a spike is in one or two of them."""
MEAN_ABS_DIFF: Final = 1.128
"""Mean of |a - b| for independent normal a, b of unit deviation: 2 / sqrt(pi)."""

_PLAIN: Final = (
    "level",
    "peak",
    "lowest",
    "highest",
    "fell",
    "noise",
    "taken",
    "diverging",
    "excesses",
    "levels",
    "past",
    "logs",
    "means",
    "absences",
)


class Level:
    """The level of one component.

    Attributes:
        level: Mean loss over the last epoch (or unit), or None before there is one.
        peak: Highest level so far.
        diverging: Steps since its first value at which a rise was seen that still holds, or None.
    """

    __slots__ = (*_PLAIN, "history")

    def __init__(self) -> None:
        self.history: BlockRing | None = None  # levels since the early part, in longer and longer blocks
        self.past = 0  # cells in it
        self.logs: list[float] = []  # newest cells: mean of ln(loss)
        self.means: list[float] = []  # and of the loss
        self.absences: list[int] = []  # newest cells, with or without a value: thousandths of the rows without one
        self.level: float | None = None
        self.peak = 0.0
        self.lowest = inf  # lowest block of the history
        self.highest = -inf  # highest ln level so far
        self.fell = False
        self.noise = 0.0  # standard deviation of one cell's mean of ln(loss)
        self.taken = 0
        self.diverging: int | None = None
        self.excesses: list[float] = []  # ln(level) above the mean of ln(loss), of the newest that share no cell
        self.levels = 0

    def take(
        self, mean_log: float, mean: float, elapsed: int, clock: Clock, typical: tuple[float, float] | None
    ) -> None:
        """Take one more cell.

        Args:
            mean_log: Mean of ln(loss) in it.
            mean: Mean of the loss in it.
            elapsed: Steps since the component's first value.
            clock: Lengths in steps.
            typical: Typical final values, or None.
        """
        logs, means, wanted = self.logs, self.means, clock.cells_per_level
        if logs:
            diff = abs(mean_log - logs[-1]) / MEAN_ABS_DIFF
            self.taken += 1
            self.noise += max(MEMORY, 1.0 / self.taken) * (diff - self.noise)  # the first few weigh equally
        logs.append(mean_log)
        means.append(mean)
        keep = max(2, wanted)
        if len(logs) > keep:
            del logs[0]
        if len(means) > wanted:
            del means[0]
        if len(means) < wanted:
            return
        self.level = sum(means) / wanted
        self.peak = max(self.peak, self.level)
        self._take_excess(log(self.level) - sum(logs[-wanted:]) / wanted)
        if len(logs) == keep:
            log_level, error = sum(logs) / keep, self.noise / keep**0.5
            self._watch_rise(log_level, error, elapsed, clock, typical)

    def take_presence(self, presence: float, clock: Clock) -> None:
        """Take in how much of a cell's rows there was a loss other than 0; comes before `take`, and without it."""
        self.absences.append(round(1000 * (1 - presence)))
        del self.absences[: -clock.cells_per_level]

    @property
    def presence(self) -> float:
        """The share of steps that have a loss other than 0: it counts that much less in the total."""
        return 1 - sum(self.absences) / len(self.absences) / 1000 if self.absences else 1.0

    def _take_excess(self, excess: float) -> None:
        if self.levels == 0:
            self.excesses.append(round(excess, 2))
            del self.excesses[:-EXCESSES]
        self.levels = (self.levels + 1) % len(self.means)

    @property
    def excess(self) -> float:
        """By how much ln(level) exceeds the mean of ln(loss) now, as a rule: makes a level of a mean of ln(loss)."""
        return median_low(self.excesses) if self.excesses else 0.0

    def _watch_rise(
        self, log_level: float, error: float, elapsed: int, clock: Clock, typical: tuple[float, float] | None
    ) -> None:
        """Divergence: has the level risen well above the lowest, in a curve that once fell?"""
        self.highest = max(self.highest, log_level)
        if not self.fell:
            self.fell = self.highest - log_level >= max(FALL, FALL_ERRORS * error)
        if elapsed < clock.settled:  # early on a healthy component may dip and rise
            return
        self._remember(clock.cells_per_level)
        if not self.fell or self.lowest == inf:
            return
        least = RISE
        if typical is not None and self.level is not None and self.level <= typical[1]:
            least = RISE_IN_RANGE if self.level >= typical[0] else inf
        rise, needed = log_level - self.lowest, max(least, RISE_ERRORS * error)
        if rise <= needed / 2:
            self.diverging = None
        elif rise > needed and self.diverging is None:
            self.diverging = elapsed

    def _remember(self, cells_per_level: int) -> None:
        """Keep the lowest level in blocks that grow with time: of many short ones noise alone makes one very low."""
        if self.history is None:
            self.history = BlockRing(cells_per_level)
        self.past += 1
        if self.history.append(self.past - 1, self.logs[-1]):
            self.lowest = min(self.history.means)

    def forget_cells(self) -> None:
        """Begin with cells of another length, whose noise is another; level and peak stay."""
        self.history, self.past = None, 0
        self.lowest, self.highest = inf, -inf
        self.logs.clear()
        self.means.clear()
        self.absences.clear()
        self.levels = 0
        self.noise = 0.0
        self.taken = 0

    def state_dict(self) -> list[Any]:
        """Plain data from which `load_state_dict` restores exactly; infinities are None."""
        values = [getattr(self, name) for name in _PLAIN]
        plain = [
            list(value) if isinstance(value, list) else None if value in (inf, -inf) else value for value in values
        ]
        return [*plain, None if self.history is None else self.history.state_dict()]

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Restore what `state_dict` gave."""
        *plain, history = state
        for name, value in zip(_PLAIN, plain, strict=True):
            setattr(self, name, list(value) if isinstance(value, list) else value)
        self.lowest = inf if self.lowest is None else self.lowest
        self.highest = -inf if self.highest is None else self.highest
        self.history = None
        if history is not None:
            self.history = BlockRing()
            self.history.load_state_dict(history)
