"""A run as it is drawn: every series in bounded memory, everything else as it was told.

Any thread, one at a time; reads only. Contract:

- `Story.read` takes what is new in the journal; a resume that came makes it read the run anew, without what it voids.
- Bounded by `Column.limit`, `SERIES` and `KEPT`, whatever the length of the run; what is left out is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losslog.journal.archive import size_of
from losslog.journal.fences import is_void
from losslog.journal.folder import JOURNAL
from losslog.journal.metrics import trained
from losslog.journal.records import Record, count_in
from losslog.journal.scan import blocks, is_batch, record_of, resumes
from losslog.runtime.containment import attempt
from losslog.tags import eval_series
from losslog.viewing.column import LIMIT, number
from losslog.viewing.state import lags, status_of
from losslog.viewing.steps import Series, Steps

SHEETS: Final = 16  # epochs of which images are kept, for each set of them
SETS: Final = 6
KEPT: Final = 2000  # epochs, evaluations, alerts, checkpoints
TURNS: Final = ("on_epoch_end", "on_run_start", "on_resume", "on_run_end")


class Story:
    """One run.

    Args:
        folder: the run folder.
        limit: most cells in a series.

    Attributes:
        batches: what the batch records tell.
        metrics: other series, by step, or by epoch where they have no step.
        start: the data of ``on_run_start``: the plan and config of the last, the name and time of the first.
        epochs, evals, alerts, checkpoints, resumes: data of these records, with ``time``.
        pictures: of images, by their split and name.
        hardest: the batches with the highest losses of the last epoch that tells.
        trains: what each loss trains, and has of the gradient, when that was looked at last.
        ended: status and error of the end, or None.
        offset: bytes of the journal that were read.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self._limit = limit
        self._clear()

    def _clear(self) -> None:
        self.offset = 0
        self.batches = Steps(self._limit)
        self.metrics = Series(self._limit)
        self.start: dict[str, Any] = {}
        self.epochs: list[dict[str, Any]] = []
        self.evals: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self.pictures: dict[str, list[dict[str, Any]]] = {}
        self.hardest: dict[str, Any] = {}
        self.trains: dict[str, Any] = {}
        self.ended: dict[str, Any] | None = None

    def read(self) -> int:
        """Take what is new.

        Returns:
            How many records came.

        Raises:
            OSError: the journal cannot be read.
        """
        fresh = resumes(self.path, self.offset)
        if size_of(self.path) < self.offset or (fresh and self.offset):
            self._clear()
            fresh = resumes(self.path)
        self.batches.fences += fresh
        before = self.batches.records
        self.take(self.offset, None)
        return self.batches.records - before

    def take(self, start: int, end: int | None) -> None:
        """Take the lines from ``start`` to ``end``; both stand at the beginning of a line."""
        self.offset = start
        for offset, piece in blocks(self.path, start, end):
            self._take(piece.split(b"\n")[:-1])
            self.offset = offset

    def append(self, later: Story) -> None:
        """Take what another story took of the same journal, from where this one ended."""
        if later.batches.records:
            self.ended = later.ended
        self.batches.append(later.batches)
        self.metrics.merge(later.metrics)
        for kept, more in ((self.epochs, later.epochs), (self.evals, later.evals), (self.alerts, later.alerts),
                           (self.checkpoints, later.checkpoints), (self.resumes, later.resumes)):  # fmt: skip
            kept += more
        for name, more in later.pictures.items():
            for data in more:
                self._picture(name, data)
        self.hardest = later.hardest or self.hardest
        self.trains |= later.trains
        if later.start:
            self._start(later.start)
        self.offset = later.offset

    def _take(self, lines: list[bytes]) -> None:
        waiting: list[bytes] = []
        for line in lines:
            if is_batch(line):
                waiting.append(line)
                continue
            record = record_of(line)
            if record is None:
                self.batches.garbled += 1
                continue
            if record.hook in TURNS:
                self._steps(waiting)
                waiting = []
            if record.hook == "on_batch_losses":  # written by another hand: its keys stand in another order
                self._steps([line])
                continue
            self.batches.count(record)
            self.ended = None
            if not is_void(record, self.batches.fences):
                self._other(record)
        self._steps(waiting)

    def _steps(self, lines: list[bytes]) -> None:
        if lines:
            self.ended = None
            self.batches.take(lines)

    def _other(self, record: Record) -> None:
        data = record.data | {"time": record.time}
        if record.hook == "on_run_start":
            self._start(data)
        elif record.hook == "on_epoch_end":
            batches = data.pop("hardest", None)
            if batches:
                self.hardest = {"epoch": data.get("epoch"), "batches": batches}
            self._keep(self.epochs, data)
        elif record.hook == "on_images" and data.get("images"):
            self._picture(
                f"{data.get('split') or 'val'} {data.get('name') or 'images'}"[:60], data | {"seq": record.seq}
            )
        elif record.hook == "on_eval":
            series, _ = attempt(eval_series, data.get("metrics") or {}, str(data.get("split") or "val"))
            if series:
                data["series"] = {tag: value for tag, value in series.items() if math.isfinite(value)}
                self._keep(self.evals, data)
        elif record.hook == "on_alert":
            self._keep(self.alerts, data)
        elif record.hook == "on_checkpoint":
            self._keep(self.checkpoints, data)
        elif record.hook == "on_resume":
            self._keep(self.resumes, data)
        elif record.hook == "on_metrics":
            x = data.get("step") if data.get("step") is not None else data.get("epoch")
            metrics = data.get("metrics")
            self.trains = trained(self.trains, data)
            for tag, value in (metrics if isinstance(metrics, dict) else {}).items():
                if type(x) is int:
                    self.metrics.add(tag if data.get("step") is not None else f"{tag} (by epoch)", [x], [value])
        elif record.hook == "on_run_end":
            self.ended = data

    def _picture(self, name: str, data: dict[str, Any]) -> None:
        """One record of a set: the first and the last stay, the middle thins out."""
        if name in self.pictures or len(self.pictures) < SETS:
            kept = self.pictures.setdefault(name, [])
            kept.append(data)
            if len(kept) > SHEETS:
                del kept[1:-1:2]

    def _start(self, data: dict[str, Any]) -> None:
        """The plan and config of the last start, the time and the name of the first."""
        first = self.start or data
        self.start = {**data, "time": first.get("time"), "name": first.get("name")}

    def _keep(self, kept: list[dict[str, Any]], data: dict[str, Any]) -> None:
        kept.append(data)
        if len(kept) > KEPT:  # the first and the last stay, the middle thins out
            del kept[1:-1:2]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.start.get("name") or "")

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def status(self) -> str:
        """``running``, ``crashed``, or as it ended."""
        return status_of(self.folder, None if self.ended is None else str(self.ended.get("status")))

    @property
    def seconds(self) -> float:
        """From the first record to the last."""
        return max(0.0, self.batches.last_time - self.batches.began)

    def lags(self) -> dict[str, dict[str, Any]]:
        """How far each plugin is."""
        return lags(self.folder, self.offset)

    def best(self) -> dict[str, tuple[float, int]]:
        """The highest value of each evaluation tag, and its epoch."""
        found: dict[str, tuple[float, int]] = {}
        for each in self.evals:
            for tag, value in each["series"].items():
                if tag not in found or value > found[tag][0]:
                    found[tag] = (value, count_in(each, "epoch"))
        return found

    def epoch_values(self, key: str) -> list[tuple[int, dict[str, float]]]:
        """(epoch, values by component) of ``losses`` or ``val_loss``; a scalar stands under ``loss``."""
        found = []
        for each in self.epochs:
            value = each.get(key)
            if value is not None:
                named = value if isinstance(value, Mapping) else {"loss": value}
                found.append((count_in(each, "epoch"), {name: number(part) for name, part in named.items()}))
        return found
