"""fastai: ``Learner(..., cbs=LosslogCallback())`` or ``learn.fit(..., cbs=LosslogCallback())``.

Training thread. Contract:

- The total is what goes backward; components are what modules give, a loss function that is one too. One record an
  optimizer step: batches that ``GradientAccumulation`` gathers are one window.
- The Recorder's validation loss and metrics go with the epoch's end. ``lr_find`` and ``get_preds`` are no training.
- What ``Learner.save`` writes (``SaveModelCallback``) is a checkpoint. It keeps nothing of ours: with ``resume="auto"``
  the first epoch's number says where the run goes on.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

from losslog.compat.base import PATIENCE, Guest, Loop, contained
from losslog.compat.naming import is_number, require

LOWEST: Final = "2.8.12"
require("fastai", LOWEST, "fastai")

from fastai.callback.core import Callback, CancelFitException  # noqa: E402 - it was looked at first


class LosslogCallback(Callback, Guest):  # type: ignore[misc]
    """Logs what a Learner fits; ``callback.loop.run`` is the run, since fastai has a ``run`` of its own.

    Args:
        options: keyword arguments of `losslog.Run`.
    """

    order = 60  # behind the Recorder
    run: Any = True
    loop: Any = None
    __getstate__ = Guest.__getstate__  # fastai's own keeps everything: `learn.export` pickles us

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._begins = False

    def before_fit(self) -> None:
        """Training begins."""
        self.leave()
        self._begins = not (hasattr(self.learn, "lr_finder") or hasattr(self.learn, "gather_preds"))

    def before_train(self) -> None:
        """An epoch's batches come; of the first, its number says whether training goes on."""
        if not self._begins:
            return
        self._begins = False
        loss = self.learn.loss_func
        names = {"model": type(self.learn.model).__name__, "loss": getattr(loss, "__name__", type(loss).__name__)}
        self.loop = Loop(
            self.options,
            config=names,
            epochs=self.learn.n_epoch,
            optimizers=[self.learn.opt],
            done=self.learn.epoch,
        )
        self.loop.saves(self.learn, lambda *args, **kwargs: None, "save")

    @contained
    def _batch(self) -> None:
        self.loop.window.batch()
        if self.loop.stepped:
            self.loop.step()

    def after_batch(self) -> None:
        """One record, where the optimizer has stepped.

        Raises:
            CancelFitException: a hook asked to stop.
        """
        if self.learn.training:
            self._batch()
            groups = [SimpleNamespace(param_groups=self.learn.opt.hypers)]
            if self.loop is not None and not self.loop.closed and self.loop.should_stop(groups):
                raise CancelFitException

    @contained
    def after_epoch(self) -> None:
        """The epoch is over, its validation too."""
        recorder = self.learn.recorder
        said = dict(zip([*recorder.metric_names][1:], [*recorder.log][1:], strict=False))
        kept = {name: value for name, value in said.items() if is_number(value) and not name.startswith("train_")}
        self.loop.evaluated({"val_loss" if name == "valid_loss" else name: value for name, value in kept.items()})
        self.loop.end_epoch()
        self.loop.run.flush(PATIENCE)  # before SaveModelCallback, which is behind us

    @contained
    def after_fit(self) -> None:
        """Training is over."""
        self.loop.end()
