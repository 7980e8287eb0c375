"""Which checkpoints stay: the newest few, and the best. Training thread of the main process.

Contract:

- A checkpoint is removed only when a newer one is whole on the disk; ``best.pth`` is never removed, only replaced.
- ``best.pth`` is the same file as the epoch's where the file system has links, else a copy.
- A disk that refuses costs the keeping, not the training, and is said.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losslog.engine.checkpoint import epochs_in
from losslog.runtime.containment import one_line
from losslog.runtime.notices import Once, did_you_mean, say, warn
from losslog.tags import eval_series, scalars

BEST: Final = "best.pth"
NOTE: Final = "best.json"
LOSS: Final = "val_loss"


class Keeper:
    """Decides after each checkpoint.

    Args:
        folder: where the checkpoints lie.
        keep: how many of the newest stay; None: all.
        best: ``best.pth`` has the highest of this metric, e.g. ``segm_AP``, or the lowest ``val_loss``; None: there is
            none.

    Raises:
        ValueError: ``keep`` is not at least 1.
    """

    def __init__(self, folder: Path, keep: int | None, best: str | None) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"keep is at least 1, or None for all, got {keep}")
        self._folder, self._keep, self._best = folder, keep, best
        self._once = Once()

    def saved(self, path: Path, epoch: int, metrics: Mapping[str, Any], val_loss: Any) -> None:
        """A checkpoint was written.

        Args:
            path: the file.
            epoch: its epoch.
            metrics: that epoch's evaluation; empty where there was none.
            val_loss: its validation losses, or None.
        """
        try:
            if self._best is not None:
                self._compare(path, epoch, self._best, metrics, val_loss)
            if self._keep is not None:
                for _, old in epochs_in(self._folder)[: -self._keep]:
                    old.unlink(missing_ok=True)
        except OSError as error:
            warn("checkpoints in %s: %s", self._folder, one_line(error))

    def _compare(self, path: Path, epoch: int, name: str, metrics: Mapping[str, Any], val_loss: Any) -> None:
        found = {tag.partition("/")[2]: value for tag, value in eval_series(metrics, "val").items()} if metrics else {}
        if val_loss is not None:
            found[LOSS] = scalars("val", val_loss)["val"]
        if not found:
            return
        value = found.get(name)
        if value is None:
            known = sorted(each for each in found if "/" not in each)
            self._once(
                "best: no metric %r%s; there are %s", name, did_you_mean(name, known), ", ".join(known), key="best"
            )
            return
        score = -value if name == LOSS else value
        if not math.isfinite(value) or score <= self._record(name):
            return
        target, temporary = self._folder / BEST, self._folder / f".{BEST}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, target)
        note = {"metric": name, "value": value, "epoch": epoch}
        (self._folder / NOTE).write_text(json.dumps(note) + "\n", "ascii")
        say("best %s so far, %.4f in epoch %d: %s", name, value, epoch, target)

    def _record(self, name: str) -> float:
        """The score to beat; of this metric only."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads((self._folder / NOTE).read_text("ascii"))
            if note["metric"] == name and (self._folder / BEST).is_file():
                return -float(note["value"]) if name == LOSS else float(note["value"])
        return -math.inf
