"""Which component generalises no more: its validation loss rises while its training loss still falls.

Fed with epoch means. Constant memory.

- The best epoch is that of the lowest mean of three validation losses in a row, its middle.
- It is told when the last three are above these by more than 5 % and by more than five times the noise of such a
  difference, while the training loss has fallen by more than 2 %; once for each best epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import exp, isfinite, log, sqrt
from statistics import fmean, median
from typing import Any, Final

from .notice import Notice

WINDOW: Final = 3
RISE: Final = 0.05
FALL: Final = 0.02
NOISES: Final = 5.0
APART: Final = 3
"""Epochs between the best three and the last three, middle to middle."""
KEPT: Final = 64
Row = list[float]  # epoch, ln of the validation loss, ln of the training loss


class Generalising:
    """Watches the validation losses of one run."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {}  # the last ones
        self._best: dict[str, Row] = {}  # the means of the best three
        self._told: dict[str, float] = {}  # best epoch of what was told

    def take(self, epoch: int, losses: Any, val_loss: Any) -> list[Notice]:
        """Take the means of one epoch.

        Args:
            epoch: From 1.
            losses: Training means by component, or one.
            val_loss: Likewise of validation; None where there was none.
        """
        training, validation = _named(losses), _named(val_loss)
        risen = []
        for name, value in validation.items():
            if name not in training or not value > 0 or not training[name] > 0:
                continue
            if not (isfinite(value) and isfinite(training[name])):
                continue
            rows = self._rows.setdefault(name, [])
            if rows and epoch <= rows[-1][0]:
                rows[:] = [row for row in rows if row[0] < epoch]
            rows.append([epoch, log(value), log(training[name])])
            del rows[:-KEPT]
            if len(rows) >= WINDOW and self._has_risen(name, rows):
                risen.append(name)
        news = []
        for name in risen:
            best = self._best[name]
            if self._told.get(name) != best[0]:
                self._told[name] = best[0]
                news.append(self._notice(name, epoch))
        return news

    def _has_risen(self, name: str, rows: list[Row]) -> bool:
        now = _mean(rows[-WINDOW:])
        best = self._best.get(name)
        if best is None or now[1] < best[1]:
            self._best[name] = now
            return False
        steps = [other[1] - one[1] for one, other in pairwise(rows)]
        bends = [abs(other - one) for one, other in pairwise(steps)]  # blind to a trend
        noise = median(bends) / 1.652 / sqrt(WINDOW / 2)  # of a difference of two means of three
        rise = now[1] - best[1]
        apart = now[0] - best[0] >= APART
        return apart and rise > max(log(1 + RISE), NOISES * noise) and now[2] - best[2] < -FALL

    def _notice(self, name: str, epoch: int) -> Notice:
        best, now = self._best[name], _mean(self._rows[name][-WINDOW:])
        others = [
            each for each, its in self._best.items()
            if each != name and self._rows[each][-1][0] == epoch and epoch - its[0] < APART
        ]  # fmt: skip
        at = round(best[0])
        text = (
            f"{name} generalises no more since epoch {at}: its validation loss has risen from {exp(best[1]):.3g} to "
            f"{exp(now[1]):.3g}, while its training loss fell from {exp(best[2]):.3g} to {exp(now[2]):.3g}"
        )
        if others:
            text += f"; {', '.join(others)} still {'does' if len(others) == 1 else 'do'}"
        text += (
            f". The best epoch for it was {at}: more data or augmentation, a smaller weight for it, or an earlier stop."
        )
        evidence = {
            "best_epoch": at, "validation": [exp(best[1]), exp(now[1])], "training": [exp(best[2]), exp(now[2])],
            "others": others, "step": at,
        }  # fmt: skip
        return Notice("overfitting", f"{name} generalises no more", text, "warning", name, evidence)

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        rows = {name: [list(row) for row in each] for name, each in self._rows.items()}
        return {"rows": rows, "best": dict(self._best), "told": dict(self._told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._rows = {name: [list(row) for row in each] for name, each in state["rows"].items()}
        self._best, self._told = dict(state["best"]), dict(state["told"])


def _mean(rows: list[Row]) -> Row:
    return [fmean(row[place] for row in rows) for place in range(3)]


def _named(losses: Any) -> dict[str, float]:
    """Losses by name; one loss is called ``loss``."""
    if isinstance(losses, Mapping):
        return {name: float(value) for name, value in losses.items() if isinstance(value, int | float)}
    return {"loss": float(losses)} if isinstance(losses, int | float) else {}
