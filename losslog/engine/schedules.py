"""Learning-rate schedules as factors of the base rates, by optimizer step. Plain functions.

Contract:

- A schedule is a function of the step and the numbers of steps and epochs alone: resuming with more epochs stretches
  it, and groups keep their ratio.
- A run of up to three epochs is not cut to a hundredth: that would be a good part of its last.
"""

from __future__ import annotations

import math
from typing import Final

import torch

SCHEDULES: Final = ("step", "cosine", "onecycle", "constant")
SHORT: Final = 3  # epochs
_RISE: Final = 0.15  # part of a one-cycle schedule that goes up
_START: Final = 1 / 25  # its first factor, as torch's OneCycleLR


def schedule_factor(name: str, step: int, steps: int, epochs: int | None = None) -> float:
    """Returns what the base rates are multiplied by.

    Args:
        name: ``step`` (a tenth from 2/3 and a hundredth from 8/9 of the steps on, the "1x" schedule of Detectron),
            ``cosine`` (half a cosine to 0, arXiv:1608.03983), ``onecycle`` (up and down along cosines,
            arXiv:1708.07120) or ``constant``.
        step: optimizer step, counted from 0.
        steps: optimizer steps of the whole run.
        epochs: epochs of the whole run; None: many.

    Raises:
        ValueError: no such schedule.
    """
    done = min(step / max(steps, 1), 1.0)
    if name == "step":
        return 1.0 if done < 2 / 3 else 0.1 if done < 8 / 9 or (epochs is not None and epochs <= SHORT) else 0.01
    if name == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if name == "onecycle":
        if done < _RISE:
            return _START + (1 - _START) * (1 - math.cos(math.pi * done / _RISE)) / 2
        return (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE))) / 2
    if name == "constant":
        return 1.0
    raise ValueError(f"unknown schedule {name!r}; there are {', '.join(SCHEDULES)}")


def make_scheduler(
    optimizer: torch.optim.Optimizer, name: str, steps: int, epochs: int | None = None
) -> torch.optim.lr_scheduler.LambdaLR:
    """Makes a scheduler to be stepped after every optimizer step.

    Args:
        optimizer: its present rates are the base rates.
        name: see `schedule_factor`.
        steps: optimizer steps of the whole run.
        epochs: epochs of the whole run; None: many.

    Raises:
        ValueError: no such schedule.
    """
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(name, step, steps, epochs))
