"""What was gathered since the last flush.

Runs on the plugin's lane. Contract:

- Whatever is added can be sent: names are cleaned, infinities are turned into NaN, and tags say so.
- Nothing is remembered beyond the batch: what could not be sent is delivered again by the lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from losslog_mlflow.answers import too_large
from losslog_mlflow.names import clean
from losslog_mlflow.pictures import Picture
from losslog_mlflow.runs import LONGEST_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

AT_ONCE: Final = 1000  # metrics a server takes in one call


DESCRIPTION: Final = "mlflow.note.content"  # what MLflow's page shows of a run


class Batch:
    """Points, tags and params of one run.

    Attributes:
        points: (name, value, time in ms, step).
        tags: by clean name.
        params: by clean name.
        images: sheets.
        renamed: clean name by the one that MLflow refuses.
        alerts: what the run's description is to say.
        end: status and time in ms of the run's end, where it has ended.
        at_once: metrics that the server, or a proxy before it, takes in one call.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self.at_once = at_once
        self.points: list[tuple[str, float, int, int]] = []
        self.tags: dict[str, str] = {}
        self.params: dict[str, str] = {}
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
        """Everything, in as few calls as the server takes."""
        from mlflow.entities import Metric, Param, RunTag

        tags = [RunTag(name, text) for name, text in self.tags.items()]
        params = [Param(name, text) for name, text in self.params.items()]

        def about(some: Sequence[Any]) -> None:
            client.log_batch(
                run_id,
                tags=[each for each in some if isinstance(each, RunTag)],
                params=[each for each in some if isinstance(each, Param)],
                synchronous=True,
            )

        if tags or params:
            _in_parts(about, [*tags, *params], len(tags) + len(params))
        metrics = [Metric(*point) for point in self.points]
        self.at_once = _in_parts(
            lambda some: client.log_batch(run_id, metrics=list(some), synchronous=True), metrics, self.at_once
        )


def _in_parts(send: Callable[[Sequence[Any]], Any], things: Sequence[Any], at_once: int) -> int:
    """Send things, half as many at once where they are too large together; how many went."""
    first = 0
    while first < len(things):
        some = things[first : first + at_once]
        try:
            send(some)
        except Exception as error:
            if len(some) == 1 or not too_large(error):
                raise
            at_once = len(some) // 2
        else:
            first += len(some)
    return at_once
