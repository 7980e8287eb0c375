from __future__ import annotations

import pytest
import torch

from losslog.engine import SCHEDULES, make_scheduler, schedule_factor


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("step", [1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01]),
        ("constant", [1] * 9),
        ("cosine", [1.0, 0.970, 0.883, 0.75, 0.587, 0.413, 0.25, 0.117, 0.030]),
    ],
)
def test_factors_over_nine_steps(name: str, factors: list[float]) -> None:
    assert [schedule_factor(name, step, 9) for step in range(9)] == pytest.approx(factors, abs=1e-3)


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_a_short_run_does_not_spend_its_last_epoch_at_a_hundredth(epochs: int) -> None:
    factors = [schedule_factor("step", step, 100 * epochs, epochs) for step in range(100 * epochs)]
    assert (min(factors), factors[0]) == (0.1 if epochs <= 3 else 0.01, 1.0)


def test_one_cycle_rises_to_one_and_falls_to_zero() -> None:
    factors = [schedule_factor("onecycle", step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 25)
    assert max(factors) == factors[15] == 1.0
    assert factors[100] == pytest.approx(0)
    assert factors[:16] == sorted(factors[:16])
    assert factors[15:] == sorted(factors[15:], reverse=True)


def test_groups_keep_their_ratio() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    groups = [{"params": [each], "lr": lr} for each, lr in zip(parameters, (0.1, 1.0), strict=True)]
    optimizer = torch.optim.SGD(groups)
    scheduler = make_scheduler(optimizer, "cosine", 10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.5])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="there are step, cosine, onecycle, constant"):
        schedule_factor("poly", 0, 1)
    assert len(SCHEDULES) == 4
