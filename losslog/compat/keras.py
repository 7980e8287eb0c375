"""keras 3 on torch: ``model.fit(..., callbacks=[LosslogCallback()])``.

Training thread. Contract:

- keras tells means over the epoch so far; a batch's losses are taken out of their sums. The total is what goes
  backward.
- ``val_*`` losses go with the epoch's end; metrics are those of the whole epoch, as keras shows them.
- What ``model.save`` and ``save_weights`` write (``ModelCheckpoint``) are checkpoints. They keep nothing of ours: with
  ``resume="auto"`` the first epoch's number says where the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

from losslog.compat.base import PATIENCE, Guest, Loop, contained
from losslog.compat.naming import is_loss, require

LOWEST: Final = "3.5"
SAVES: Final = ("save", "save_weights")
require("keras", LOWEST, "keras")

import keras  # noqa: E402 - it was looked at first


class LosslogCallback(Guest, keras.callbacks.Callback):  # type: ignore[misc]
    """Logs what a model fits.

    Args:
        options: keyword arguments of `losslog.Run`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self._sums: dict[str, tuple[float, float]] = {}
        self._trackers: dict[str, Any] = {}
        self._begins = False
        self._rate: float | None = None
        self._steps: int | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Training begins; the first epoch's number says whether it goes on."""
        self.leave()
        self._begins = True

    def _open(self, done: int) -> None:
        self._begins = False
        optimizer = self.model.optimizer
        config = {"model": self.model.name, "optimizer": type(optimizer).__name__, "backend": keras.backend.backend()}
        self.loop = Loop(
            self.options,
            config=config,
            epochs=self.params.get("epochs"),
            steps_per_epoch=self.params.get("steps"),
            optimizers=[optimizer],
            done=done,
        )
        self.loop.window.hears = not getattr(optimizer, "gradient_accumulation_steps", None)  # it divides, later
        self.loop.saves(self.model, lambda filepath, *args, **kwargs: filepath, *SAVES)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sums begin anew."""
        if self._begins:
            self._open(epoch)
        self._sums, self._trackers = {}, {}

    @contained
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """The step is taken with these rates; a schedule has others behind it."""
        self._rate = float(self.model.optimizer.learning_rate)
        self._steps = _steps(self.model.optimizer)

    @contained
    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """One record, where the optimizer has stepped."""
        losses = {}
        if not self._trackers:  # they are made with the first batch
            metrics = [each for each in self.model.metrics if hasattr(each, "total") and hasattr(each, "count")]
            self._trackers = {each.name: each for each in metrics}
        for name, mean in (logs or {}).items():
            if not is_loss(name):
                continue
            total, count = self._sums.get(name, (0.0, 0.0))
            tracker = self._trackers.get(name)
            if tracker is not None:
                now = float(tracker.total), float(tracker.count)
            else:
                now = float(mean) * (count + 1), count + 1
            self._sums[name] = now
            if now[1] > count:
                losses[name] = (now[0] - total) / (now[1] - count)
        if losses:
            self.loop.window.batch(losses)
        if losses and (self._steps is None or _steps(self.model.optimizer) != self._steps):
            self.loop.step(self._rate)
        if self.loop.asked:
            self._serve(self.model.optimizer)

    def _serve(self, optimizer: Any) -> None:
        before = float(optimizer.learning_rate)
        group = {"lr": before}
        if self.loop.should_stop([SimpleNamespace(param_groups=[group])]):
            self.model.stop_training = True
        if group["lr"] != before:
            optimizer.learning_rate = group["lr"]

    @contained
    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """The epoch is over, its validation too."""
        said = {name: float(value) for name, value in (logs or {}).items()}
        figures = {name: value for name, value in said.items() if not name.startswith("val_") and not is_loss(name)}
        figures.pop("learning_rate", None)
        self.loop.evaluated({name: value for name, value in said.items() if name.startswith("val_")})
        self.loop.end_epoch()
        if figures:
            self.loop.run.log_metrics(figures, epoch=max(self.loop.run.epoch - 1, 1))
        self.loop.run.flush(PATIENCE)  # before a callback behind us writes a checkpoint

    @contained
    def on_train_end(self, logs: Any = None) -> None:
        """Training is over."""
        self.loop.end()


def _steps(optimizer: Any) -> int | None:
    """How often an optimizer that accumulates has stepped; None: it does with each batch."""
    if not getattr(optimizer, "gradient_accumulation_steps", None):
        return None
    return int(optimizer.iterations)
