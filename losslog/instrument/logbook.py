"""What was found in a loop, put to a run in the order a run wants it.

Training thread. Contract:

- The run is made with the first thing worth recording, so that worker processes and parents never make one.
- The figures of one evaluation (boxes, masks) become one record; a second evaluation in a row is another split.
- Validation losses are those of the last validation of an epoch, and go with its end: of several loaders one after the
  other, those of the last. Those of a copy of a model count where the model itself gave none, those on the data that is
  trained on never; what is left out so is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from losslog.instrument import looking, shares
from losslog.instrument.readings import Reading
from losslog.instrument.written import Written
from losslog.runtime.notices import Once
from losslog.values.means import mean_of

if TYPE_CHECKING:
    from losslog.instrument.reached import Reached
    from losslog.instrument.tracing import Traces
    from losslog.run import Run
    from losslog.values.losses import Losses

PATIENCE: Final = 2.0  # seconds that a checkpoint waits for the journal


class Logbook:
    """Speaks to one run.

    Args:
        make: makes the run, or gives the one there is.

    Attributes:
        passes: backward passes of the last step.
        steps: optimizer steps recorded since the last end of an epoch.
        trained: whether any step was taken that is recorded, or waits to be.
        reached: judges what losses were found to train.
        tracing: has found where losses that are not finite come from.
        evaluations: those that wait to be recorded.
        written: the checkpoint that was written last.
        validated: whether an evaluation was recorded since the last end of an epoch, or the loop has its own val_loss.
        unheard: tells whether other data than is trained on went by, and nothing could give a loss of it.
    """

    def __init__(self, make: Callable[[], Run]) -> None:
        self._make = make
        self.made: Run | None = None
        self.steps = 0
        self.passes = 1
        self.trained = self._labelled = False
        self.reached: Reached | None = None
        self.tracing: Traces | None = None
        self._validation: dict[str, _Latest] = {}
        self._of_copies: dict[str, _Latest] = {}
        self._left_out = self.validated = self._untold = False
        self.unheard: Callable[[], bool] = bool
        self._once = Once()
        self._validations = 0
        self._validation_over = False
        looking.begin()
        self.evaluations: list[tuple[Any, dict[str, Any], dict[str, Any]]] = []
        self.written = Written(self._log_checkpoint)

    @property
    def run(self) -> Run:
        """The run, made now if it was not."""
        if self.made is None:
            self.made = self._make()
        return self.made

    def step(self, reading: Reading, lr: Any) -> None:
        """An optimizer step was taken."""
        self.steps += 1
        run = self.made or self.run
        if not self._labelled:
            looking.labels(run)
        self.trained = self._labelled = self._validation_over = True
        if self.written.waits:
            self.written.settle()
        keys, values, has_total, n, weights, beside, reach, shared, targets, alone = reading
        self.passes = n
        run.log_forwards(keys, values, lr, n, has_total, weights, targets, alone=alone)
        reached = self.reached
        if beside is not None:
            run.log_later(*beside, step=run.next_step - 1)
        if self.tracing is not None and self.tracing.waiting:
            self.tracing.tell(run)
        if shared is not None:
            shares.log(run, shared, run.next_step - 1)
        if reached is not None and (reach is not None or reached.waiting):
            step = run.next_step - 1
            reached.take(reach, run.epoch, step)
            reached.tell(run, step)

    def unstepped(self, reading: Reading, *, counted: bool) -> None:
        """Forward passes were not followed by a step."""
        keys, values, has_total, n, weights = reading[:5]
        self.run.log_forwards(
            keys, values, None, n, has_total, weights, reading.targets, stepped=False, counted=counted,
            alone=reading.alone,
        )  # fmt: skip
        if self.tracing is not None and self.tracing.waiting:
            self.tracing.tell(self.run)

    def validation(
        self, reading: Reading, who: str = "", data: Any = None, *, of_copy: bool = False, untold: bool = False
    ) -> None:
        """A validation loss was computed, by a model or by a copy of one.

        Args:
            reading: the loss.
            who: gave it.
            data: the pass over a loader that it is of, where it is of one.
            of_copy: whether a copy of the model was validated.
            untold: whether nothing tells its data from those that are trained on.
        """
        self._untold = self._untold or untold
        if self._validation_over:
            self._validation, self._of_copies = {}, {}
            self._validation_over = False
        (self._of_copies if of_copy else self._validation).setdefault(who, _Latest()).add(reading, data)

    def trained_on(self) -> None:
        """A loss without gradients was computed of the data that is trained on: no validation."""
        self._left_out = True

    def evaluation(self, kind: str, metrics: dict[str, Any], evaluator: Any) -> None:
        """An evaluation gave figures.

        Args:
            kind: ``bbox``, ``segm`` or ``keypoints``.
            metrics: numbers by name.
            evaluator: what measured them; another ground truth means another evaluation.
        """
        truth = evaluator.cocoGt
        for known, kinds, scorers in self.evaluations:
            if known is truth:
                kinds[kind], scorers[kind] = metrics, evaluator
                return
        self.evaluations.append((truth, {kind: metrics}, {kind: evaluator}))

    def log_evaluations(self) -> None:
        """Record the evaluations since the last training forward."""
        waiting, self.evaluations = self.evaluations, []
        self.validated = self.validated or bool(waiting)
        for index, (_, kinds, scorers) in enumerate(waiting):
            split = "val" if not index else f"val{index + 1}"
            run = self.run
            before = not self.trained and run.next_step == 0  # nothing was trained yet: the point before epoch 1
            run.log_eval(kinds, split=split, epoch=0 if before else None)
            looking.log(run, scorers, split, 0 if before else None)

    def checkpoint(self, path: str) -> None:
        """A checkpoint was written."""
        self.written.take(os.path.abspath(path), self.run.open_epoch, self.run.next_step - 1)

    def _log_checkpoint(self, path: str, epoch: int, step: int) -> None:
        self.run.log_checkpoint(path, epoch=epoch, step=step)
        self.run.flush(PATIENCE)  # whoever is killed now goes on from it

    def val_loss(self) -> Losses | None:
        """Means of the last validation since the last call, or None."""
        waiting, copies, left_out = self._validation, self._of_copies, self._left_out
        self._validation, self._of_copies, self._left_out = {}, {}, False
        if self._untold and waiting and self._validations:  # by the second one batches of lists have come again
            self._once(
                "val_loss is the mean of all that was computed without gradients: no DataLoader gave the data, and "
                "training data cannot be told from other. Where both are estimated: run.end_epoch(val_loss=...)"
            )
        self._validations, self._untold = self._validations + bool(waiting), False
        if copies and not waiting:
            waiting = copies
            self._once("val_loss is of a copy of the model (an average, an EMA), not of the one that is trained")
        if not waiting and left_out:
            self._once(
                "an evaluation on the data that is trained on is in no record: val_loss is of other data. To have it "
                "there: run.end_epoch(val_loss=...), or run.log_metrics(...)"
            )
        unheard, validated, self.validated = self.unheard(), self.validated, False
        if unheard and not waiting and not left_out and not validated:
            self._once(
                "a pass over data that is not trained on gave no loss that can be heard, so that there is no val_loss: "
                "what a function (F.cross_entropy) gives without gradients is seen by nobody, nor is a mean that the "
                "loop takes of what a criterion with reduction='none' gives. Use a module that gives one number "
                "(nn.CrossEntropyLoss()) in training and validation, or run.end_epoch(val_loss=...)"
            )
        return mean_of([one.losses() for each in waiting.values() for one in each.readings]) if waiting else None

    def ended(self) -> None:
        """The epoch's end was recorded."""
        self.steps = 0


class _Latest:
    """What one giver of losses gave in the validation that began last."""

    def __init__(self) -> None:
        self._begun: list[Any] = []  # passes over data; None: of no loader
        self.readings: list[Reading] = []

    def add(self, reading: Reading, data: Any) -> None:
        if data not in self._begun:
            self._begun.append(data)
            self.readings = []
        if data is self._begun[-1]:  # else two loaders in turn
            self.readings.append(reading)
