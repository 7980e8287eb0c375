"""losslog's own checks, run on this plugin and read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslog.testing import PluginConformance


class TestTensorBoard(PluginConformance):
    name = "tensorboard"
    vendor = ("tensorboard",)

    def read_back(self, run_dir: Path) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for folder in (run_dir / "tensorboard", run_dir / "tensorboard" / "batch"):
            if not folder.is_dir():
                continue
            events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
            for tag in events.Tags()["scalars"]:
                if tag.startswith("alert/"):  # marks of alerts, beside the series
                    continue
                found.setdefault(tag, []).extend((each.step, each.value) for each in events.Scalars(tag))
        return found
