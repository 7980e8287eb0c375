"""The best so far: of evaluations the highest, of the validation loss the lowest.

No thread, no I/O. Contract:

- Values that are not finite are no best. What a resume goes back behind is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from losslog import scalars
from losslog.history import records

LOWEST: Final = "Validation Loss"


class Memory:
    """Of one run."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, float]] = {}

    def add(self, name: str, epoch: int, value: float) -> None:
        """An epoch's value."""
        if math.isfinite(value):
            self._seen.setdefault(name, {})[epoch] = value

    def add_losses(self, epoch: int, val_loss: Any) -> None:
        """An epoch's validation losses, or None."""
        if val_loss is not None:
            self.add(LOWEST, epoch, scalars("val", val_loss)["val"])

    def add_metrics(self, epoch: int, metrics: Mapping[str, Any], names: Mapping[str, tuple[str, str]]) -> None:
        """An epoch's evaluation; of each kind with a name the average precision."""
        for kind, scores in metrics.items():
            if kind in names and isinstance(scores, Mapping) and "AP" in scores:
                self.add(f"{names[kind][1]} mAP", epoch, float(scores["AP"]))

    def recall(self, folder: Path, names: Mapping[str, tuple[str, str]]) -> None:
        """Take what the journal of a run that is gone on with tells of the epochs before."""
        with suppress(OSError, ValueError, TypeError):
            for record in records(folder, hooks=("on_eval", "on_epoch_end")):
                if record.hook == "on_epoch_end":
                    self.add_losses(record.data["epoch"], record.data.get("val_loss"))
                elif record.data.get("split") == "val":
                    self.add_metrics(record.data["epoch"], record.data["metrics"], names)

    def best(self, precision: int) -> list[str]:
        """``Box mAP 0.6543 (epoch 3)``, of what has been seen in more than one epoch."""
        found = []
        for name, values in self._seen.items():
            if len(values) > 1:
                epoch = (min if name == LOWEST else max)(values, key=values.__getitem__)
                found.append(f"{name} {values[epoch]:.{precision}f} (epoch {epoch})")
        return found

    def back_to(self, epoch: int) -> None:
        """The run goes on after this epoch."""
        for values in self._seen.values():
            for later in [each for each in values if each > epoch]:
                del values[later]
