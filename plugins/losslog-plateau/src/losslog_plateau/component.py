"""One component's curve: what is fed, in cells, and what its newest checks said.

Runs in whatever thread feeds the watcher; never looks at the other components.

- `add` is the path of every update: a few additions and a logarithm. All else happens when a cell (a quarter of an
  epoch, as a rule) is complete.
- Constant memory: the ring, the newest cells and some scalars, below 2 kB.
- Its time is the step: a cell ends where its steps end, however many values they brought.
- `state_dict` is plain data, and a restored component goes on exactly as the saved one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import exp, inf, isfinite, log
from operator import add, mul
from typing import Any, Final

from .clock import Clock
from .flatness import check
from .level import Level
from .oscillation import CELLS as OSCILLATION_CELLS
from .oscillation import is_oscillating
from .ring import BlockRing
from .settings import Settings

CELL: Final = 1
NON_FINITE: Final = 2
RECOVERY_CELLS: Final = 4
"""Cells of finite values after which a non-finite component counts as alive again."""
LASTING: Final = 0.5
"""Units that the checks in a row must span: at the start of a run two checks are only half an epoch apart."""
LARGEST: Final = 1e300
"""A mean is cut here: sums of losses near the end of what a float holds are infinite, and exp would raise."""
EPISODES: Final = ("stalled", "flat", "diverging")
"""States that end when the learning rate changes."""

_PLAIN: Final = (
    "begin", "now", "index", "due", "fed", "values", "total", "log_total", "log_squares", "zeros", "bad",
    "zero_cells", "zero_from", "closed", "bad_since", "sane_cells", "flat_checks", "last_flat", "flat_first",
    "flat_start", "span", "improving", "rate", "rate_error", "recent", "recent_error", "least", "rising",
    "oscillating", "checked", "lr_settled", "told_level", "stand",
)  # fmt: skip


class Component:
    """The curve of one loss component.

    Args:
        name: Its name.
        clock: Lengths, shared by all components.
        settings: The test's settings.
        first_step: Step of its first value.
        typical: Its typical final values, or None.
    """

    __slots__ = (*_PLAIN, "clock", "inner", "level", "name", "raised", "ring", "settings", "typical")

    def __init__(
        self, name: str, clock: Clock, settings: Settings, first_step: int, typical: tuple[float, float] | None = None
    ) -> None:
        self.name = name
        self.clock = clock
        self.settings = settings
        self.typical = typical
        self.ring = BlockRing()
        self.level = Level()
        self.inner: list[tuple[float, float, int]] = []  # for oscillation: mean, squares within, count
        self.begin = self.now = first_step  # steps before its first value, and up to its newest
        self.fed = self.values = 0  # in the open cell
        self.total = self.log_total = self.log_squares = 0.0
        self.zeros = self.bad = 0
        self._begin_cell(int(first_step / clock.cell))
        self.zero_cells = 0
        self.zero_from: int | None = None  # step of the first of the zeros that go on
        self.closed = first_step  # steps before the open cell's first value
        self.bad_since: int | None = None
        self.sane_cells = 0
        self.flat_checks = 0
        self.last_flat: int | None = None
        self.flat_first = 0  # `now` at the first check of the row
        self.flat_start: int | None = None
        self.span = 0  # steps the reported line spans
        self.improving = self.rising = False
        self.rate: float | None = None  # fall of ln(loss) per step
        self.rate_error = 0.0
        self.recent = self.recent_error = self.least = 0.0
        self.oscillating: int | None = None
        self.checked = False
        self.lr_settled = first_step  # `now` when the learning rate stopped rising
        self.told_level = 0.0  # level when it was last told to be flat
        self.stand = 0.0  # level along the line of the newest check, blind to outliers
        self.raised: dict[str, int] = {}  # states told in this episode, and the step each began at

    def add(self, loss: float, now: int) -> int:
        """Take one value.

        Args:
            loss: The value.
            now: Steps up to it: one more than its step.

        Returns:
            A sum of `CELL` (a cell is complete: call `close_cell`) and `NON_FINITE` (the first NaN or infinity), or 0.
        """
        event = 0
        if 0.0 < loss < inf:
            y = log(loss)
            self.zero_from = None
            self.values += 1
            self.total += loss
            self.log_total += y
            self.log_squares += y * y
        elif loss == 0.0:
            self.zeros += 1
            if self.zero_from is None:
                self.zero_from = now - 1
        elif not -inf < loss < inf:
            self.bad += 1
            self.sane_cells = 0
            if self.bad_since is None:
                self.bad_since = now - 1
                event = NON_FINITE
        self.fed += 1
        self.now = now
        if now >= self.due:
            return event | CELL
        return event

    def add_many(self, values: Sequence[float], steps: Sequence[int]) -> bool:
        """Take the values of several steps, of which the last alone may complete a cell; to the bit as `add` would.

        Returns:
            Whether a cell is complete: call `close_cell`.
        """
        if min(values) > 0.0 and all(map(isfinite, values)):
            logs = list(map(log, values))
            self.zero_from = None
            self.values += len(values)
            self.total = reduce(add, values, self.total)
            self.log_total = reduce(add, logs, self.log_total)
            self.log_squares = reduce(add, map(mul, logs, logs), self.log_squares)
            self.fed += len(values)
            self.now = steps[-1] + 1
        else:
            for value, step in zip(values, steps, strict=True):
                self.add(value, step + 1)
        return self.now >= self.due

    def close_cell(self) -> None:
        """Close the cell that is due, and check the line anew when that completes a block."""
        count, index = self.values, self.index
        self.zero_cells = self.zero_cells + 1 if self.zeros and self.zeros == self.fed else 0
        mean_log = self.log_total / count if count else 0.0
        mean = min(self.total / count, LARGEST) if count else 0.0
        squares = max(0.0, self.log_squares - mean_log * self.log_total)
        rows = max(self.fed, round((self.now - self.closed) / self.clock.stride)) - self.bad
        if rows > 0:
            self.level.take_presence(count / rows, self.clock)
        if self.bad_since is not None and not self.bad:
            self.sane_cells += 1
            if self.sane_cells >= RECOVERY_CELLS:
                self.bad_since = None
                self.forget_line()
        self._begin_cell(max(index + 1, int(self.now / self.clock.cell + 1e-9)))
        if not count:
            return
        self.level.take(mean_log, mean, self.elapsed, self.clock, self.typical)
        if self.settings.oscillating:
            self._take_oscillation(mean_log, squares, count)
        if self.ring.append(index, mean_log):
            self._check()

    def _begin_cell(self, index: int) -> None:
        self.index = index
        self.due = max(self.now + 1, round((index + 1) * self.clock.cell))
        self.empty_cell()

    def empty_cell(self) -> None:
        """Leave out what the open cell holds: it was another learning rate's."""
        self.total = self.log_total = self.log_squares = 0.0
        self.fed = self.values = self.zeros = self.bad = 0
        self.closed = self.now

    def _take_oscillation(self, mean_log: float, squares: float, count: int) -> None:
        self.inner.append((mean_log, squares, count))
        if len(self.inner) > OSCILLATION_CELLS:
            del self.inner[0]
        if self.elapsed >= self.clock.warmup and is_oscillating(self.inner):
            if self.oscillating is None:
                self.oscillating = self.now
        else:
            self.oscillating = None

    def _check(self) -> None:
        outcome = check(self.ring, self.clock, self.settings, float(self.elapsed))
        self.checked = outcome is not None
        self.improving = outcome is not None and outcome.improving
        self.rising = outcome is not None and outcome.rising
        if outcome is not None:
            self.rate, self.rate_error, self.span = outcome.gain, outcome.error, round(outcome.span)
            self.recent, self.recent_error, self.least = outcome.recent, outcome.recent_error, outcome.least
            self.stand = exp(min(outcome.mean + self.level.excess, log(LARGEST)))
        if outcome is None or not outcome.flat:
            self.flat_checks = 0
            self.flat_start = None
            return
        self.flat_checks += 1
        if self.flat_checks == 1:
            self.flat_first = self.now
        self.last_flat = self.now
        start = max(self.begin, self.now - self.span)
        self.flat_start = start if self.flat_start is None else min(start, self.flat_start)

    @property
    def elapsed(self) -> int:
        """Steps since its first value."""
        return self.now - self.begin

    @property
    def flat(self) -> bool:
        """Whether enough checks in a row found it flat, after the warm-up of the run and of the learning rate."""
        settled = self.elapsed >= self.clock.warmup and self.now - self.lr_settled >= self.clock.rest
        lasting = self.now - self.flat_first >= LASTING * (self.clock.unit or 0.0)
        return settled and self.flat_checks >= self.settings.confirm and lasting

    @property
    def standing(self) -> float | None:
        """Where it stands: the mean along the line while flat, which outliers do not move, else the level."""
        return self.stand if self.flat_checks else self.level.level

    def forget_line(self) -> None:
        """Begin a new line (the learning rate rose); peak and level stay."""
        self.ring.clear()
        self.empty_cell()
        self.flat_checks = 0
        self.flat_start = self.last_flat = None
        self.improving = self.rising = self.checked = False
        self.rate = None
        self.level.diverging = None
        self.inner.clear()
        self.oscillating = None
        for state in EPISODES:
            self.raised.pop(state, None)

    def settle(self) -> None:
        """The learning rate's warm-up is over: a plateau in it says nothing."""
        self.forget_line()
        self.lr_settled = self.now

    def relayout(self, clock: Clock) -> None:
        """Go on with other lengths: cells begin anew, peak and level stay."""
        self.clock = clock
        self.forget_line()
        self.level.forget_cells()
        self._begin_cell(int(self.now / clock.cell + 1e-9))

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores the component exactly."""
        return {
            "plain": [getattr(self, name) for name in _PLAIN],  # without their names: a state is kept small
            "raised": dict(self.raised),
            "inner": [list(cell) for cell in self.inner],
            "level": self.level.state_dict(),
            "ring": self.ring.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, value in zip(_PLAIN, state["plain"], strict=True):
            setattr(self, name, value)
        self.raised = dict(state["raised"])
        self.inner = [(cell[0], cell[1], int(cell[2])) for cell in state["inner"]]
        self.level.load_state_dict(state["level"])
        self.ring.load_state_dict(state["ring"])
