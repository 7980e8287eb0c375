"""accelerate: ``Accelerator(log_with=LosslogTracker())`` beside, or in the place of, its own trackers.

Training thread, main process: accelerate calls its trackers there alone, with what the user has gathered. Contract:

- The run is the main process' own: it waits for no other. One of all ranks is handed over: ``LosslogTracker(run=run)``.
- It records what is given to ``accelerator.log``, no more: names with ``loss`` in them are a batch's losses, those that
  say that they are of a validation its losses and metrics, the rest metrics at their step.
- ``epoch`` among the values tells epochs: one ends when it changes, behind what comes with a number that its steps did
  not carry, and with ``end_training``.
- Where `losslog.attach` logs to the same run the losses come from there, and what is logged here are metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any, Final

from losslog.compat.naming import VALIDATION, apart, is_loss, is_number, plain_name, require
from losslog.instrument.listeners import guarded
from losslog.ranks.store import BY_ITSELF
from losslog.run import Run

LOWEST: Final = "0.26.1"
FLOAT: Final = {float}
require("accelerate", LOWEST, "accelerate")

from accelerate.tracking import GeneralTracker, on_main_process  # noqa: E402 - it was looked at first


class LosslogTracker(GeneralTracker):  # type: ignore[misc]
    """Logs what an Accelerator is given to log.

    Args:
        run: a run to log to, which is yours to close; None: one is made.
        options: keyword arguments of `losslog.Run`.
    """

    name = "losslog"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, run: Run | None = None, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._run, self._given = run, run is not None
        self._epoch: int | None = None
        self._open = self._carried = False  # an epoch with losses; whether its number came with them
        self._over = False  # its number came behind them: what validates it may still come
        self._validation: dict[str, Any] = {}
        self._plain: tuple[str, ...] = ()  # names of losses that were logged alone, as they are

    @property
    def tracker(self) -> Run:
        """The run; made now if it was not."""
        return self._opened({})

    def _opened(self, values: Mapping[str, Any]) -> Run:
        if self._run is None:
            given = {**self._options, "config": {**values, **(self._options.get("config") or {})}}
            context = copy_context()
            context.run(BY_ITSELF.set, True)
            self._run = context.run(lambda: Run(**given))
        return self._run

    @on_main_process  # type: ignore[untyped-decorator]
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Begin a run with these as its config."""
        self._opened(values)

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log values."""
        guarded(self._log, self.tracker, dict(values), step)

    def _log(self, run: Run, values: dict[str, Any], step: int | None) -> None:
        again = tuple(values) == self._plain and step == run.next_step and run.watcher is None
        if again and FLOAT.issuperset(map(type, values.values())):
            run.log_batch(values)
            self._open = True
            return
        named = {name: value for name, value in values.items() if is_number(value)}
        epoch = named.pop("epoch", None)
        validation = {name: named.pop(name) for name in list(named) if name.startswith(VALIDATION)}
        losses = {} if run.watcher is not None else {name: named.pop(name) for name in list(named) if is_loss(name)}
        number = None if epoch is None else math.ceil(float(epoch))  # of parts of an epoch, the one they are of
        behind = number is not None and number == epoch and self._open and not self._carried
        if behind:  # its steps: a summary, and no step
            self._over, self._plain = True, ()
            named, losses = named | losses, {}
        elif (self._over and losses) or (number is not None and number != self._epoch):
            self._end_epoch(run)
        self._epoch = self._epoch if number is None else number
        if losses:
            self._carried = self._carried or number is not None
            lr = named.pop("lr", named.pop("learning_rate", None))
            at = step if step is not None and step >= run.next_step else None
            found = {plain_name(name): value for name, value in losses.items()}
            if len(found) > 1 and found.keys() == values.keys():
                self._plain = tuple(values)
            run.log_batch(next(iter(found.values())) if found.keys() == {"loss"} else found, lr=lr, step=at)
            self._open = True
        if named:
            run.log_metrics(named, step=step)
        lost, metrics = apart(validation)
        self._validation |= lost
        if metrics:
            run.log_eval(metrics)

    def _end_epoch(self, run: Run) -> None:
        found, self._validation = self._validation, {}
        if self._open:
            self._open = self._carried = self._over = False
            run.end_epoch(val_loss=(found["loss"] if found.keys() == {"loss"} else found) if found else None)
        elif found:  # nothing was trained in it
            run.log_metrics({f"val/{name}": value for name, value in found.items()})

    @on_main_process  # type: ignore[untyped-decorator]
    def finish(self) -> None:
        """Training is over."""
        if self._run is not None:
            guarded(self._end_epoch, self._run)
            if not self._given:
                self._run.close()
