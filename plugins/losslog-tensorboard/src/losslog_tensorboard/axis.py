"""One x axis of a run: one folder of event files, written in order and never twice.

Runs on the plugin's lane; no thread of its own. Contract:

- Events gather in memory; `Axis.flush` writes them with one call and returns when the operating system has them.
- No tag goes back: a point at or before the last one of its tag is a redelivery (dropped) or late (dropped, said once).
- What is there already is read from the folder's own files when the axis is opened, so a new process continues exactly.
- A purge begins a new file that tells readers to forget the points from there on, as after a resume. What is before a
  resume, and what after, is told by the records' numbers, never by the clock, which may have been set back.
- Only the process that made the axis writes; what a forked child adds goes nowhere.
- After an error the axis is ``broken``: forget it, with what it had gathered, and open another.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tensorboard.compat.proto.event_pb2 import Event

from losslog_tensorboard import events, tfrecord
from losslog_tensorboard.errors import EventsUnavailable

if TYPE_CHECKING:
    from losslog.detection.drawing import Sheet

logger: Final = logging.getLogger("losslog.tensorboard")
_Point = tuple[int, float, int]  # step, time, record; -1 where a file does not say
MAX_BUFFER: Final = 256 * 1024  # bytes; about 1,000 steps of seven values


class Axis:
    """The event files of one folder.

    Args:
        folder: where the files are; made with the first event.
        run_id: files of other runs in the folder are left alone and not read.
        first: the lowest step a purge may reach; what describes the run stands before it.
        resumed: number of the record with which this run was resumed without saying from where, or None: then the first
            point after it which goes back is where.

    Attributes:
        broken: an error has ended it.
        found: this run had files here already.

    Raises:
        EventsUnavailable: the folder cannot be read.
    """

    def __init__(self, folder: Path, run_id: str, first: int, resumed: int | None) -> None:
        self.folder = folder
        self.broken = False
        self.found = False
        self._run_id = run_id
        self._first = first
        self._file: tfrecord.EventFile | None = None
        self._begun = False
        self._buffer = bytearray()
        self._pid = os.getpid()
        self._points: dict[str, _Point] = {}
        self._newest: tuple[tuple[str, ...], _Point] = ((), (0, 0.0, 0))  # several tags' last, not among those yet
        self._scalars = events.Scalars()
        self._texts: dict[tuple[str, float, bytes], int] = {}
        self._part = self._found_part = 0  # the record that resumed the run: now, and before the points that are there
        self._added = False  # points, by this object
        self._told: set[str] = set()
        try:
            for path in tfrecord.event_files(folder):
                self._scan(path)
        except OSError as error:
            raise self._down("read", error) from error
        self._resumed: int | None = None
        self.resumed(resumed)

    def resumed(self, seq: int | None) -> None:
        """The run continues with record ``seq``, from where its next point will tell; no news where that is known."""
        known = seq is None or (self._found_part >= seq > 0 and not self._added)
        self._resumed = None if known else seq
        if seq is not None and seq > self._part:
            self.close()  # the next file says that it is of the new part
            self._part = seq

    def add(self, time: float, step: int, series: Mapping[str, float], seq: int = -1) -> None:
        """Add the values of one step as one event.

        Args:
            time: seconds since the epoch.
            step: the x value.
            series: values by tag.
            seq: the record's number; -1 where it has none yet, and so is new.

        Raises:
            EventsUnavailable: a purge or a full buffer had to write, and could not.
        """
        if self._resumed is not None:
            self._goes_back(time, step, seq)
        tags, newest = self._newest
        if tags != tuple(series) or (step <= newest[0] and _is_old(step, time, seq, newest)):
            last = self._last
            stale = [tag for tag in series if tag in last and _is_old(step, time, seq, last[tag])]
            if stale:
                series = self._without(stale, time, step, series)
                if not series:
                    return
            tags = tuple(series)
        self._newest = tags, (step, time, seq)
        self._added = True
        self._append(time, self._scalars.encoded(time, step, tags, series.values()))

    @property
    def _last(self) -> dict[str, _Point]:
        """The last point of each tag."""
        tags, point = self._newest
        if tags:
            self._points.update(dict.fromkeys(tags, point))
            self._newest = (), point
        return self._points

    def add_image(self, time: float, step: int, tag: str, sheet: Sheet, seq: int = -1) -> None:
        """Add a sheet of images, unless it is there.

        Args:
            time: seconds since the epoch.
            step: the x value.
            tag: the name shown.
            sheet: is drawn now.
            seq: as for `add`.

        Raises:
            EventsUnavailable: a purge or a full buffer had to be written, and could not.
        """
        self._goes_back(time, step, seq)
        if tag in self._last and _is_old(step, time, seq, self._last[tag]):
            return
        self._last[tag] = (step, time, seq)
        self._added = True
        picture = sheet.drawn()
        self._append(time, events.image(time, step, tag, sheet.encoded(picture), picture.size).SerializeToString())

    def _goes_back(self, time: float, step: int, seq: int) -> None:
        """After a resume that did not say from where: the first point that goes back is where."""
        if self._resumed is not None and (seq < 0 or seq > self._resumed):
            self._resumed = None
            if any(step <= last for last, _, _ in self._last.values()):
                self.purge(time, step)

    def add_text(self, time: float, step: int, tag: str, markdown: str, *, once: bool = False) -> None:
        """Add a text; a later one never stands at or before an earlier one, where a reader would lose one of them.

        Args:
            time: seconds since the epoch.
            step: the x value.
            tag: the name shown.
            markdown: the text.
            once: not if the same text is there already.

        Raises:
            EventsUnavailable: a full buffer had to be written, and could not.
        """
        body = markdown.encode("utf-8", "replace")
        if (tag, time, body) in self._texts or (once and any((tag, body) == (key[0], key[2]) for key in self._texts)):
            return
        if not once:
            step = max([step, *(at + 1 for key, at in self._texts.items() if key[0] == tag)])
        self._texts[tag, time, body] = step
        self._append(time, events.text(time, step, tag, markdown).SerializeToString())

    def describe(self, time: float, run_id: str, config: Mapping[str, Any], *, layout: bool, hparams: bool) -> None:
        """Add what the pages CUSTOM SCALARS and HPARAMS need to know of the run, unless it is there already."""
        if layout:
            self._add_once(time, events.layout(time))
        if hparams:
            self._add_once(time, events.hparams(time, run_id, config))

    def finish(self, time: float) -> None:
        """Say for the HPARAMS page that the run has finished; TensorBoard believes the first such event for ever."""
        self._add_once(time, events.hparams_end(time))

    def _add_once(self, time: float, event: Event) -> None:
        tags = [value.tag for value in event.summary.value]
        if all(tag in self._last for tag in tags):
            return
        self._last.update({tag: (event.step, 0.0, -1) for tag in tags})
        self._append(time, event.SerializeToString())

    def purge(self, time: float, step: int) -> None:
        """Readers forget the points at ``step`` and later; they may come again. Begins a new file.

        Raises:
            EventsUnavailable: what was gathered before could not be written.
        """
        step = max(step, self._first)
        self.close()
        self._forget(step)
        self._resumed = None
        self._append(time, events.purge(time, step).SerializeToString())

    def flush(self, *, sync: bool = False) -> None:
        """Write what was gathered; with ``sync`` also bring it to the disk itself.

        Raises:
            EventsUnavailable: it could not be written; the axis is broken.
        """
        if os.getpid() != self._pid:
            self._buffer.clear()
        try:
            if self._buffer:
                if self._file is None:
                    self._file = tfrecord.EventFile(self.folder)
                self._file.write(bytes(self._buffer))
                self._buffer.clear()
            if sync and self._file is not None:
                self._file.sync()
        except OSError as error:
            raise self._down("write", error) from error

    def close(self) -> None:
        """Write what was gathered and end the file.

        Raises:
            EventsUnavailable: it could not be written.
        """
        self.flush(sync=True)
        self.drop()

    def drop(self) -> None:
        """End the file without writing what was gathered."""
        self._buffer.clear()
        self._begun = False
        if self._file is not None:
            with contextlib.suppress(OSError):  # what matters was written, or is given up
                self._file.close()
            self._file = None

    def _append(self, time: float, data: bytes) -> None:
        if not self._begun:
            self._buffer += tfrecord.frame(events.opening(time, self._run_id, self._part).SerializeToString())
            self._begun = True
        self._buffer += tfrecord.frame(data)
        if len(self._buffer) > MAX_BUFFER:
            self.flush()

    def _without(self, stale: list[str], time: float, step: int, series: Mapping[str, float]) -> dict[str, float]:
        for tag in stale:
            if time > self._last[tag][1] and tag not in self._told:
                self._told.add(tag)
                logger.warning(
                    "tensorboard: %s came for step %d after step %d: TensorBoard would lose the later points, so this "
                    "one is left out (the journal has it)", tag, step, self._last[tag][0]
                )  # fmt: skip
        return {tag: value for tag, value in series.items() if tag not in stale}

    def _scan(self, path: Path) -> None:
        records = tfrecord.read(path)
        part = events.part_of(Event.FromString(next(records, b"")), self._run_id)
        if part is None:
            return
        self.found = True
        for data in records:
            event = Event.FromString(data)
            if event.HasField("session_log"):
                self._forget(event.step)
            for value in event.summary.value:
                if value.tag.endswith("/text_summary"):
                    key = (value.tag.removesuffix("/text_summary"), event.wall_time, value.tensor.string_val[0])
                    self._texts[key] = event.step
                else:
                    self._last[value.tag] = (event.step, event.wall_time, -1)
                    if value.HasField("simple_value"):
                        self._part = self._found_part = max(self._found_part, part)

    def _forget(self, step: int) -> None:
        self._points = {tag: (min(at, step - 1), time, seq) for tag, (at, time, seq) in self._last.items()}
        self._texts = {key: at for key, at in self._texts.items() if at < step}

    def _down(self, verb: str, error: OSError) -> EventsUnavailable:
        self.broken = True
        self.drop()
        return EventsUnavailable(
            error.errno, f"cannot {verb} TensorBoard events in {self.folder}: {error.strerror or error}"
        )


def _is_old(step: int, time: float, seq: int, last: _Point) -> bool:
    """Whether a point is the last of its tag come again, or stands before it."""
    if step != last[0]:
        return step < last[0]
    return seq <= last[2] if min(seq, last[2]) >= 0 else time == last[1]
