"""mmengine, and mmdet, mmseg, mmpose on it: ``custom_hooks=[dict(type="LosslogHook")]``.

With ``custom_imports=dict(imports=["losslog.compat.mmengine"])``, or this module imported. Training thread. Contract:

- Components are what the model's ``parse_losses`` gives, at every step, before anything smooths them; what has no
  ``loss`` in its name (``acc``) is a metric. One record an optimizer step.
- Epochs are the runner's; where it goes by iterations an epoch ends with each validation.
- The run's folder lies in the checkpoint's ``meta``: ``resume=True`` goes on with the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.naming import is_number, require

LOWEST: Final = "0.10.6"
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
        self._over = self._by_epoch = False

    def after_load_checkpoint(self, runner: Any, checkpoint: Mapping[str, Any]) -> None:
        """Training may go on from it."""
        self.past = checkpoint.get("meta", {}).get(KEY)

    def before_train(self, runner: Any) -> None:
        """Training begins, or goes on."""
        self.leave()
        self._over, self._by_epoch = False, "Epoch" in type(runner.train_loop).__name__
        self.loop = Loop(
            self.options,
            config={"model": type(runner.model).__name__, "work_dir": runner.work_dir, "config": runner.cfg.to_dict()},
            epochs=runner.max_epochs if self._by_epoch else None,
            optimizers=_optimizers(runner),
            past=self.past if runner.iter else None,
        )
        self.loop.saves(runner, lambda out_dir, filename, *args, **kwargs: os.path.join(out_dir, filename))

    @contained
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One record, where the optimizer has stepped."""
        said = {name: value for name, value in (outputs or {}).items() if is_number(value)}
        losses = {name: value for name, value in said.items() if "loss" in name}  # as parse_losses tells them apart
        self.loop.window.batch(losses or None, {name: value for name, value in said.items() if name not in losses})
        if self.loop.stepped:
            self.loop.step()
            if self.loop.should_stop(_optimizers(runner)):
                runner.train_loop.stop_training = True

    @contained
    def after_train_epoch(self, runner: Any) -> None:
        """The epoch is over; a validation may be due."""
        self._over = self._by_epoch

    @contained
    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """A validation is over."""
        self.loop.evaluated(metrics or {})
        self._over = self._over or not self._by_epoch
        self._close()

    def _close(self) -> None:
        if self._over:
            self._over = False
            self.loop.end_epoch()

    @contained
    def before_train_epoch(self, runner: Any) -> None:
        """There was no validation."""
        self._close()

    @contained
    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """The checkpoint knows its run; one behind an epoch goes on with the next."""
        self._close()
        due = runner.val_loop is not None and (runner.iter + 1) % runner.val_interval == 0
        checkpoint.setdefault("meta", {})[KEY] = self.loop.state(epoch_done=due and not self._by_epoch)

    @contained
    def after_train(self, runner: Any) -> None:
        """Training is over."""
        self.loop.end()


def _optimizers(runner: Any) -> list[Any]:
    """Those that step, out of their wrappers."""
    wrapper = runner.optim_wrapper
    return [each.optimizer for each in (wrapper.values() if hasattr(wrapper, "optim_wrappers") else [wrapper])]
