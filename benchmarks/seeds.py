"""Small trainings with five losses, for measuring what is only a seed's doing: same task, same settings, other seeds.

A shared trunk and five heads learn a fixed task from noisy samples: two classifications, one of them unbalanced, two
regressions with outliers, one of many binary outputs. As in detection the losses differ in size, noise and speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

STEPS: Final = 700
BATCH: Final = 8
NAMES: Final = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
SIZES: Final = (4, 4, 24, 1, 4)


@dataclass(frozen=True)
class Change:
    """What is done to a run at a step.

    Attributes:
        step: from when on.
        kind: ``freeze`` (a head learns no more), ``detach`` (its loss reaches only the head), ``rate`` (the head's
            learning rate is a tenth), ``noise`` (its labels get noisy).
        head: which, by number.
    """

    step: int
    kind: str
    head: int


class Task:
    """Inputs and targets of a fixed teacher; its samples come in the order of a seed."""

    def __init__(self, seed: int) -> None:
        fixed = torch.Generator().manual_seed(12345)
        self._teacher = [torch.randn(12, size, generator=fixed) for size in SIZES]
        self._generator = torch.Generator().manual_seed(seed)

    def batch(self, noisy: int | None = None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One batch."""
        x = torch.randn(BATCH, 12, generator=self._generator)
        targets = []
        for place, weights in enumerate(self._teacher):
            found = torch.tanh(x) @ weights
            found = found + (3.0 if place == noisy else 0.3) * torch.randn(found.shape, generator=self._generator)
            if place in (1, 4):  # a few outliers
                found = found * (1 + 4 * (torch.rand(BATCH, 1, generator=self._generator) < 0.05))
            targets.append(found)
        return x, targets


def losses_of(outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The five losses."""
    kinds = (
        F.cross_entropy(outputs[0], targets[0].argmax(1)),
        F.smooth_l1_loss(outputs[1], targets[1]),
        F.binary_cross_entropy_with_logits(outputs[2], (targets[2] > 0).float()),
        F.binary_cross_entropy_with_logits(outputs[3], (targets[3] > 3).float()),
        0.1 * F.smooth_l1_loss(outputs[4], targets[4], beta=0.2),
    )
    return dict(zip(NAMES, kinds, strict=True))


def train(seed: int, change: Change | None = None, *, steps: int = STEPS) -> dict[str, list[float]]:
    """One run: each component's loss at every step."""
    torch.manual_seed(seed)
    task = Task(seed)
    trunk = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
    heads = nn.ModuleList(nn.Linear(48, size) for size in SIZES)
    groups = [{"params": list(trunk.parameters())}, *({"params": list(head.parameters())} for head in heads)]
    optimizer = torch.optim.Adam(groups, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for step in range(steps):
        now = change if change is not None and step >= change.step else None
        x, targets = task.batch(now.head if now is not None and now.kind == "noise" else None)
        hidden = trunk(x)
        outputs = [head(hidden.detach() if now is not None and now.head == place and now.kind in ("detach", "freeze")
                        else hidden) for place, head in enumerate(heads)]  # fmt: skip
        if now is not None and now.kind == "freeze":
            for parameter in heads[now.head].parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
        losses = losses_of(outputs, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        if now is not None and now.kind == "rate":
            for parameter in heads[now.head].parameters():
                parameter.grad = None if parameter.grad is None or step % 10 else parameter.grad
        optimizer.step()
        schedule.step()
        for name, value in losses.items():
            found[name].append(value.item())
    return found
