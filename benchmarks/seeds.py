"""Small trainings with five losses, many at once, for measuring what is only a seed's doing: same task, other seeds.

A shared trunk and five heads learn a fixed task from noisy samples: two classifications, one of them unbalanced, two
regressions with outliers, one of many binary outputs. As in detection the losses differ in size, noise and speed. Runs
are independent: they share tensors for speed, never a parameter, a sample or a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional as F

STEPS: Final = 700
BATCH: Final = 8
INPUTS: Final = 12
HIDDEN: Final = 48
NAMES: Final = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
SIZES: Final = (4, 4, 24, 1, 4)
KINDS: Final = ("freeze", "detach", "rate", "noise")


@dataclass(frozen=True)
class Change:
    """What is done to a run from a step on.

    Attributes:
        step: from when on.
        kind: ``freeze`` (a head learns no more, and its loss does not reach the trunk), ``detach`` (its loss reaches
            the head alone), ``rate`` (the head's learning rate is a twentieth), ``noise`` (its labels get noisy).
        head: which, by number.
    """

    step: int
    kind: str
    head: int


def train(
    seeds: Sequence[int], changes: Sequence[Change | None] = (), steps: int = STEPS
) -> list[dict[str, list[float]]]:
    """Each run's components, a value a step.

    Args:
        seeds: of the runs: weights and samples.
        changes: what is done to each; may be left out.
        steps: length.
    """
    plans = [*changes, *(None for _ in seeds)][: len(seeds)]
    fixed = torch.Generator().manual_seed(12345)
    teacher = [torch.randn(INPUTS, size, generator=fixed) for size in SIZES]
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]

    def drawn(*shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=each) for each in sources])

    trunk = [drawn(INPUTS, HIDDEN) / INPUTS**0.5, drawn(HIDDEN, HIDDEN) / HIDDEN**0.5]
    heads = [0.3 * drawn(HIDDEN, size) / HIDDEN**0.5 for size in SIZES]
    for each in (*trunk, *heads):
        each.requires_grad_(True)
    optimizer = torch.optim.Adam([{"params": trunk}, *({"params": [head]} for head in heads)], lr=3e-3)
    schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    found = [{name: [] for name in NAMES} for _ in seeds]  # type: list[dict[str, list[float]]]
    for step in range(steps):
        active = [plan if plan is not None and step >= plan.step else None for plan in plans]
        x = drawn(BATCH, INPUTS)
        hidden = torch.relu(torch.relu(x @ trunk[0]) @ trunk[1])
        losses = []
        for place, head in enumerate(heads):
            cut = _rows(active, place, ("freeze", "detach"))
            source = torch.where(cut, hidden.detach(), hidden)
            losses.append(
                _loss(place, source @ head, _targets(place, x, teacher, drawn, _rows(active, place, ("noise",))))
            )
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        for place, head in enumerate(heads):
            assert head.grad is not None
            head.grad *= ~_rows(active, place, ("freeze",))
        before = [head.detach().clone() for head in heads]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for place, head in enumerate(heads):  # Adam moves on by momentum, and its size hides the rate
                head.copy_(torch.where(_rows(active, place, ("freeze",)), before[place], head))
                head.copy_(
                    torch.where(_rows(active, place, ("rate",)), before[place] + (head - before[place]) / 20, head)
                )
        for place, name in enumerate(NAMES):
            for run, value in zip(found, losses[place].tolist(), strict=True):
                run[name].append(value)
    return found


def _rows(active: Sequence[Change | None], head: int, kinds: Sequence[str]) -> torch.Tensor:
    """In which runs something of these kinds is done to the head."""
    chosen = [each is not None and each.head == head and each.kind in kinds for each in active]
    return torch.tensor(chosen)[:, None, None]


def _targets(
    place: int, x: torch.Tensor, teacher: Sequence[torch.Tensor], drawn: Any, noisy: torch.Tensor
) -> torch.Tensor:
    found = torch.tanh(x) @ teacher[place]
    found = found + torch.where(noisy, 3.0, 0.3) * drawn(*found.shape[1:])
    if place in (1, 4):  # a few outliers
        found = found * (1 + 4 * (drawn(BATCH, 1) > 1.645))
    return found


def _loss(place: int, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One loss a run."""
    if place == 0:
        each = F.cross_entropy(output.flatten(0, 1), target.argmax(2).flatten(), reduction="none").view(len(output), -1)
    elif place in (1, 4):
        each = F.smooth_l1_loss(output, target, reduction="none", beta=1.0 if place == 1 else 0.2)
        each = each if place == 1 else 0.1 * each
    else:
        sign = (target > (0 if place == 2 else 3)).float()
        each = F.binary_cross_entropy_with_logits(output, sign, reduction="none")
    return each.flatten(1).mean(1)
