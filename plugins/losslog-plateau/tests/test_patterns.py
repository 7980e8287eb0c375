"""The two patterns of the users' guide, 100 noisy copies each, by batch and by epoch."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import median

import pytest
from losslog_plateau import Watcher

GOOD = {1: 0.450, 5: 0.250, 10: 0.150, 20: 0.120}
BAD = {1: 0.450, 5: 0.420, 10: 0.410, 20: 0.405}
EPOCHS = 20
COPIES = 100
OTHERS = {
    "loss_classifier": (0.9, 0.10),
    "loss_box_reg": (0.5, 0.08),
    "loss_objectness": (0.3, 0.04),
    "loss_rpn_box_reg": (0.25, 0.05),
}


def between(points: dict[int, float], epoch: float) -> float:
    """The pattern at an epoch: straight lines in ln(loss)."""
    known = sorted(points)
    if epoch <= known[0]:
        return points[known[0]]
    for left, right in pairwise(known):
        if epoch <= right:
            part = (epoch - left) / (right - left)
            return points[left] ** (1 - part) * points[right] ** part
    return points[known[-1]]


def first_alarms(points: dict[int, float], per_epoch: int, noise: float) -> list[float]:
    """Epoch of the first warning that loss_mask has stalled, for each copy that has one."""
    steps = EPOCHS * per_epoch
    epochs = [(step + 1) / per_epoch for step in range(steps)]
    clean = {"loss_mask": [between(points, epoch) for epoch in epochs]}
    for name, (start, end) in OTHERS.items():
        clean[name] = [end + (start - end) * math.exp(-epoch / 7) for epoch in epochs]
    found = []
    for copy in range(COPIES):
        draw = random.Random(copy)
        watcher = Watcher(steps, per_epoch)
        for step in range(steps):
            losses = {name: values[step] * math.exp(draw.gauss(0, noise)) for name, values in clean.items()}
            news = watcher.update(step, losses)
            if any(each.component == "loss_mask" and each.state == "stalled" for each in news):
                found.append(epochs[step])
                break
    return found


@pytest.mark.parametrize(("per_epoch", "noise"), [(50, 0.5), (200, 0.35), (1, 0.045)])
def test_good_pattern_is_silent(per_epoch: int, noise: float) -> None:
    assert first_alarms(GOOD, per_epoch, noise) == []


@pytest.mark.parametrize(("per_epoch", "noise", "latest"), [(50, 0.35, 12), (200, 0.35, 10), (1, 0.045, 12)])
def test_bad_pattern_is_found(per_epoch: int, noise: float, latest: float) -> None:
    found = first_alarms(BAD, per_epoch, noise)
    assert len(found) >= 97
    assert median(found) <= latest


def test_clean_epoch_values_of_the_bad_pattern_are_found_by_epoch_nine() -> None:
    assert first_alarms(BAD, 1, 0.0) == [9] * COPIES
