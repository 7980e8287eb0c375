"""Everything losslog expects of a plugin, offline."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from losslog_wandb.localfiles import LocalFile
from losslog_wandb.session import forget_service
from wandb.sdk.wandb_setup import singleton

from losslog.testing import PluginConformance

AXES = ("epoch", "batch/global_step")


class TestWandb(PluginConformance):
    name = "wandb"
    vendor = ("wandb",)
    resume = "appends"

    def options(self, tmp_path: Path) -> dict[str, Any]:
        light = {"x_disable_stats": True, "x_save_requirements": False, "x_disable_machine_info": True}
        return {"mode": "offline", **light}

    @pytest.fixture(autouse=True)
    def _a_service_for_each(self) -> Iterator[None]:
        """A session that a check leaves behind would keep the run's id for itself."""
        yield
        _kill_core()

    def crash(self, plugin: Any) -> None:
        """A kill takes wandb-core with it."""
        plugin._session, plugin._open = None, lambda: None  # a lane may live on in this process: nothing more of it
        _kill_core()

    def read_back(self, run_dir: Path) -> dict[str, list[tuple[int, float]]]:
        record_type: Any = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
        found: dict[str, list[tuple[int, float]]] = {}
        seqs: dict[tuple[str, int, float], set[int]] = {}
        for path in sorted((run_dir / "wandb").glob("*run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
            for payload in LocalFile(path)._payloads():
                items = record_type.FromString(payload).history.item
                row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
                x = next((row.pop(axis) for axis in AXES if axis in row), None)
                for tag, value in row.items():
                    if tag.startswith(("_", "losslog/", "images/")):
                        continue
                    # a value that a resumed run found again is one point; a record that was delivered twice is not
                    seen = seqs.setdefault((tag, x, float(value)), set())
                    if not seen or row["losslog/seq"] in seen:
                        found.setdefault(tag, []).append((x, float(value)))
                    seen.add(row["losslog/seq"])
        return found


def _kill_core() -> None:
    core: Any = getattr(singleton(), "_connection", None)
    if core is not None:
        core._proc._process.kill()
        core._proc.join()
        forget_service()
