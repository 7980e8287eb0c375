"""What users write, as a type checker sees it. Never run: `test_typing` checks it with ``mypy --strict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import losslog
from losslog import Run, hookimpl


class Tracker:
    """A plugin of the user's script."""

    near = True
    flush_every = 1.0

    @hookimpl
    def on_epoch_end(self, epoch: int, losses: Mapping[str, float] | float | None, total: float | None) -> None:
        """Takes what it wants."""

    @hookimpl
    def on_flush(self) -> int | None:
        return None


def train(losses: dict[str, float], scalar: float) -> None:
    with Run("maskrcnn", Path("runs"), {"lr": 0.005}, plugins=["console", Tracker()], epochs=20) as run:
        assert_type(run, Run)
        tracker = run.register(Tracker(), name="mine")
        assert isinstance(tracker, Tracker)

        @run.on("on_eval")
        def best(epoch: int, metrics: Mapping[str, Any]) -> None:
            run.log_metrics({"best/epoch": epoch})

        best(1, {})
        for _ in range(20):
            run.log_batch(losses, lr=0.005, batch_size=2)
            run.log_batch(scalar, lr={"backbone": 0.001, "heads": 0.01}, step=3, epoch=1)
            if run.should_stop:
                break
            run.log_eval({"bbox": {"AP": 0.5, "classes": {"cat": 0.4}}}, split="test")
            run.log_checkpoint(Path("epoch_001.pth"))
            run.end_epoch(val_loss=losses)
            means = run.epoch_means()
            if isinstance(means, dict):
                assert_type(means, dict[str, float])
        run.alert("look", level="error", key="once")
        assert_type(run.flush(timeout=5.0), bool)
        assert_type(run.stats["steps"], Any)
        run.request_lr(0.1, group="heads")


def one_call(run: Run) -> None:
    losslog.log_training_metrics(run, 1, {"loss_mask": 0.5}, 0.9, {"bbox": {"AP": 0.5}}, 0.005)
    assert_type(losslog.scalars("loss/train", {"loss_mask": 0.5}), dict[str, float])
    assert_type(losslog.epoch_series(0.5, val_loss=0.25), dict[str, float])


def attached(model: object, optimizer: object, run: Run) -> None:
    with losslog.attach(model, optimizer, name="mine", plugins=None, steps_per_epoch=10) as made:
        assert_type(made, Run)
    assert_type(losslog.attach(model, [optimizer], run=run, passes_per_epoch=2), Run)


def own_errors() -> None:
    try:
        Run("x", plugins=["nope"])
    except losslog.PluginError as error:
        assert_type(error, losslog.PluginError)
    raise losslog.BackendUnavailable("not now")
