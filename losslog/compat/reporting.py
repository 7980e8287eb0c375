"""What meters were told, put to a run: batches, epochs, validation.

Training thread. Contract:

- Says nothing while something else watches the loop.
- One reporter a run; every `MetricLogger` of a run shares it, however many a script makes.
"""

from __future__ import annotations

from collections.abc import Sequence

from losslog.instrument import signals
from losslog.instrument.listeners import guarded
from losslog.instrument.logbook import Logbook
from losslog.instrument.readings import Computed, Reading
from losslog.instrument.watching import Watching
from losslog.run import Run
from losslog.runtime import endings
from losslog.values.snapshot import Staged, resolve

_shared: list[Reporter] = []


class Reporter(Watching):
    """Turns updates into records.

    Args:
        run: where they go; None is the run that is open, else one made when it is needed.
    """

    def __init__(self, run: Run | None) -> None:
        super().__init__(Logbook(self._make))
        self._run = run
        self._values: dict[str, tuple[list[float] | Staged, int]] = {}
        self._training = False
        self._fresh = True
        self._length: int | None = None  # of the pass at hand
        self._told: int | None = None

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

    def begin(self, length: int | None = None) -> None:
        """A pass over data begins.

        Args:
            length: iterations it is going to have.
        """
        self._values = {}
        self._fresh, self._length = True, length

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
            guarded(self._record, found)

    def _record(self, found: dict[str, tuple[list[float] | Staged, int]]) -> None:
        rate = found.pop("lr", None)
        if not found:
            return
        names = tuple(name for name in found if name != "loss")
        keys = names or None
        chosen = [*(found[name] for name in names), *([found["loss"]] if "loss" in found else ())]
        reading = Reading(
            keys,
            Computed(lambda: [resolve(values)[index] for values, index in chosen]),
            bool(names) and "loss" in found,
        )
        if not self._training:
            if self.logbook.trained:
                self.logbook.validation(reading)
            return
        self.logbook.log_evaluations()
        if self._fresh and self.logbook.steps:
            self.logbook.run.end_epoch()
        self._fresh = False
        lr = None if rate is None else resolve(rate[0])[rate[1]]
        self.logbook.step(reading, lr)
        if self._told is None and self._length:  # how long the first epoch is going to be
            self._told = self._length
            run = self.logbook.run
            run.log_metrics({}, step=run.next_step - 1, detail={"steps_per_epoch": self._length})

    @property
    def takes_evaluations(self) -> bool:
        """Whether evaluations belong to it: not before it has logged a batch."""
        return self.logbook.trained
