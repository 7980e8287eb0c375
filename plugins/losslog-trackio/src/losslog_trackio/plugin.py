"""The plugin: the numbers of a record become one row of Trackio's local store.

Runs on the plugin's lane, in losslog's follower process. Contract:

- Hooks gather; `TrackioPlugin.on_flush` writes, with one transaction. When it raises, what was gathered is forgotten,
  since it will come again.
- Every row has an id made of the run's and the record's: Trackio keeps one row for an id, so a record that comes again
  adds nothing.
- ``trackio.init`` and ``Run.log`` are not used: they hand rows to a thread that swallows errors, and a kill loses what
  that thread holds. The store's own functions return when the rows are committed.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from losslog import BackendUnavailable, NotReady, hookimpl
from losslog.detection.sheets import sheet_of, tag_of

LEVELS: Final = {"info": "info", "warning": "warn", "error": "error"}


class Row(NamedTuple):
    """Values at one x."""

    id: str
    time: str
    x: int
    series: dict[str, Any]


class Alert(NamedTuple):
    """An alert at one x, or at none."""

    id: str
    time: str
    x: int | None
    title: str
    text: str
    level: str


class TrackioPlugin:
    """Every series of a run in Trackio.

    Args:
        project: Trackio's project. None: the run's name.
        group: Trackio's group of runs.
        images: store a sheet of each record of images.

    Raises:
        losslog.NotReady: trackio is not installed.
        TypeError: an option is not what it may be.
    """

    consent_variables = ("TRACKIO_DIR",)  # the store is one for all runs and lies in the home folder
    journal_options = ("project", "group", "images")
    flush_every = 1.0

    def __init__(self, project: str | None = None, group: str | None = None, images: bool = True) -> None:
        for name, value in (("project", project), ("group", group)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"trackio option {name}={value!r}: pass a text")
        if not isinstance(images, bool):
            raise TypeError(f"trackio option images={images!r}: pass True or False")
        if importlib.util.find_spec("trackio") is None:
            raise NotReady("trackio is not installed: pip install trackio")
        self._given, self._group, self._images = project, group, images
        self._project = self._run = ""
        self._config: dict[str, Any] | None = None
        self._forget()

    @hookimpl
    def on_run_start(self, name: str, config: Mapping[str, Any], run: Any, time: float) -> None:
        """Remember what the run is: its config goes with the next rows."""
        self._project, self._run = self._given or name or "losslog", run.id
        plain = {key: value for key, value in config.items() if not key.startswith("_")}  # "_..." is trackio's
        self._config = {**plain, "_Created": _iso(time), "_Group": self._group, "_Username": None}

    @hookimpl
    def on_scalars(self, series: Mapping[str, float], x: int, seq: int, time: float) -> None:
        """A row at the step or the epoch."""
        self._rows.append(Row(f"{self._run}/{seq}", _iso(time), x, dict(series)))

    @hookimpl
    def on_images(
        self, epoch: int, split: str, name: str, images: Sequence[Mapping[str, Any]], seq: int, time: float
    ) -> None:
        """A sheet at the epoch: a file in Trackio's media folder, and a row that names it."""
        sheet = sheet_of(split, name, epoch, images) if self._images and self._run else None
        if sheet is None:
            return
        from trackio.media import get_project_media_path
        from trackio.utils import MEDIA_DIR

        try:
            path = get_project_media_path(project=self._project, run=self._run, step=epoch or 0) / f"losslog-{seq}.jpg"
            path.write_bytes(sheet.encoded(sheet.drawn()))
        except OSError as error:
            raise BackendUnavailable(f"trackio's media folder: {error}") from error
        media = {"_type": "trackio.image", "file_path": path.relative_to(MEDIA_DIR).as_posix(), "caption": sheet.title}
        self._rows.append(Row(f"{self._run}/{seq}", _iso(time), epoch or 0, {tag_of(split, name): media}))

    @hookimpl
    def on_alert(
        self, level: str, title: str, text: str, step: int | None, epoch: int | None, seq: int, time: float
    ) -> None:
        """Trackio's own alert."""
        x = epoch if step is None else step
        self._alerts.append(Alert(f"{self._run}/{seq}", _iso(time), x, title, text, LEVELS[level]))

    @hookimpl
    def on_run_end(self, status: str, error: str | None, seq: int, time: float) -> None:
        """An alert where the run did not finish: Trackio has no status."""
        if self._run and status != "finished":
            text = f"status {status}" + (f": {error}" if error else "")
            self._alerts.append(Alert(f"{self._run}/{seq}", _iso(time), None, "the run has ended", text, "warn"))

    @hookimpl
    def on_flush(self) -> None:
        """Write what was gathered."""
        rows, alerts = self._rows, self._alerts
        self._forget()
        if not self._run or not (rows or alerts):
            return
        from trackio.sqlite_storage import SQLiteStorage

        try:
            if rows:
                SQLiteStorage.bulk_log(
                    self._project,
                    self._run,
                    [row.series for row in rows],
                    steps=[row.x for row in rows],
                    timestamps=[row.time for row in rows],
                    config=self._config,
                    log_ids=[row.id for row in rows],
                    run_id=self._run,
                )
                self._config = None
            if alerts:
                SQLiteStorage.bulk_alert(
                    self._project,
                    self._run,
                    titles=[alert.title for alert in alerts],
                    texts=[alert.text for alert in alerts],
                    levels=[alert.level for alert in alerts],
                    steps=[alert.x for alert in alerts],
                    timestamps=[alert.time for alert in alerts],
                    alert_ids=[alert.id for alert in alerts],
                    run_id=self._run,
                )
        except sqlite3.OperationalError as error:  # locked, full, read-only: all of them pass
            raise BackendUnavailable(f"trackio's store: {error}") from error

    def _forget(self) -> None:
        """Nothing is gathered."""
        self._rows: list[Row] = []
        self._alerts: list[Alert] = []


def _iso(time: float) -> str:
    """A time as Trackio writes it."""
    return datetime.fromtimestamp(time, UTC).isoformat()
