"""Everything losslog expects of a plugin, read back with Trackio's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackio.sqlite_storage import SQLiteStorage

from losslog.testing import PluginConformance


def project_of(folder: Path) -> str:
    """A project for each test folder: Trackio has one store for all."""
    return f"t-{folder.parent.name}-{folder.name}"


class TestTrackio(PluginConformance):
    name = "trackio"
    vendor = ("trackio",)
    resume = "appends"

    def options(self, tmp_path: Path) -> dict[str, Any]:
        return {"project": project_of(tmp_path)}

    def read_back(self, run_dir: Path) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for row in SQLiteStorage.get_logs(project_of(run_dir.parents[2]), run_dir.name, run_id=run_dir.name):
            for tag, value in row.items():
                if tag not in ("step", "timestamp") and not isinstance(value, dict):  # no picture
                    found.setdefault(tag, []).append((row["step"], float(value)))
        return found
