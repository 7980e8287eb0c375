"""Lightning: ``Trainer(callbacks=[LosslogCallback()])``, of ``lightning`` and of ``pytorch_lightning``.

Training thread, every rank. Contract:

- Components and metrics are what ``training_step`` gives to ``self.log`` and ``self.log_dict``, at every step; the
  total is what goes backward. One record a window of accumulation, or a batch in which an optimizer stepped.
- Validation is what was logged in it, reduced as Lightning reduces it; the sanity check is none. Of several loaders
  the first is the validation, the others are splits of their own.
- The run's folder lies in the checkpoint: ``fit(ckpt_path=...)`` goes on with the run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module, util
from typing import Any, Final

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.hearing import forget, hear, hears
from losslog.compat.naming import require
from losslog.runtime import settings

LOWEST: Final = "2.6"
KEY: Final = "losslog"  # in a checkpoint
SPACES: Final = ("lightning.pytorch", "pytorch_lightning")
require("lightning", LOWEST, "lightning", "lightning", "pytorch-lightning")
USED: Final = [each for each in SPACES if each in sys.modules] or [
    next(each for each in SPACES if util.find_spec(each.partition(".")[0]))
]
_Callback: Any = type("Callback", tuple(import_module(each).Callback for each in USED), {})


class LosslogCallback(Guest, _Callback):  # type: ignore[misc]
    """Logs what a Trainer fits.

    Args:
        options: keyword arguments of `losslog.Run`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._inside = False  # a batch; of an LBFGS closure, its first evaluation
        self._validated: dict[str, int] = {}  # by name, of which loader
        self._epochly: set[str] = set()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Hear what the module logs; a second callback of ours is silent."""
        first = next(each for each in trainer.callbacks if isinstance(each, LosslogCallback))
        if stage == "fit" and first is self:
            hear(pl_module, self)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Mapping[str, Any]) -> None:
        """Training is to go on."""
        self.past = checkpoint.get(KEY)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Training begins, behind the sanity check."""
        if hears(pl_module) is not self:
            return
        every, batches, epochs = trainer.accumulate_grad_batches, trainer.num_training_batches, trainer.max_epochs
        planned = pl_module.automatic_optimization and batches < float("inf") and int(batches) > 0
        planned = planned and all(len(getattr(each, "scheduling", ())) < 2 for each in trainer.callbacks)
        self.loop = Loop(
            self.options,
            config={**pl_module.hparams, "model": type(pl_module).__name__, "accumulate_grad_batches": every},
            epochs=epochs if epochs and epochs > 0 else None,
            steps_per_epoch=-(-int(batches) // every) if planned else None,
            optimizers=trainer.optimizers,
            past=self.past if trainer.global_step else None,
        )
        self._inside = False
        self.loop.saves(trainer, lambda filepath, *args, **kwargs: filepath)

    @contained
    def heard(self, pl_module: Any, name: str, value: Any) -> None:
        """The module has logged something."""
        if self._inside and not hasattr(value, "compute"):
            self.loop.window.value(name, value)
        elif pl_module.trainer.validating:
            self._validated[name] = getattr(getattr(pl_module.trainer, "_results", None), "dataloader_idx", None) or 0
        elif self._inside or pl_module.trainer.training:  # an object of torchmetrics, or between batches
            self._epochly.add(name)

    @contained
    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """What is logged from now on belongs to a step."""
        self._inside = True
        self.loop.window.divided = trainer.accumulate_grad_batches

    @contained
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """The window is full."""
        self.loop.stepped = True
        if pl_module.automatic_optimization:
            self._inside = False
            self.loop.window.full = True

    @contained
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """One record, where an optimizer has stepped."""
        self._inside = False
        self.loop.window.batch()
        if self.loop.stepped:
            self.loop.step()
            if self.loop.asked:
                schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]
                if self.loop.should_stop(trainer.optimizers, schedulers):
                    trainer.should_stop = True

    @contained
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Validation; behind the epoch's last batch the epoch is over, before its checkpoint."""
        sets: dict[int, dict[str, Any]] = {}
        for key, value in trainer.callback_metrics.items():
            name, _, number = key.partition("/dataloader_idx_")
            if name in self._validated:
                sets.setdefault(int(number) if number else self._validated[name], {})[name] = value
        self._validated.clear()
        for number in sorted(sets):
            self.loop.evaluated(sets[number], one_of=f"val_{number}")
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.is_last_batch or progress.current.ready >= trainer.num_training_batches:
            self.loop.end_epoch()

    @contained
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The epoch is over."""
        self.loop.end_epoch()

    @contained
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning has reduced what was logged for the last epoch."""
        found = {name: value for name, value in trainer.callback_metrics.items() if name in self._epochly}
        self._epochly.clear()
        if found:
            self.loop.run.log_metrics(found, epoch=max(self.loop.run.epoch - 1, 1))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """As at the next epoch's start."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """The checkpoint knows its run."""
        if self.loop is not None and not self.loop.closed:
            self.past = self.loop.state()
        if self.past is not None:
            checkpoint[KEY] = dict(self.past)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training is over."""
        self._end(trainer, pl_module, exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Training is over."""
        if stage == "fit":
            self._end(trainer, pl_module, None)

    def _end(self, trainer: Any, pl_module: Any, error: BaseException | None) -> None:
        if hears(pl_module) is self:
            forget(pl_module)
        if self.loop is not None and not self.loop.closed:
            self.past = self.loop.state()
            self.loop.end(error)


def callbacks() -> list[Any]:
    """What Lightning's entry point gives: our callback where ``LOSSLOG_LIGHTNING=1``, else nothing."""
    return [LosslogCallback()] if settings.switch("LOSSLOG_LIGHTNING", False) else []


def __getattr__(name: str) -> Any:
    if name == "LosslogLogger":
        return import_module("losslog.compat.lightning_logger").LosslogLogger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
