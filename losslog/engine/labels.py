"""The first batches of a run, looked at once: a sheet of images with their targets, as the model gets them.

Training thread, before the first step. Contract:

- Logged once a run; a batch that is no detection batch ends the looking, and nothing here raises into training.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn

if TYPE_CHECKING:
    from losslog.run import Run

IMAGES: Final = 10
BATCHES: Final = 10


class Labels:
    """Collects the first batches.

    Args:
        run: where the sheet is logged.
        loader: names the classes, through its data set.

    Attributes:
        done: whether there is nothing more to do.
    """

    def __init__(self, run: Run, loader: Any) -> None:
        self.done = False
        self._run, self._dataset = run, getattr(loader, "dataset", None)
        self._batches: list[Any] = []
        self._images = 0

    def take(self, batches: list[Any]) -> None:
        """Batches of one step; they are not changed."""
        for batch in batches:
            found = _pairs(batch)
            self._images += found
            self._batches.append(batch)
            if not found or self._images >= IMAGES or len(self._batches) >= BATCHES:
                self.done = True
                break
        if self.done:
            self.finish()

    def finish(self) -> None:
        """Log what there is: at the latest when the first epoch ends."""
        kept, self._batches, self.done = self._batches, [], True
        if kept and self._images:
            log(self._run, kept, self._dataset)


def _pairs(batch: Any) -> int:
    """How many images with targets there are in a batch."""
    targets = batch.get("labels") if isinstance(batch, dict) else batch[1] if _is_pair(batch) else None
    if not isinstance(targets, list | tuple):
        return 0
    return sum(isinstance(each, dict) and ("boxes" in each or "masks" in each) for each in targets)


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, list | tuple) and len(batch) == 2


def log(run: Run, batches: list[Any], dataset: Any) -> None:
    """Log a sheet of these batches; what hinders it is a line."""
    if not run.logging_rank:
        return
    _, error = attempt(lambda: importlib.import_module("losslog.detection.labels").log(run, batches, dataset))
    if error is not None:
        warn("no sheet of the first training images (%s)", one_line(error))
