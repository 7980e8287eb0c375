"""A run as it goes, seen from outside: what its journal tells now, without reading all of it.

Any thread, one at a time; reads only. Contract:

- The first look reads the beginning, some samples on the way and the end; so it takes as long for a run of a million
  steps as for one of a thousand. The rest is read at the second look: alerts, bests.
- Later looks read what came; memory is bounded. Nothing is written into the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from losslog.journal.archive import reading, size_of
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import line_after
from losslog.journal.records import count_in
from losslog.journal.scan import blocks, is_batch, record_of
from losslog.runtime.containment import attempt
from losslog.values.totals import total_of
from losslog.viewing.column import number
from losslog.viewing.rows import Row, change, word_of
from losslog.viewing.state import lags, status_of
from losslog.viewing.story import Story
from losslog.viewing.summary import Summary

TAIL: Final = 3 << 20  # bytes that are read whole
SAMPLES: Final = 160
SAMPLE: Final = 16 << 10  # bytes looked at for a sample
PIECES: Final = 40  # megabytes of the past that one look takes
RECENT: Final = 20  # steps whose mean is the value of now
QUIET: Final = 1.0  # seconds without a record after which it is asked whether the run lives


class Live:
    """A run being watched.

    Args:
        folder: the run folder.

    Attributes:
        story: the end of the run.
        status: ``running``, ``crashed``, or as it ended.
        looks: how many there were.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.story = Story(folder)
        self.status = "running"
        self.looks = 0
        self._summary = Summary(folder)
        self._samples: list[tuple[int, dict[str, float], float]] = []
        self._lags: dict[str, dict[str, Any]] = {}
        self._asked = 0.0

    def look(self) -> bool:
        """Take what is new.

        Returns:
            Whether anything is.

        Raises:
            OSError: the journal cannot be read.
        """
        self.looks += 1
        if self.looks == 1:
            self._begin()
        grew = self.looks == 1 or self.story.read() > 0
        changed = grew
        if self.looks > 1 and self._summary.size < self.story.offset:
            changed = self._summary.read(PIECES) or grew
        now = time.monotonic()
        if grew or now - self._asked >= QUIET:
            before, self._asked = (self.status, self._lags), now
            self._ask(grew)
            changed = changed or before != (self.status, self._lags)
        return changed

    def _ask(self, grew: bool) -> None:
        """Whether it lives, and how far its plugins are. A run that is known to be over is not asked again."""
        ended = self.story.ended
        if ended is not None or self.looks == 1 or (not grew and self.status == "running"):
            self.status = status_of(self.folder, None if ended is None else str(ended.get("status")))
        elif grew:
            self.status = "running"
        self._lags = lags(self.folder, self.story.offset)

    def _begin(self) -> None:
        attempt(self._summary.load)
        size = size_of(self.path)
        start = 0
        if size > TAIL:
            start = line_after(self.path, size - TAIL)
            for _, piece in blocks(self.path, 0, line_after(self.path, 0)):
                first = record_of(piece.rstrip(b"\n"))
                if first is not None and first.hook == "on_run_start":
                    self.story.start = {**first.data, "time": first.time}
                    self.story.batches.began = first.time
            for place in range(SAMPLES):
                self._sample(start * place // SAMPLES)
        self.story.take(start, None)

    def _sample(self, offset: int) -> None:
        with reading(self.path) as file:
            file.seek(offset)
            lines = file.read(SAMPLE).split(b"\n")[1:-1]
        found = [record_of(line) for line in lines if is_batch(line)]
        records = [each for each in found[:8] if each is not None]
        losses = [each.data.get("losses") for each in records]
        if not records:
            return
        named = [each if isinstance(each, Mapping) else {"loss": each} for each in losses]
        means = {name: fmean(number(each.get(name)) for each in named) for name in named[0]}
        total = fmean(number(each.data.get("total")) for each in records)
        self._samples.append((count_in(records[0].data, "step"), means, total))

    # ------------------------------------------------------------------ what it tells

    @property
    def name(self) -> str:
        """The run's name."""
        return self.story.name

    @property
    def age(self) -> float:
        """Seconds since the last record."""
        return max(0.0, time.time() - self.story.batches.last_time)

    @property
    def step(self) -> int | None:
        """The last global step."""
        return self.story.batches.last_step

    @property
    def epoch(self) -> int:
        """The epoch being trained, or the last one."""
        done = count_in(self.story.epochs[-1], "epoch") if self.story.epochs else 0
        return max(done, self.story.batches.last_epoch)

    @property
    def epochs(self) -> int | None:
        """Planned epochs."""
        planned = self.story.start.get("epochs")
        return planned if type(planned) is int else None

    @property
    def position(self) -> tuple[int, int | None]:
        """Steps done in this epoch, and how many it has; None where nothing tells."""
        length = self.story.start.get("steps_per_epoch")
        ends = [each["step"] for each in self.story.epochs[-2:] if type(each.get("step")) is int]
        if type(length) is not int:
            length = ends[-1] - ends[-2] if len(ends) == 2 else None
        step = self.step
        if step is None:
            return 0, length
        if not ends:
            return (step % length if length else step) + 1, length
        return (step - ends[-1]) or (length or 0), length

    @property
    def left(self) -> float | None:
        """Seconds left in the run, by the pace of the last epoch; None where nothing tells."""
        if self.status != "running" or not self.epochs or not self.story.epochs:
            return None
        last = self.story.epochs[-1]
        duration = last.get("duration")
        if not isinstance(duration, int | float):
            return None
        done, length = self.position
        part = done / length if length and self.epoch > count_in(last, "epoch") else 0.0
        return max(0.0, (self.epochs - count_in(last, "epoch") - min(1.0, part)) * duration)

    @property
    def scores(self) -> list[tuple[str, float, float]]:
        """(name, last, best) of the average precisions, or of the flat metrics."""
        last: dict[str, float] = {}
        for each in self.story.evals:
            last |= each["series"]
        wanted = [tag for tag in last if tag.endswith("_AP") and tag.startswith("mAP")]
        wanted = wanted or [tag for tag in last if tag.startswith("eval")]
        known, recent = self._summary.facts["best"], self.story.best()
        best = {tag: max(each[tag][0] for each in (known, recent) if tag in each) for tag in wanted}
        return [(tag.partition("/")[2], last[tag], best[tag]) for tag in wanted[:8]]

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """All alerts, in the order in which they came."""
        found = {str(each.get("key")): each for each in [*self._summary.facts["alerts"], *self.story.alerts]}
        return list(found.values())

    @property
    def lanes(self) -> dict[str, dict[str, Any]]:
        """How far each plugin is."""
        return self._lags

    @property
    def rows(self) -> list[Row]:
        """The components, in the loop's order, and the total last."""
        batches, last = self.story.batches, self.story.epochs[-1] if self.story.epochs else {}
        means, val = (self._named(last.get(key)) for key in ("losses", "val_loss"))
        words = {str(each["component"]): word_of(each) for each in self.alerts if each.get("component")}
        columns = dict(batches.losses)
        named = [*columns, *(name for name in means if name not in columns)]
        values = {name: self._now(name, means.get(name)) for name in named}
        total = sum(abs(value) for value in values.values() if value == value)
        rows = []
        for name in named:
            value = values[name]
            share = abs(value) / total if len(named) > 1 and total and value == value else None
            rows.append(
                Row(
                    name,
                    value,
                    share,
                    change(value, means.get(name)),
                    val.get(name),
                    self._curve(name),
                    words.get(name, ""),
                )
            )
        if len(named) > 1:
            value = self._now(None, number(last.get("total")))
            validation = total_of(val) if val else None
            rows.append(
                Row(
                    "total",
                    value,
                    None,
                    change(value, last.get("total")),
                    validation,
                    self._curve(None),
                    words.get("total", ""),
                )
            )
        return rows

    def _named(self, losses: Any) -> dict[str, float]:
        if losses is None:
            return {}
        return (
            {name: number(each) for name, each in losses.items()}
            if isinstance(losses, Mapping)
            else {"loss": number(losses)}
        )

    def _now(self, name: str | None, otherwise: float | None) -> float:
        column = self.story.batches.total if name is None else self.story.batches.losses.get(name)
        if column is None or not column.cells:
            return number(otherwise)
        if column.last != column.last:  # it is NaN now, whatever the cells hold
            return column.last
        cells = [column.cells[place] for place in sorted(column.cells)[-max(1, RECENT // column.width) :]]
        return sum(cell.sum for cell in cells) / sum(cell.n for cell in cells)

    def _curve(self, name: str | None) -> list[float]:
        before = [(step, total if name is None else means.get(name)) for step, means, total in self._samples]
        curve = [value for _, value in before if value is not None]
        column = self.story.batches.total if name is None else self.story.batches.losses.get(name)
        if column is None or not column.cells:
            if name is None:
                return [number(each.get("total")) for each in self.story.epochs]
            return [self._named(each.get("losses")).get(name, 0.0) for each in self.story.epochs]
        ordered = column.ordered()
        if not curve:
            return [cell.sum / cell.n for _, cell in ordered]
        # The samples stand for the part before; the tail gets as many points as its length asks for.
        covered = max(1, ordered[0][0])
        points = max(1, round(len(curve) * (ordered[-1][0] + column.width - covered) / covered))
        size = -(-len(ordered) // points)
        groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        return curve + [sum(cell.sum for _, cell in each) / sum(cell.n for _, cell in each) for each in groups]
