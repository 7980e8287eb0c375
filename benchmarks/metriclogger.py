"""A stand-in for the MetricLogger of torchvision's reference scripts, which no package installs.

Written anew after what it does, not copied: for each value a window of 20 and a running sum, ``.item()`` on tensors,
and a text with median and average, computed through torch.
"""

from __future__ import annotations

from collections import defaultdict, deque

import torch


class SmoothedValue:
    """A window over the newest values and the sum of all."""

    def __init__(self, window: int = 20) -> None:
        self.newest: deque[float] = deque(maxlen=window)
        self.total, self.count = 0.0, 0

    def update(self, value: float) -> None:
        self.newest.append(value)
        self.total += value
        self.count += 1

    def __str__(self) -> str:
        median = torch.tensor(list(self.newest)).median().item()
        return f"{median:.4f} ({self.total / self.count:.4f})"


class MetricLogger:
    """Values by name."""

    def __init__(self) -> None:
        self.meters: dict[str, SmoothedValue] = defaultdict(SmoothedValue)

    def update(self, **values: float | torch.Tensor) -> None:
        for name, value in values.items():
            self.meters[name].update(value.item() if isinstance(value, torch.Tensor) else value)

    def __str__(self) -> str:
        return "  ".join(f"{name}: {meter}" for name, meter in self.meters.items())
