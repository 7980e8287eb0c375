"""Stable-Baselines3: a ``KVWriter`` for ``model.set_logger(Logger(None, [LosslogWriter(), ...]))``.

Training thread. Contract:

- What an algorithm dumps is one record and one epoch: its losses are means over the updates since the last dump, as the
  algorithm computes them; ``train/loss`` is their total, where it is there.
- All else (``rollout/...``, ``time/...``) are metrics under their own tags, beside the losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from losslog.compat.naming import is_loss, is_number, plain_name, require
from losslog.instrument.listeners import guarded
from losslog.run import Run

LOWEST: Final = "2.3.2"
require("stable-baselines3", LOWEST, "sb3")

from stable_baselines3.common.logger import KVWriter  # noqa: E402 - it was looked at first


class LosslogWriter(KVWriter):  # type: ignore[misc]
    """Logs what an algorithm's logger dumps.

    Args:
        options: keyword arguments of `losslog.Run`.

    Attributes:
        run: the run; made with the first dump.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.run: Run | None = None

    def write(self, key_values: dict[str, Any], key_excluded: Mapping[str, Any], step: int = 0) -> None:
        """Log one dump."""
        if self.run is None:
            self.run = Run(**self._options)
        guarded(self._write, self.run, dict(key_values), step)

    def _write(self, run: Run, values: dict[str, Any], step: int) -> None:
        named = {name: value for name, value in values.items() if is_number(value)}
        losses = {name: named.pop(name) for name in list(named) if is_loss(name)}
        lr = named.pop("train/learning_rate", None)
        if losses:
            found = {plain_name(name): value for name, value in losses.items()}
            run.log_batch(found if found.keys() != {"loss"} else found["loss"], lr=lr)
        if named or step:
            run.log_metrics({**named, "time/steps": step})
        if losses:
            run.end_epoch()

    def close(self) -> None:
        """Training is over."""
        if self.run is not None:
            self.run.close()
