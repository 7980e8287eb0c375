"""mmengine, and mmdet, mmseg, mmpose on it: ``custom_hooks=[dict(type="LosslogHook")]``.

With ``custom_imports=dict(imports=["losslog.compat.mmengine"])``, or this module imported. Training thread. Contract:

- Components and their total are what the model's ``parse_losses`` gives, at every step, before anything smooths them;
  what has no ``loss`` in its name (``acc``) is a metric. One record an optimizer step.
- Epochs are the runner's; where it goes by iterations an epoch ends with each validation.
- The run's folder lies in the checkpoint's ``meta``: ``resume=True`` goes on with the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.naming import is_number, require

LOWEST: Final = "0.10"
KEY: Final = "losslog"  # in a checkpoint's meta
require("mmengine", LOWEST, "mmengine", "mmengine", "mmengine-lite")

from mmengine.hooks import Hook  # noqa: E402 - it was looked at first
from mmengine.registry import HOOKS  # noqa: E402


@HOOKS.register_module()
class LosslogHook(Guest, Hook):  # type: ignore[misc]
    """Logs what a Runner trains.

    Args:
        options: keyword arguments of `losslog.Run`.
    """

    priority = "LOW"  # before CheckpointHook

    def __init__(self, **options: Any) -> None:
        self.options = options

    def after_load_checkpoint(self, runner: Any, checkpoint: Mapping[str, Any]) -> None:
        """Training may go on from it."""
        self.past = checkpoint.get("meta", {}).get(KEY)

    def before_train(self, runner: Any) -> None:
        """Training begins, or goes on."""
        self.leave()
        loop, optimizers = runner.train_loop, _optimizers(runner)
        self._by_epoch = not hasattr(loop, "max_iters") or hasattr(loop, "_max_epochs")
        self._by_epoch = type(loop).__name__.startswith("Epoch")
        config = {"model": type(runner.model).__name__, "work_dir": runner.work_dir, "experiment": runner.experiment_name}
        self.loop = Loop(
            self.options,
            config=config,
            epochs=runner.max_epochs if self._by_epoch else None,
            optimizers=optimizers,
            past=self.past if runner.iter else None,
        )

    @contained
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One record, where the optimizer has stepped."""
        assert self.loop is not None
        said = {name: value for name, value in (outputs or {}).items() if is_number(value)}
        losses = {name: value for name, value in said.items() if "loss" in name}  # as parse_losses tells them apart
        self.loop.window.batch(losses or None, {name: value for name, value in said.items() if name not in losses})
        if self.loop.stepped:
            self.loop.step()
            if self.loop.should_stop(_optimizers(runner), _schedulers(runner)):
                runner.train_loop.stop_training = True
