"""Sheets of images in a run's artifacts.

Runs on the plugin's lane. Contract:

- MLflow gives every picture a file of a random name, so one that comes again would be there twice: what the run has is
  looked up first, by key, step and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER: Final = "images"


class Picture(NamedTuple):
    """A sheet at one x.

    Attributes:
        key: the series.
        step: x.
        stamp: the record's time in ms.
        picture: the sheet, drawn.
    """

    key: str
    step: int
    stamp: int
    picture: Any


class Pictures:
    """What is sent, and what is there."""

    def __init__(self) -> None:
        self._there: dict[str, set[str]] = {}  # by run

    def send(self, client: MlflowClient, run_id: str, pictures: Sequence[Picture]) -> None:
        """Send those that the run has not."""
        if not pictures:
            return
        if run_id not in self._there:
            files = client.list_artifacts(run_id, FOLDER)
            self._there[run_id] = {file.path.rpartition("/")[2].rpartition("+timestamp+")[0] + "+" + _stamp(file.path)
                                   for file in files if file.path.endswith(".png")}  # fmt: skip
        for each in pictures:
            name = f"{each.key.replace('/', '~')}+step+{each.step}+{each.stamp}"
            if name not in self._there[run_id]:
                client.log_image(run_id, each.picture, key=each.key, step=each.step, timestamp=each.stamp,
                                 synchronous=True)  # fmt: skip
                self._there[run_id].add(name)


def _stamp(path: str) -> str:
    return path.rpartition("+timestamp+")[2].partition("+")[0]
