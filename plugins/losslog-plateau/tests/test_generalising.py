"""A component that generalises no more is named with its best epoch; noise, and what still falls, is not."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from losslog_plateau.generalising import Generalising
from losslog_plateau.notice import Notice

Curve = Callable[[int], float]


def falling(epoch: int) -> float:
    return 0.1 + 0.9 * math.exp(-epoch / 8)


def turning(epoch: int) -> float:
    """Lowest at epoch 9, then up by 3 % an epoch."""
    return falling(epoch) if epoch <= 9 else falling(9) * 1.03 ** (epoch - 9)


def watched(curves: dict[str, Curve], noise: float = 0.0, seed: int = 0, epochs: int = 40) -> list[tuple[int, Notice]]:
    draw, watcher, found = random.Random(seed), Generalising(), []
    for epoch in range(1, epochs + 1):
        training = {name: falling(epoch) * math.exp(draw.gauss(0, noise / 3)) for name in curves}
        validation = {name: curve(epoch) * math.exp(draw.gauss(0, noise)) for name, curve in curves.items()}
        found += [(epoch, each) for each in watcher.take(epoch, training, validation)]
    return found


def test_component_and_its_best_epoch_are_named() -> None:
    ((epoch, notice),) = watched({"loss_mask": turning, "loss_box_reg": falling})
    assert (notice.component, notice.cause, notice.level) == ("loss_mask", "overfitting", "warning")
    assert abs(notice.evidence["best_epoch"] - 9) <= 1
    assert epoch <= 14
    assert notice.evidence["others"] == ["loss_box_reg"]
    assert "loss_mask generalises no more since epoch" in notice.text
    assert "loss_box_reg still does" in notice.text


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_noise_is_no_rise(noise: float) -> None:
    curves: dict[str, Curve] = {"loss_mask": lambda epoch: falling(min(epoch, 15)), "loss_box_reg": falling}
    assert sum(bool(watched(curves, noise, seed)) for seed in range(100)) <= 3


def test_rise_is_found_in_noise() -> None:
    found = [watched({"loss_mask": turning, "loss_box_reg": falling}, 0.03, seed) for seed in range(50)]
    assert sum("loss_mask" in {each.component for _, each in run} for run in found) >= 48


def test_training_that_rises_too_is_another_matter() -> None:
    watcher = Generalising()
    assert not [each for epoch in range(1, 40) for each in watcher.take(epoch, turning(epoch), turning(epoch))]


@pytest.mark.parametrize(("losses", "val_loss"), [(None, 1.0), ({"a": 1.0}, None), ({"a": 1.0}, {"b": 1.0}),
                                                  ({"a": math.nan}, {"a": 1.0}), ({"a": 0.0}, {"a": 0.0})])  # fmt: skip
def test_what_cannot_be_compared_is_passed_over(losses: Any, val_loss: Any) -> None:
    watcher = Generalising()
    assert not [each for epoch in range(1, 20) for each in watcher.take(epoch, losses, val_loss)]


def test_one_loss_without_a_name() -> None:
    watcher = Generalising()
    (notice,) = (each for epoch in range(1, 30) for each in watcher.take(epoch, falling(epoch), turning(epoch)))
    assert notice.component == "loss"


def test_a_saved_one_goes_on_as_it_would_have() -> None:
    one, other = Generalising(), Generalising()
    for epoch in range(1, 13):
        one.take(epoch, falling(epoch), turning(epoch))
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for epoch in range(13, 30):
        assert one.take(epoch, falling(epoch), turning(epoch)) == other.take(epoch, falling(epoch), turning(epoch))
