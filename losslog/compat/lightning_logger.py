"""``Trainer(logger=LosslogLogger())``, where people want a logger of Lightning's: it brings the callback along.

Training thread, every rank. Contract:

- Losses, metrics and epochs come from `losslog.compat.lightning.LosslogCallback`, at every step; Lightning's own
  thinned and renamed copies of them are left out. What others give to ``logger.log_metrics`` is logged beside.
- A Trainer that has the callback already keeps it, and its run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from losslog.compat.base import Guest
from losslog.compat.lightning import KEY, USED, LosslogCallback
from losslog.compat.naming import is_number
from losslog.instrument.listeners import guarded
from losslog.run import Run

_Logger: Final[Any] = type("Logger", tuple(import_module(f"{each}.loggers").Logger for each in USED), {})


class LosslogLogger(_Logger):  # type: ignore[misc]
    """Logs what a Trainer fits.

    Args:
        options: keyword arguments of `losslog.Run`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._callback: Guest | None = None
        self._stamp = time.strftime("%Y%m%d-%H%M%S")

    @property
    def name(self) -> str:
        """Names the folder of Lightning's checkpoints."""
        return str(self._options.get("name") or "losslog")

    @property
    def version(self) -> str:
        """Likewise."""
        return self._stamp

    @property
    def experiment(self) -> Run | None:
        """The run, once training has begun."""
        return None if self._callback is None else self._callback.run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They are in the run's config."""

    def log_graph(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """Lightning introduces the module, on every rank and before training: bring the callback along."""
        trainer = model.trainer
        if trainer.state.fn != "fit":
            return
        self._callback = next((each for each in trainer.callbacks if isinstance(each, LosslogCallback)), None)
        if self._callback is None:
            self._callback = LosslogCallback(**self._options)
            trainer.callbacks.insert(0, self._callback)
            self._callback.setup(trainer, model, "fit")
            connector = getattr(trainer, "_checkpoint_connector", None)  # the checkpoint was loaded before
            self._callback.past = (getattr(connector, "_loaded_checkpoint", None) or {}).get(KEY)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log what is not Lightning's copy of what the callback has heard; that has the epoch beside it."""
        run = self.experiment
        found = {name: value for name, value in metrics.items() if is_number(value)}
        if run is not None and found and "epoch" not in metrics:
            guarded(run.log_metrics, found, step=step)
