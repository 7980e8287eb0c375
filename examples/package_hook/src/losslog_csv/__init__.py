"""Epochs as a CSV file in the run folder: the smallest plugin that is durable."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from losslog import epoch_series, hookimpl


class CsvPlugin:
    """Writes ``epochs.csv``: epoch, tag, value.

    Args:
        filename: its name in the run folder.
    """

    def __init__(self, filename: str = "epochs.csv") -> None:
        self._filename = filename
        self._rows: list[tuple[int, str, float]] = []

    @hookimpl
    def on_epoch_end(self, epoch: int, losses: Any, total: Any, val_loss: Any, lr: Any) -> None:
        """Remember an epoch's series."""
        self._rows += [(epoch, tag, value) for tag, value in epoch_series(losses, total, val_loss, lr).items()]

    @hookimpl
    def on_flush(self, run: Any) -> None:
        """Write what has come; only when this returns does losslog count it as delivered."""
        if self._rows:
            with open(Path(run.dir) / self._filename, "a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(self._rows)
            self._rows.clear()
