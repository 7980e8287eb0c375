"""What else people use: patience counters and trend tests on epoch means, behind the same convergence gate.

Each detector gets the epoch means of one component and returns the epochs (from 1) at which it alarms.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
from generator import SyntheticRun
from scipy import stats
from score import Alarms

Means = np.ndarray
Test = Callable[[Means], list[int]]


def reduce_lr_on_plateau(patience: int, threshold: float) -> Test:
    """torch's own scheduler; every reduction is an alarm."""
    import torch
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    def test(means: Means) -> list[int]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler = ReduceLROnPlateau(optimizer, factor=0.9, patience=patience, threshold=threshold)
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for optimizer.step(), which there is no reason to call here
            for epoch, mean in enumerate(means, 1):
                before = optimizer.param_groups[0]["lr"]
                scheduler.step(mean)
                if optimizer.param_groups[0]["lr"] < before:
                    found.append(epoch)
        return found

    return test


def early_stopping(patience: int, min_delta: float) -> Test:
    """Lightning's rule: epochs in a row without an improvement on the best."""

    def test(means: Means) -> list[int]:
        best, bad, found = np.inf, 0, []
        for epoch, mean in enumerate(means, 1):
            if mean < best - min_delta:
                best, bad = mean, 0
            else:
                bad += 1
                if bad == patience:
                    found.append(epoch)
        return found

    return test


def mann_kendall(window: int, p: float) -> Test:
    """No significant fall in the newest epochs."""
    spread = (window * (window - 1) * (2 * window + 5) / 18) ** 0.5

    def flat(values: Means) -> bool:
        score = sum(np.sign(values[j] - values[i]) for i, j in combinations(range(window), 2))
        return stats.norm.cdf((score + 1) / spread) > p

    return _windowed(window, flat)


def theil_sen(window: int, least: float) -> Test:
    """The median slope of ln(mean) over the newest epochs falls by less than `least` per epoch."""

    def flat(values: Means) -> bool:
        logs = np.log(values)
        return -np.median([(logs[j] - logs[i]) / (j - i) for i, j in combinations(range(window), 2)]) < least

    return _windowed(window, flat)


def _windowed(window: int, flat: Callable[[Means], bool]) -> Test:
    def test(means: Means) -> list[int]:
        found, was = [], False
        for epoch in range(window, len(means) + 1):
            now = bool(flat(means[epoch - window : epoch]))
            if now and not was:
                found.append(epoch)
            was = now
        return found

    return test


def on_epochs(test: Test, gated: bool) -> Callable[[SyntheticRun], Alarms]:
    """A detector of runs.

    Args:
        test: A detector of one component's epoch means.
        gated: Whether alarms are dropped where the level is within its range or half of the peak.
    """

    def detect(run: SyntheticRun) -> Alarms:
        alarms: Alarms = {}
        for curve in run.curves:
            values = np.where(np.isfinite(curve.losses), curve.losses, 0.0).reshape(run.epochs, -1)
            means = np.maximum(values.mean(axis=1), 1e-12)
            epochs = test(means)
            if gated:
                peaks = np.maximum.accumulate(means)
                epochs = [e for e in epochs if means[e - 1] > max(run.tops.get(curve.name, np.inf), 0.5 * peaks[e - 1])]
            alarms[curve.name] = [epoch * values.shape[1] - 1 for epoch in epochs]
        return alarms

    return detect
