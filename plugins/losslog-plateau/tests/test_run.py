"""The plugin in a real run: found by its entry point, in a near lane, alerting into the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import losslog


def alerts(run: Any) -> list[dict[str, Any]]:
    lines = (Path(run.dir) / "journal.jsonl").read_text().splitlines()
    return [record["data"] for record in map(json.loads, lines) if record["hook"] == "on_alert"]


@pytest.fixture
def options() -> dict[str, Any]:
    return {"epochs": 60, "steps_per_epoch": 50, "follower": False, "plugins": ["plateau"]}


def test_stall_is_an_alert_in_the_journal(tmp_path: Path, rows: Any, make: Any, options: Any) -> None:
    with losslog.Run("stall", dir=tmp_path, **options) as run:
        for step, losses in rows()(make.stalled()):
            run.log_batch(losses, lr=0.01, epoch=step // 50 + 1)
    found = [each for each in alerts(run) if each["source"] == "plateau"]
    assert [(each["component"], each["level"]) for each in found] == [("loss_mask", "warning")]


def test_stop_on_stall_stops_the_loop(tmp_path: Path, rows: Any, make: Any, options: Any) -> None:
    with losslog.Run("stop", dir=tmp_path, options={"plateau": {"on_stall": "stop"}}, **options) as run:
        for step, losses in rows()(make.stalled()):
            run.log_batch(losses, epoch=step // 50 + 1)
        run.flush(timeout=60)
        assert run.should_stop


def test_bad_option_is_told_at_once(tmp_path: Path, options: Any) -> None:
    with pytest.raises(losslog.PluginError, match="sensitivity"):
        losslog.Run("bad", dir=tmp_path, options={"plateau": {"sensitivity": "loud"}}, **options)


def test_non_finite_loss_is_one_alert_of_core_and_plugin(tmp_path: Path, options: Any) -> None:
    with losslog.Run("nan", dir=tmp_path, **options) as run:
        run.log_batch({"loss_mask": 1.0, "loss_box_reg": 1.0})
        run.log_batch({"loss_mask": float("nan"), "loss_box_reg": 1.0})
    assert [each["component"] for each in alerts(run)] == ["loss_mask"]
