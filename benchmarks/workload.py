"""The loop that is logged: a small conv net with five losses, whose step takes about as long as asked for.

Child processes only. Contract:

- Real torch work on one thread: forward, backward, SGD; the five losses are 0-d tensors with a graph, as in a detector.
- The size is found once per run of the harness (`calibrate`) and handed to every child, so that all do the same work.
"""

from __future__ import annotations

import time
from typing import Any

import torch

NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
LR = 0.005


class Step:
    """One optimizer step.

    Args:
        size: side of the square images, in pixels.
        device: where the model lies.
    """

    def __init__(self, size: int, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, stride=2), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, len(NAMES)),
        ).to(device)  # fmt: skip
        self.images = torch.rand(2, 3, size, size, device=device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-4)

    def __call__(self) -> dict[str, torch.Tensor]:
        out = self.net(self.images)
        losses = {name: (out[:, index] ** 2).mean() for index, name in enumerate(NAMES)}
        total = sum(losses.values())
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return losses


class Detector:
    """One optimizer step of a small Mask R-CNN on random images with one box each.

    Args:
        size: side of the square images, in pixels.
        device: where the model lies.
    """

    def __init__(self, size: int, device: str = "cpu") -> None:
        from losslog.detection import build_maskrcnn

        torch.manual_seed(0)
        self.net = build_maskrcnn(3, "resnet18", image_size=size).to(device).train()
        self.images = [torch.rand(3, size, size, device=device) for _ in range(2)]
        corner = size / 4
        box = torch.tensor([[corner, corner, 3 * corner, 3 * corner]], device=device)
        masks = torch.zeros(1, size, size, dtype=torch.uint8, device=device)
        masks[:, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
        labels = torch.ones(1, dtype=torch.int64, device=device)
        self.targets = [{"boxes": box, "masks": masks, "labels": labels} for _ in self.images]
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-5)

    def __call__(self) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = self.net(self.images, self.targets)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()
        return losses


def ready_losses() -> dict[str, torch.Tensor]:
    """Five losses with a graph, computed once: for what is measured without a loop around it."""
    return {name: torch.rand(()).requires_grad_() * 1.0 + 0.1 for name in NAMES}


def seconds(step: Step, count: int) -> float:
    """The median time of a step."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return sorted(times)[count // 2]


def calibrate(target: float) -> dict[str, Any]:
    """The image size whose step takes about ``target`` seconds here, and what it takes."""
    low, high = 8, 2048
    while high - low > 4:
        size = (low + high) // 2
        step = Step(size)
        seconds(step, 3)
        if seconds(step, 15) < target:
            low = size
        else:
            high = size
    return {"size": low, "step_us": 1e6 * seconds(Step(low), 100)}


def small_ops(tensor: torch.Tensor, count: int = 100) -> float:
    """Seconds that ``count`` small ops take, each of which releases the GIL and wants it back."""
    began = time.perf_counter()
    for _ in range(count):
        tensor = tensor.mul(1.0001).add(0.5)
    return time.perf_counter() - began
