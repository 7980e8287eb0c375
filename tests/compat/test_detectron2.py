"""The recipe for detectron2 that docs/frameworks.md gives, against an imitation of what it is made of."""

from __future__ import annotations

import json
import sys
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import losslog

PAGE = Path(losslog.__file__).parents[1] / "docs" / "frameworks.md"


class HookBase:
    trainer: Any

    def before_train(self) -> None: ...
    def before_step(self) -> None: ...
    def after_step(self) -> None: ...
    def after_train(self) -> None: ...


class EventStorage:
    """Newest values with the iteration that they are of."""

    def __init__(self) -> None:
        self.iter = 0
        self._latest: dict[str, tuple[float, int]] = {}

    def put_scalars(self, **values: float) -> None:
        self._latest |= {name: (float(value), self.iter) for name, value in values.items()}

    def latest(self) -> dict[str, tuple[float, int]]:
        return dict(self._latest)


class Trainer:
    """As its TrainerBase and SimpleTrainer go: hooks around each iteration, ``after_train`` whatever happens."""

    def __init__(self, max_iter: int) -> None:
        self.max_iter, self.storage, self.hooks = max_iter, EventStorage(), list[HookBase]()
        self.model = torch.nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.truth: list[dict[str, float]] = []

    def register_hooks(self, hooks: list[HookBase]) -> None:
        for each in hooks:
            each.trainer = weakref.proxy(self)
        self.hooks += hooks

    def train(self) -> None:
        for each in self.hooks:
            each.before_train()
        try:
            for self.iter in range(self.max_iter):  # noqa: B020 - as its own loop does
                self.storage.iter = self.iter
                out = self.model(torch.ones(2, 4))
                losses = {"loss_cls": out[:, 0].square().mean(), "loss_box_reg": out[:, 1].abs().mean()}
                self.optimizer.zero_grad()
                sum(losses.values()).backward()  # type: ignore[union-attr]
                self.optimizer.step()
                self.truth.append({name: value.item() for name, value in losses.items()})
                self.storage.put_scalars(total_loss=sum(self.truth[-1].values()), **self.truth[-1], data_time=0.1)
                for each in self.hooks:
                    each.after_step()
        finally:
            for each in self.hooks:
                each.after_train()


class Evaluates(HookBase):
    def after_step(self) -> None:
        if (self.trainer.iter + 1) % 4 == 0:
            self.trainer.storage.put_scalars(**{"bbox/AP": 0.5})


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    code = PAGE.read_text("utf-8").partition("from detectron2.engine")[2].partition("```")[0]
    engine = types.ModuleType("detectron2.engine")
    engine.HookBase = HookBase  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "detectron2", types.ModuleType("detectron2"))
    monkeypatch.setitem(sys.modules, "detectron2.engine", engine)
    namespace: dict[str, Any] = {}
    exec("from detectron2.engine" + code, namespace)
    return namespace["LosslogHook"]


def records(folder: Path, hook: str) -> list[dict[str, Any]]:
    (journal,) = folder.rglob("journal.jsonl")
    lines = map(json.loads, journal.read_text("ascii").splitlines())
    return [each["data"] for each in lines if each["hook"] == hook]


def test_the_recipe_records_every_iteration(hook: Any, tmp_path: Path) -> None:
    trainer = Trainer(12)
    trainer.register_hooks([Evaluates(), hook(4, dir=tmp_path, name="d2", plugins=None)])
    trainer.train()
    batches = records(tmp_path, "on_batch_losses")
    assert [each["losses"] for each in batches] == trainer.truth
    assert [each["total"] for each in batches] == [sum(each.values()) for each in trainer.truth]
    assert [each["epoch"] for each in records(tmp_path, "on_epoch_end")] == [1, 2, 3]
    assert [each["metrics"] for each in records(tmp_path, "on_eval")] == [{"bbox/AP": 0.5}] * 3


def test_the_recipe_stops_where_it_is_asked_to(hook: Any, tmp_path: Path) -> None:
    trainer = Trainer(12)
    ours = hook(4, dir=tmp_path, name="d2", plugins=None)

    class Asks(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 5:
                ours.run.request_stop("enough")
                ours.run.flush()

    trainer.register_hooks([Asks(), ours])
    with pytest.raises(losslog.StopTraining):
        trainer.train()
    assert len(records(tmp_path, "on_batch_losses")) == 6
    assert records(tmp_path, "on_run_end")[0]["status"] == "stopped"
