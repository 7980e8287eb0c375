"""A run as it is drawn: every series in bounded memory, everything else as it was told.

Any thread, one at a time; reads only. Contract:

- `Story.read` takes what is new in the journal; a resume that came makes it read the run anew, without what it voids.
- Bounded by `Column.limit`, `SERIES` and `KEPT`, whatever the length of the run; what is left out is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.history import is_void
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, count_in
from losslog.runtime.containment import attempt
from losslog.tags import eval_series
from losslog.viewing.column import LIMIT, Column, number
from losslog.viewing.columns import Template
from losslog.viewing.scan import batches, blocks, is_batch, record_of, resumes
from losslog.viewing.state import lags, status_of

SERIES: Final = 400  # of one kind
KEPT: Final = 2000  # epochs, evaluations, alerts, checkpoints
MANY: Final = 64  # components from which a series gets fewer cells
KNOTS: Final = 512
FEW: Final = 16  # lines that are decoded one by one
TURNS: Final = ("on_epoch_end", "on_run_start", "on_resume", "on_run_end")


class Series(dict[str, Column]):
    """Columns by name, at most `SERIES`.

    Attributes:
        left_out: names beyond.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.left_out: set[str] = set()

    def add(self, name: str, xs: Sequence[int], values: Sequence[Any]) -> None:
        """Take values of one series."""
        if name not in self:
            if len(self) >= SERIES:
                if len(self.left_out) < SERIES:
                    self.left_out.add(name)
                return
            self[name] = Column(self.limit)
            if len(self) == MANY:
                self.limit //= 4
                for each in self.values():
                    each.narrow(self.limit)
        self[name].add(xs, values)


class Story:
    """One run.

    Args:
        folder: the run folder.
        limit: most cells in a series.

    Attributes:
        start: the data of the first ``on_run_start``; of its config and plan, the last one's.
        losses, total, rates, weights, metrics: series by step (``metrics`` by epoch where they have no step).
        epochs, evals, alerts, checkpoints: data of these records, with ``time``.
        resumes: data of the resumes, with ``time``.
        ended: status and error of the end, or None.
        knots: (step, epoch, images, time) now and then, in order.
        steps, garbled, records: how many.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self._limit = limit
        self._clear()

    def _clear(self) -> None:
        self.offset = 0
        self.fences: list[Record] = []
        self.start: dict[str, Any] = {}
        self.losses, self.rates, self.weights, self.metrics = (Series(self._limit) for _ in range(4))
        self.total = Column(self._limit)
        self.epochs: list[dict[str, Any]] = []
        self.evals: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self.ended: dict[str, Any] | None = None
        self.knots: list[tuple[int, int, int, float]] = []
        self.steps = self.garbled = self.records = self.images = 0
        self.began = self.last_time = 0.0
        self.last_step: int | None = None
        self.last_epoch = 0
        self.last_losses: Any = None
        self._template: Template | None = None

    def read(self) -> int:
        """Take what is new.

        Returns:
            How many records came.

        Raises:
            OSError: the journal cannot be read.
        """
        fresh = resumes(self.path, self.offset)
        if self.path.stat().st_size < self.offset or (fresh and self.offset):
            self._clear()
            fresh = resumes(self.path)
        self.fences += fresh
        before = self.records
        for offset, piece in blocks(self.path, self.offset):
            self._take(piece.split(b"\n")[:-1])
            self.offset = offset
        return self.records - before

    def _take(self, lines: list[bytes]) -> None:
        waiting: list[bytes] = []
        for line in lines:
            if is_batch(line):
                waiting.append(line)
                continue
            record = record_of(line)
            if record is None:
                self.garbled += 1
                continue
            if record.hook in TURNS:
                self._batches(waiting)
                waiting = []
            self._count(record)
            if record.hook == "on_batch_losses":
                self._rows([record])
            elif not is_void(record, self.fences):
                self._other(record)
        self._batches(waiting)

    def _count(self, record: Record) -> None:
        self.records += 1
        self.began = self.began or record.time
        self.last_time = record.time
        self.ended = None

    def _batches(self, lines: list[bytes]) -> None:
        if not lines or self._alike(lines):
            return
        rows, garbled = batches(lines)
        self.garbled += garbled
        for row in rows[:1] + rows[-1:]:
            self._count(row)
        self.records += len(rows) - min(2, len(rows))
        if any(fence.seq > rows[0].seq for fence in self.fences if rows):
            rows = [row for row in rows if not is_void(row, self.fences)]
        if rows:
            _, error = attempt(self._rows, rows)
            if error is not None:  # something in them is not as it should be: one by one
                for row in rows:
                    _, error = attempt(self._rows, [row])
                    self.garbled += error is not None

    def _alike(self, lines: list[bytes]) -> bool:
        """Take lines of one form, a column at a time; False where they are not."""
        first, last = record_of(lines[0]), record_of(lines[-1])
        if first is None or last is None or len(lines) < FEW:
            return False
        for template in (self._template, Template(last)):
            columns = None if template is None else template.read(lines)
            if columns is not None:
                self._template = template
                break
        else:
            return False
        xs, _ = attempt(lambda: [int(each) for each in columns[("step",)]])
        if xs is None or xs != sorted(xs) or any(_voids(fence, first, xs) for fence in self.fences):
            return False
        alone = not isinstance(last.data["losses"], Mapping)
        for path, texts in columns.items():
            series, name = (None, "") if alone and path == ("total",) else self._place(path)
            if isinstance(series, Series):
                series.add(name, xs, texts)
            elif series is not None:
                series.add(xs, texts)
        self._count(first)
        self._count(last)
        self.records += len(lines) - 2
        self._took(len(lines), xs[-1], last)
        self.images += sum(map(int, columns.get(("batch_size",), ())))
        return True

    def _place(self, path: tuple[str | int, ...]) -> tuple[Series | Column | None, str]:
        """The series of a number that stands there in a record's data."""
        kinds = {"losses": (self.losses, "loss"), "lr": (self.rates, "lr"), "weights": (self.weights, "weight")}
        if path == ("total",):
            return self.total, ""
        if len(path) > 2 or path[0] not in kinds:
            return None, ""
        series, alone = kinds[path[0]]
        return series, str(path[1]) if len(path) == 2 else alone

    def _rows(self, rows: list[Record]) -> None:
        datas = [row.data for row in rows]
        xs = [data["step"] + 0 for data in datas]
        if xs != sorted(xs):
            order = sorted(range(len(xs)), key=xs.__getitem__)
            rows, datas, xs = [rows[i] for i in order], [datas[i] for i in order], [xs[i] for i in order]
        losses = [data["losses"] for data in datas]
        self._spread(self.losses, xs, losses, "loss")
        if isinstance(losses[-1], Mapping):
            self.total.add(xs, [data["total"] for data in datas])
        self._spread(self.rates, xs, [data.get("lr") for data in datas], "lr")
        if any("weights" in data for data in datas[:1] + datas[-1:]):
            self._spread(self.weights, xs, [data.get("weights") for data in datas], "weight")
        self.images += sum(count_in(data, "batch_size") for data in datas)
        self._took(len(rows), xs[-1], rows[-1])

    def _took(self, count: int, step: int, last: Record) -> None:
        self.steps += count
        self.last_step, self.last_losses = step, last.data["losses"]
        self.last_epoch = count_in(last.data, "epoch")
        self._knot(step, last.time)

    def _spread(self, series: Series, xs: list[int], values: list[Any], alone: str) -> None:
        """Columns out of rows that are dicts, numbers, or None."""
        first = values[0]
        if isinstance(first, dict) and set(map(type, values)) == {dict} and set(map(len, values)) == {len(first)}:
            columns = {}
            try:
                for name in first:
                    columns[name] = [each[name] for each in values]
            except KeyError:
                columns = {}
            for name, column in columns.items():
                series.add(name, xs, column)
            if columns:
                return
        scattered: dict[str, tuple[list[int], list[Any]]] = {}
        for x, each in zip(xs, values, strict=True):
            if each is not None:
                for name, value in each.items() if isinstance(each, Mapping) else ((alone, each),):
                    places, found = scattered.setdefault(name, ([], []))
                    places.append(x)
                    found.append(value)
        for name, (places, found) in scattered.items():
            series.add(name, places, found)

    def _knot(self, step: int, time: float) -> None:
        if self.knots and step <= self.knots[-1][0]:
            return
        self.knots.append((step, self.last_epoch, self.images, time))
        if len(self.knots) > KNOTS:
            del self.knots[1:-1:2]

    def _other(self, record: Record) -> None:
        data = record.data | {"time": record.time}
        if record.hook == "on_run_start":
            self.start = {**data, "time": self.start.get("time", record.time), "name": self.name or data.get("name")}
        elif record.hook == "on_epoch_end":
            self._keep(self.epochs, data)
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
            for tag, value in (metrics if isinstance(metrics, dict) else {}).items():
                if type(x) is int:
                    self.metrics.add(tag if data.get("step") is not None else f"{tag} (by epoch)", [x], [value])
        elif record.hook == "on_run_end":
            self.ended = data

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
        return max(0.0, self.last_time - self.began)

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


def _voids(fence: Record, first: Record, xs: Sequence[int]) -> bool:
    """Whether a resume may have superseded some of these steps."""
    if first.seq > fence.seq:
        return False
    step = fence.data.get("step")
    return type(step) is not int or xs[-1] > step
