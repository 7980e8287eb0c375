"""What was gathered since the last flush.

Runs on the plugin's lane. Contract:

- Whatever is added can be sent: names are cleaned, infinities are turned into NaN, and tags say so.
- Nothing is remembered beyond the batch: what could not be sent is delivered again by the lane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from losslog_mlflow.names import clean
from losslog_mlflow.pictures import Picture
from losslog_mlflow.runs import LONGEST_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

AT_ONCE: Final = 1000  # metrics a server takes in one call


DESCRIPTION: Final = "mlflow.note.content"  # what MLflow's page shows of a run


class Batch:
    """Points, tags, params and files of one run.

    Attributes:
        points: (name, value, time in ms, step).
        tags: by clean name.
        params: by clean name.
        files: checkpoints.
        images: sheets.
        renamed: clean name by the one that MLflow refuses.
        alerts: what the run's description is to say.
        end: status and time in ms of the run's end, where it has ended.
    """

    def __init__(self) -> None:
        self.points: list[tuple[str, float, int, int]] = []
        self.tags: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.files: list[Path] = []
        self.images: list[Picture] = []
        self.renamed: dict[str, str] = {}
        self.alerts: list[str] = []
        self.end: tuple[str, int] | None = None

    def add(self, series: Mapping[str, float], x: int, time: float) -> None:
        """Points of several series at one x."""
        stamp = int(time * 1000)
        for tag, value in series.items():
            name = clean(tag)
            if name != tag:
                self.renamed[tag] = name
                self.note(f"losslog.renamed.{name}", tag)
            if math.isinf(value):  # MLflow would show 1.8e308
                self.note(f"losslog.infinite.{name}", f"{value} at step {x}, stored as NaN")
                value = math.nan
            self.points.append((name, value, stamp, x))

    def note(self, tag: str, text: str) -> None:
        """A tag."""
        self.tags[clean(tag)] = text[:LONGEST_TAG]

    def describe(self, known: str) -> str:
        """Put the alerts into the run's description, behind what is there; the description."""
        for alert in self.alerts:
            if alert not in known:
                known = f"{known}\n\n{alert}".strip()
        self.note(DESCRIPTION, known)
        return known

    def send(self, client: MlflowClient, run_id: str) -> None:
        """Everything but the files, in as few calls as the server takes."""
        from mlflow.entities import Metric, Param, RunTag

        tags = [RunTag(name, text) for name, text in self.tags.items()]
        params = [Param(name, text) for name, text in self.params.items()]
        if tags or params:
            client.log_batch(run_id, tags=tags, params=params, synchronous=True)
        for first in range(0, len(self.points), AT_ONCE):
            metrics = [Metric(*point) for point in self.points[first : first + AT_ONCE]]
            client.log_batch(run_id, metrics=metrics, synchronous=True)
