"""Many batches at once leave the plugin as each of them alone would, to the last bit."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from losslog_plateau import PlateauPlugin

NAMES = ("loss_box_reg", "loss_mask", "loss_classifier", "aux")
ODD = (0.0, -1.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, 3, 0)


def odd_batches(seed: int, odd: float) -> list[dict[str, Any]]:
    """Batches as loops log them, and with a share of what hardly anybody logs."""
    draw = random.Random(seed)
    per_epoch, step, names, lr = draw.choice([7, 40, 250]), 0, NAMES[: draw.randint(1, 4)], 0.02
    factor = draw.choice([1.0, 1.0, 2.0])
    found = []
    while len(found) < 1500:
        step += draw.choice([1, 1, 1, 1, 17]) if draw.random() < odd / 10 else 1
        if draw.random() < odd / 20:
            step -= draw.randint(1, 30)
        if draw.random() < odd / 20:
            names = tuple(draw.sample(NAMES, draw.randint(1, 4)))
        if draw.random() < odd / 20:
            lr = draw.choice([0.02, 0.002, 0.2, math.nan, {"head": 0.1}, None])
        if draw.random() < odd / 50:
            factor = draw.choice([1.0, 1.5, 0.3])
        losses: Any = {name: 2.0 / (1 + step / 300) * draw.lognormvariate(0, 0.2) for name in names}
        total: Any = factor * sum(losses.values())
        if draw.random() < odd:
            losses[draw.choice(names)] = draw.choice(ODD)
        if draw.random() < odd / 5:
            total = draw.choice([None, *ODD])
        if draw.random() < odd / 20:
            losses = 1.0
        weights = {names[0]: draw.choice([2.0, 0.001])} if draw.random() < odd / 5 else None
        found.append({"step": step, "epoch": step // per_epoch + 1, "losses": losses, "total": total, "lr": lr,
                      "weights": weights})  # fmt: skip
    return found


def one_by_one(plugin: PlateauPlugin, batches: list[dict[str, Any]], run: Any) -> None:
    for each in batches:
        plugin.on_batch_losses(**each, run=run)


def all_at_once(plugin: PlateauPlugin, batches: list[dict[str, Any]], run: Any) -> int:
    place = alone = 0
    while place < len(batches):
        taken = plugin.watch_many(batches, place)
        if not taken:
            plugin.on_batch_losses(**batches[place], run=run)
            alone += 1
        place += taken or 1
    return alone


@pytest.mark.parametrize("odd", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("told", [True, False])
def test_many_at_once_are_to_the_bit_as_each_alone(seed: int, odd: float, told: bool, make: Any) -> None:
    batches = odd_batches(seed, odd)
    states = []
    for feed in (one_by_one, all_at_once):
        plugin = PlateauPlugin(oscillating=seed % 2 == 0)
        per_epoch = batches[-1]["step"] // max(batches[-1]["epoch"] - 1, 1)
        plugin.on_run_start(epochs=60 if told else None, steps_per_epoch=per_epoch if told else None, resumed=False,
                            seq=0)  # fmt: skip
        feed(plugin, batches, make.run())
        states.append(repr((plugin.watcher.state_dict(), plugin.verdicts())))  # of floats all digits, and NaN is NaN
    assert states[0] == states[1]


def test_hardly_any_of_usual_batches_is_taken_alone(make: Any) -> None:
    plugin = PlateauPlugin()
    plugin.on_run_start(epochs=60, steps_per_epoch=250, resumed=False, seq=0)
    assert all_at_once(plugin, odd_batches(2, 0.0), make.run()) < 300
