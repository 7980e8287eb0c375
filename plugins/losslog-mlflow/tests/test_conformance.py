"""Everything losslog expects of a plugin, against sqlite."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from losslog.testing import PluginConformance


class TestMlflow(PluginConformance):
    name = "mlflow"
    vendor = ("mlflow",)
    resume = "appends"

    @pytest.fixture(autouse=True)
    def _template(self, template: Path) -> None:
        self._path = template

    def prepare(self, run_dir: Path) -> None:
        shutil.copy(self._path, run_dir.parent / "mlflow.db")

    def stored(self, value: float) -> float:
        return math.nan if math.isinf(value) else value

    def read_back(self, run_dir: Path) -> dict[str, list[tuple[int, float]]]:
        client = MlflowClient(tracking_uri=f"sqlite:///{run_dir.parent}/mlflow.db")
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`losslog.run_id` = '{run_dir.name}'")
        assert len(runs) == 1
        return {tag: _points(client.get_metric_history(runs[0].info.run_id, tag)) for tag in runs[0].data.metrics}


def _points(history: Any) -> list[tuple[int, float]]:
    """Oldest first. A value that a resumed run found again at a later time is one point; a redelivered one is not."""
    stamps: dict[tuple[int, float], set[int]] = {}
    found = []
    for each in sorted(history, key=lambda each: each.timestamp):
        seen = stamps.setdefault((each.step, each.value), set())
        if not seen or each.timestamp in seen:
            found.append((each.step, each.value))
        seen.add(each.timestamp)
    return found
