"""What everyone who watches a loop for a run does alike: evaluations are picked up, epochs and the run come to an end.

Training thread. Contract:

- Nothing raises into the loop, but for `losslog.StopTraining` and the user's own Ctrl-C.
- What was seen of an epoch is recorded before its end, and goes with it.
"""

from __future__ import annotations

from typing import Any

from losslog.instrument import coco
from losslog.instrument.listeners import Listener, guarded, unusual
from losslog.instrument.logbook import Logbook
from losslog.instrument.signals import forget
from losslog.runtime.notices import Once

_said = Once()  # of the process


class Watching(Listener):
    """A run's `losslog.control.Watcher`.

    Args:
        logbook: where to put what is found.

    Attributes:
        closed: whether it has stopped watching.
    """

    def __init__(self, logbook: Logbook) -> None:
        self.logbook = logbook
        self.closed = False

    def summarized(self, evaluator: Any) -> None:
        """Pick up the figures of an evaluation."""
        if self.closed or not self.takes_evaluations:
            return
        found = coco.figures(evaluator)
        if not found:
            why = "it has some of the categories only (catIds)" if found is None else "it has no object to find"
            _said("an evaluation with COCOeval is not recorded, nor its images and mistakes: %s", why, key=why)
        else:
            self.logbook.evaluation(str(evaluator.params.iouType), found, evaluator)

    @property
    def takes_evaluations(self) -> bool:
        """Whether evaluations belong to it now."""
        return True

    def epoch_ends(self, val_loss: Any) -> Any:
        """Called by the run before an epoch ends; gives the validation losses that go with it."""
        found: list[Any] = []
        self.logbook.validated = self.logbook.validated or val_loss is not None
        guarded(lambda: found.append(self.before_epoch_end()))
        return val_loss if val_loss is not None or not found else found[0]

    def loop_logs(self) -> None:
        """Called by the run when the loop logs a step itself."""

    def before_epoch_end(self) -> Any:
        """Record what belongs to the epoch; gives its validation losses."""
        self.logbook.log_evaluations()
        self.logbook.written.settle()
        self.logbook.ended()
        return self.logbook.val_loss()

    def run_ends(self, status: str) -> None:
        """Called by the run before it closes."""
        unusual()
        if not self.closed:
            guarded(self.close, status)

    def close(self, status: str) -> None:
        """Record what waits, end an epoch that was seen to its end, and take everything off."""
        self.logbook.written.settle()
        if self.logbook.steps and self.logbook.made is not None and not self.cut_short(status):
            run = self.logbook.made
            before, run.watcher = run.watcher, self  # it is asked for what it heard
            run.end_epoch()
            run.watcher = before
        else:
            self.logbook.log_evaluations()
        if self.logbook.tracing is not None and self.logbook.tracing.waiting:
            self.logbook.tracing.tell(self.logbook.made)
        self.detach()

    def cut_short(self, status: str) -> bool:
        """Whether the open epoch was left in the middle."""
        return False

    def detach(self) -> None:
        """Take everything of ours off."""
        self.closed = True
        forget(self)
