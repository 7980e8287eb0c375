"""The batch records of a run as series.

No thread, no I/O. Contract:

- Lines that look alike are read a column at a time, others decoded; what cannot be read is counted, never raised.
- What a resume supersedes is left out; steps are put in order within what is given at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from losslog.journal.fences import is_void
from losslog.journal.records import Record, count_in, decode_all
from losslog.journal.scan import record_of
from losslog.runtime.containment import attempt
from losslog.viewing.column import LIMIT, Column
from losslog.viewing.columns import Template

SERIES: Final = 400  # of one kind
MANY: Final = 64  # components from which a series gets fewer cells
KNOTS: Final = 512
FEW: Final = 16  # lines that are decoded one by one


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

    def merge(self, later: Series) -> None:
        """Take what another has of later steps."""
        for name, column in later.items():
            self.add(name, (), ())
            if name in self:
                self[name].merge(column)
        self.left_out |= later.left_out


class Steps:
    """What batch records tell, in bounded memory.

    Args:
        limit: most cells in a series.

    Attributes:
        losses, total, rates, weights: series by step.
        knots: (step, epoch, images, time) now and then, in order.
        steps, images, records, garbled: how many.
        began, last_time: of the first and the last record.
        last_step, last_epoch, last_losses: of the last batch.
        fences: the resumes, by which records are superseded.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.losses, self.rates, self.weights = (Series(limit) for _ in range(3))
        self.total = Column(limit)
        self.knots: list[tuple[int, int, int, float]] = []
        self.steps = self.garbled = self.records = self.images = 0
        self.began = self.last_time = 0.0
        self.last_step: int | None = None
        self.last_epoch = 0
        self.last_losses: Any = None
        self.fences: list[Record] = []
        self._template: Template | None = None

    def count(self, record: Record) -> None:
        """A record of any kind has come."""
        self.records += 1
        self.began = self.began or record.time
        self.last_time = record.time

    def take(self, lines: list[bytes]) -> None:
        """Take batch records."""
        if not lines or self._alike(lines):
            return
        rows = [each for each in decode_all(lines) if each is not None]
        self.garbled += len(lines) - len(rows)
        _, error = attempt(self._several, rows)
        if error is not None:  # something in them is not as it should be: one by one
            for row in rows:
                _, error = attempt(self._several, [row])
                self.garbled += error is not None

    def _several(self, rows: list[Record]) -> None:
        counted = rows
        if any(fence.seq > rows[0].seq for fence in self.fences if rows):
            rows = [row for row in rows if not is_void(row, self.fences)]
        if rows:
            self._rows(rows)
        for row in counted:
            self.count(row)

    def images_at(self, step: float) -> float:
        """How many images were seen when a step began; the step itself where no batch has come."""
        before = (-1.0, 0.0)
        for at, _, images, _ in self.knots:
            if step <= at:
                return before[1] + (step - before[0]) / (at - before[0]) * (images - before[1])
            before = (at, images)
        return before[1] / (before[0] + 1) * (step + 1) if self.knots else step

    def append(self, later: Steps) -> None:
        """Take what another took of the same journal, from where this one ended."""
        for mine, theirs in ((self.losses, later.losses), (self.rates, later.rates), (self.weights, later.weights)):
            mine.merge(theirs)
        self.total.merge(later.total)
        for step, epoch, images, at in later.knots:
            self._knot(step, epoch, self.images + images, at)
        if later.records:
            self.began, self.last_time = self.began or later.began, later.last_time
        if later.steps:
            self.last_step, self.last_epoch, self.last_losses = later.last_step, later.last_epoch, later.last_losses
        self.steps, self.garbled = self.steps + later.steps, self.garbled + later.garbled
        self.records, self.images = self.records + later.records, self.images + later.images

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
        self.count(first)
        self.count(last)
        self.records += len(lines) - 2
        self.images += sum(map(int, columns.get(("batch_size",), ())))
        self._took(len(lines), xs[-1], last)
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
        totals = [data["total"] for data in datas] if isinstance(losses[-1], Mapping) else None
        self._spread(self.losses, xs, losses, "loss")
        if totals is not None:
            self.total.add(xs, totals)
        self._spread(self.rates, xs, [data.get("lr") for data in datas], "lr")
        if any("weights" in data for data in datas[:1] + datas[-1:]):
            self._spread(self.weights, xs, [data.get("weights") for data in datas], "weight")
        self.images += sum(count_in(data, "batch_size") for data in datas)
        self._took(len(rows), xs[-1], rows[-1])

    def _took(self, count: int, step: int, last: Record) -> None:
        self.steps += count
        self.last_step, self.last_losses = step, last.data["losses"]
        self.last_epoch = count_in(last.data, "epoch")
        self._knot(step, self.last_epoch, self.images, last.time)

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

    def _knot(self, step: int, epoch: int, images: int, time: float) -> None:
        if self.knots and step <= self.knots[-1][0]:
            return
        self.knots.append((step, epoch, images, time))
        if len(self.knots) > KNOTS:
            del self.knots[1:-1:2]


def _voids(fence: Record, first: Record, xs: Sequence[int]) -> bool:
    """Whether a resume may have superseded some of these steps."""
    if first.seq > fence.seq:
        return False
    step = fence.data.get("step")
    return type(step) is not int or xs[-1] > step
