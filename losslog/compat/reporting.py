"""What meters were told, put to a run: batches, epochs, validation.

Training thread. Contract:

- Says nothing while something else watches the loop.
- One reporter a run; every `MetricLogger` of a run shares it, however many a script makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from losslog.instrument import coco, signals
from losslog.instrument.forwards import Reading
from losslog.instrument.logbook import Logbook
from losslog.run import Run
from losslog.runtime import endings
from losslog.values.snapshot import Staged, resolve

_shared: list[Reporter] = []


class Reporter(signals.Listener):
    """Turns updates into records.

    Args:
        run: where they go; None is the run that is open, else one made when it is needed.
    """

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self.logbook = Logbook(self._make)
        self.closed = False
        self._values: dict[str, tuple[list[float] | Staged, int]] = {}
        self._training = False
        self._fresh = True

    @classmethod
    def of(cls, run: Run | None) -> Reporter:
        """The reporter of a run, or the one of those that name none."""
        if run is not None and isinstance(run.watcher, Reporter):
            return run.watcher
        if run is not None:
            reporter = cls(run)
            run.watcher = run.watcher or reporter
            return reporter
        if not _shared or _shared[0].closed:
            _shared[:] = [cls(None)]
        return _shared[0]

    def _make(self) -> Run:
        run = self._run or next(iter(each for each in endings.open_runs() if isinstance(each, Run)), None) or Run()
        run.watcher = self
        signals.listen(self)
        return run

    def begin(self) -> None:
        """A pass over data begins."""
        self._values = {}
        self._fresh = True

    def update(self, names: Sequence[str], values: list[float] | Staged, *, training: bool) -> None:
        """Meters were updated in the current iteration."""
        self._training = training
        for index, name in enumerate(names):
            if name == "lr" or "loss" in name:
                self._values[name] = (values, index)

    def iterated(self) -> None:
        """The iteration is over: record what was updated in it."""
        found, self._values = self._values, {}
        if found and not self.closed and not any(each.sees_training for each in signals.listening()):
            signals.guarded(self._record, found)

    def _record(self, found: dict[str, tuple[list[float] | Staged, int]]) -> None:
        rate = found.pop("lr", None)
        if not found:
            return
        names = tuple(name for name in found if name != "loss")
        keys = names or None
        chosen = [*(found[name] for name in names), *([found["loss"]] if "loss" in found else ())]
        reading = Reading(keys, Picked(chosen), bool(names) and "loss" in found, None)
        if not self._training:
            if self.logbook.trained:
                self.logbook.validation(reading)
            return
        self.logbook.log_evaluations()
        if self._fresh and self.logbook.steps:
            self.logbook.run.end_epoch()
        self._fresh = False
        lr = None if rate is None else resolve(rate[0])[rate[1]]
        self.logbook.step(reading, lr, 1)

    def summarized(self, evaluator: Any) -> None:
        """Pick up the figures of an evaluation."""
        found = None if self.closed or not self.logbook.trained else coco.figures(evaluator)
        if found:
            self.logbook.evaluation(str(evaluator.params.iouType), found, evaluator.cocoGt)

    def epoch_ends(self, val_loss: Any) -> Any:
        """Called by the run before an epoch ends; gives the validation losses that go with it."""
        found: list[Any] = []
        signals.guarded(lambda: found.append(self._before_epoch_end()))
        return val_loss if val_loss is not None or not found else found[0]

    def _before_epoch_end(self) -> Any:
        self.logbook.log_evaluations()
        self.logbook.ended()
        return self.logbook.val_loss()

    def run_ends(self, status: str) -> None:
        """Called by the run before it closes."""
        signals.guarded(self._close)

    def _close(self) -> None:
        self.closed = True
        signals.forget(self)
        if self.logbook.steps and self.logbook.made is not None:
            self.logbook.made.end_epoch(val_loss=self._before_epoch_end())
        else:
            self.logbook.log_evaluations()


class Picked(Staged):
    """Some of several values, which may still be on a device.

    Args:
        parts: values that were read together, and which of them.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[tuple[list[float] | Staged, int]]) -> None:
        super().__init__([], [])
        self._parts = list(parts)

    def resolve(self) -> list[float]:
        """The values, after waiting for the device."""
        if self._parts:
            self.values = [resolve(values)[index] for values, index in self._parts]
            self._parts = []
        return self.values
