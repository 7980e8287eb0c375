from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from losslog.engine import CheckpointError, fit, read_checkpoint, restore_checkpoint, save_checkpoint


def saved(path: Path, optimizer: type[torch.optim.Optimizer], scheduler: Any = None, **settings: Any) -> dict[str, Any]:
    model = nn.Linear(2, 1)
    made = optimizer(model.parameters(), **settings)
    schedule = scheduler(made) if scheduler else None
    save_checkpoint(path, model=model, optimizer=made, scheduler=schedule, epoch=1, step=3)
    return read_checkpoint(path)


def test_a_rate_that_the_checkpoint_replaces_is_said(tmp_path: Path) -> None:
    content = saved(tmp_path / "c.pth", torch.optim.SGD, lr=0.1, momentum=0.9)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=0.5)
    lines = restore_checkpoint(content, model=model, optimizer=optimizer)
    assert lines == [
        "optimizer lr 0.1 from the checkpoint (here it was 0.0001)",
        "optimizer weight_decay 0 from the checkpoint (here it was 0.5)",
    ]
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_what_is_alike_is_not_said(tmp_path: Path) -> None:
    def steps(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, 2)

    content = saved(tmp_path / "c.pth", torch.optim.AdamW, steps, lr=0.1)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert restore_checkpoint(content, model=model, optimizer=optimizer, scheduler=steps(optimizer)) == []


def test_another_kind_of_optimizer_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    content = saved(tmp_path / "c.pth", torch.optim.SGD, lr=0.1)
    model = nn.Linear(2, 1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match="the checkpoint is of another optimizer: it has 'dampening'"):
        restore_checkpoint(content, model=model, optimizer=torch.optim.Adam(model.parameters(), lr=0.1))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_another_kind_of_scheduler_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "c.pth", torch.optim.SGD, lambda made: torch.optim.lr_scheduler.StepLR(made, 2), lr=0.1)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    with pytest.raises(CheckpointError, match="the checkpoint is of another scheduler"):
        restore_checkpoint(content, model=model, optimizer=optimizer, scheduler=other)


def test_another_setting_of_the_same_scheduler_is_said(tmp_path: Path) -> None:
    content = saved(tmp_path / "c.pth", torch.optim.SGD, lambda made: torch.optim.lr_scheduler.StepLR(made, 2), lr=0.1)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lines = restore_checkpoint(
        content, model=model, optimizer=optimizer, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 30)
    )
    assert lines == ["scheduler step_size 2 from the checkpoint (here it was 30)"]


def test_fit_says_what_the_checkpoint_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x).square().mean()

    def train(lr: float, epochs: int, resume: Path | None = None) -> None:
        model = Model()
        batches = [[torch.ones(1, 2)]]
        fit(
            model,
            torch.optim.SGD(model.parameters(), lr),
            batches,
            epochs=epochs,
            checkpoint_dir=tmp_path,
            resume=resume,
        )

    train(0.1, 1)
    caplog.clear()
    with caplog.at_level("INFO", logger="losslog"):
        train(1e-4, 2, tmp_path / "checkpoints" / "epoch_001.pth")
    assert "resumed after epoch 1: optimizer lr 0.1 from the checkpoint (here it was 0.0001)" in caplog.text
