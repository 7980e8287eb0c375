from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from losslog_wandb import WandbPlugin

from losslog.testing import tell
from losslog.testing.waiting import until

T0 = 1764000000.0
Started = Callable[..., WandbPlugin]


def close(plugin: WandbPlugin, seq: int = 1000, status: str = "finished") -> None:
    plugin.on_run_end(status=status, seq=seq, time=T0 + seq)
    until(lambda: plugin.on_flush() is None)


@pytest.fixture
def offline(started: Started) -> WandbPlugin:
    return started(mode="offline")


def test_batch_losses_stand_on_the_step_axis(offline: WandbPlugin, local: Any) -> None:
    tell(offline, "on_batch_losses", step=7, losses={"loss_box": 0.25, "loss_mask": 0.5}, lr=0.1, seq=1, time=T0)
    close(offline)
    assert local.rows()[0] == {
        "batch/train_loss_box": 0.25, "batch/train_loss_mask": 0.5, "batch/train_total": 0.75, "batch/lr": 0.1,
        "batch/global_step": 7, "losslog/seq": 1,
    }  # fmt: skip


def test_an_epoch_stands_on_the_epoch_axis(offline: WandbPlugin, local: Any) -> None:
    tell(
        offline,
        "on_epoch_end",
        epoch=3,
        losses={"a": 1 / 3, "b": 2 / 7},
        val_loss={"a": 0.1},
        lr={"x": 0.1, "y": 0.2},
        seq=1,
        time=T0,
    )
    close(offline)
    assert local.rows()[0] == {
        "loss/train_a": 1 / 3, "loss/train_b": 2 / 7, "loss/train_total": 1 / 3 + 2 / 7, "loss/val_a": 0.1,
        "loss/val": 0.1, "lr": 0.1, "lr_group/x": 0.1, "lr_group/y": 0.2, "epoch": 3, "losslog/seq": 1,
    }  # fmt: skip


def test_a_scalar_loss_has_one_series(offline: WandbPlugin, local: Any) -> None:
    tell(offline, "on_epoch_end", epoch=1, losses=1.5, val_loss=1.25, lr=None, seq=1, time=T0)
    close(offline)
    assert local.rows()[0] == {"loss/train": 1.5, "loss/val": 1.25, "epoch": 1, "losslog/seq": 1}


def test_hooks_take_tensors_and_numpy_scalars(offline: WandbPlugin, local: Any) -> None:
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("numpy")
    losses = {"a": torch.tensor(1.5), "b": numpy.float32(0.5)}
    tell(offline, "on_batch_losses", step=0, losses=losses, lr=None, seq=1, time=T0)
    close(offline)
    assert local.rows()[0]["batch/train_total"] == 2.0


def test_rows_of_both_axes_interleave_without_loss(offline: WandbPlugin, local: Any) -> None:
    for seq in range(0, 40, 2):
        tell(offline, "on_batch_losses", step=1000 - seq, losses=1.0, lr=None, seq=seq, time=T0)
        tell(offline, "on_epoch_end", epoch=seq, losses=2.0, val_loss=None, lr=None, seq=seq + 1, time=T0)
    close(offline)
    assert [row["losslog/seq"] for row in local.rows()] == [*range(40), 1000]


def test_every_series_is_defined_on_its_axis(offline: WandbPlugin, local: Any) -> None:
    tell(offline, "on_eval", epoch=1, split="test", metrics={"bbox": {"AP": 0.5}}, seq=1, time=T0)
    tell(offline, "on_metrics", step=3, epoch=None, metrics={"images_per_second": 30.0}, seq=2, time=T0)
    tell(offline, "on_metrics", step=None, epoch=1, metrics={"hours": 0.5}, seq=3, time=T0)
    close(offline)
    defined = [record["metric"] for record in local.records() if "metric" in record]
    axes = {each.get("glob_name") or each["name"]: each.get("step_metric") for each in defined}
    assert {name: axis for name, axis in axes.items() if axis} == {
        "batch/*": "batch/global_step", "images_per_second": "batch/global_step",
        "loss/train*": "epoch", "loss/val*": "epoch", "mAP/*": "epoch", "mAP_class/*": "epoch", "eval/*": "epoch",
        "lr": "epoch", "lr_group/*": "epoch", "mAP_test/bbox_AP": "epoch", "hours": "epoch",
    }  # fmt: skip


def test_the_summary_keeps_the_best(offline: WandbPlugin, local: Any) -> None:
    for seq, value in enumerate([0.5, 0.9, 0.7]):
        tell(offline, "on_eval", epoch=seq, split="val", metrics={"bbox": {"AP": value}}, seq=2 * seq, time=T0)
        tell(offline, "on_epoch_end", epoch=seq, losses=1.0, val_loss=1 - value, lr=None, seq=2 * seq + 1, time=T0)
    close(offline)
    summary = local.summary()["summary"]
    assert summary["mAP/bbox_AP"] == {"max": 0.9, "last": 0.7}
    assert summary["loss/val"] == {"min": pytest.approx(0.1), "last": pytest.approx(0.3)}


def test_values_that_are_not_finite_are_kept(offline: WandbPlugin, local: Any) -> None:
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf}
    tell(offline, "on_batch_losses", step=0, losses=values, lr=None, seq=1, time=T0)
    close(offline)
    row = local.rows()[0]
    stored = [float(row[f"batch/train_{name}"]) for name in values]
    assert math.isnan(stored[0])
    assert stored[1:] == [math.inf, -math.inf]


def test_an_odd_tag_does_not_cost_the_row(offline: WandbPlugin, local: Any) -> None:
    tell(offline, "on_metrics", step=0, epoch=None, metrics={"a*b": 1.0, "c*": 2.0}, seq=1, time=T0)
    close(offline)
    assert local.rows()[0] == {"a*b": 1.0, "c*": 2.0, "batch/global_step": 0, "losslog/seq": 1}


def test_rows_carry_the_records_own_time(offline: WandbPlugin, local: Any) -> None:
    tell(offline, "on_batch_losses", step=0, losses=1.0, lr=None, seq=1, time=T0 + 0.5)
    close(offline)
    stamps = [each["history"]["item"]["_timestamp"] for each in local.records() if "history" in each]
    assert stamps[0] == T0 + 0.5


@pytest.mark.parametrize(("level", "stored"), [("info", "INFO"), ("warning", "WARN"), ("error", "ERROR")])
def test_an_alert_is_an_alert(offline: WandbPlugin, local: Any, level: str, stored: str) -> None:
    offline.on_alert(level=level, title="loss_mask has stalled", text="lower lr", seq=1, time=T0)
    close(offline)
    alerts = [record["alert"] for record in local.records() if "alert" in record]
    assert [(each["title"], each["text"], each["level"]) for each in alerts] == [
        ("loss_mask has stalled", "lower lr", stored)
    ]


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("stopped", 0), ("failed", 1), ("crashed", 1)])
def test_every_end_has_its_exit_code(started: Started, local: Any, status: str, code: int) -> None:
    close(started(mode="offline"), status=status)
    summary = local.summary()
    assert (summary["exit_code"], summary["summary"]["losslog/status"]) == (code, status)


def test_config_name_project_and_id_come_from_the_run(started: Started, run: Any, local: Any) -> None:
    close(started(mode="offline", config={"lr": 0.1, "model": {"backbone": "r50"}}))
    summary = local.summary()
    assert summary["config"] == {"lr": 0.1, "model": {"backbone": "r50"}}
    assert (summary["project"], summary["name"], summary["run_id"]) == ("maskrcnn", f"maskrcnn {run.id}", run.id)


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("mask rcnn/v2: 50%", "mask rcnn-v2- 50"),
        ("a\\b#c?d", "a-b-c-d"),
        ("näme 🎉\x1b[31m", "näme 🎉-[31m"),
        ("x" * 200, "x" * 128),
        ("///", "losslog"),
    ],
)
def test_any_name_of_a_run_gives_a_project(local: Any, run: Any, name: str, project: str) -> None:
    run.name = name
    plugin = WandbPlugin(mode="offline")
    plugin.on_run_start(name=name, config={}, run=run)
    close(plugin)
    assert local.summary()["project"] == project
    again = WandbPlugin(mode="offline")
    again.on_run_start(name=name, config={}, run=run)
    assert again.delivered_upto(run) is not None  # found again by its project
    assert again.delivered_upto(run) >= 0


def test_the_environment_and_then_the_options_come_first(
    started: Started, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "from-environment")
    monkeypatch.setenv("WANDB_NAME", "named-by-environment")
    close(started(mode="offline", name="named-by-option", tags=["a"]))
    summary = local.summary()
    assert (summary["project"], summary["name"], summary["tags"]) == ("from-environment", "named-by-option", ["a"])


def test_a_checkpoint_is_an_artifact_only_when_asked_for(started: Started, run: Any, local: Any) -> None:
    (run.dir / "epoch_001.pth").write_bytes(b"weights")
    for seq, asked in ((1, False), (2, True)):
        plugin = started(mode="offline", checkpoints=asked)
        plugin.on_checkpoint(epoch=1, path="epoch_001.pth", run=run, seq=seq, time=T0)
        if asked:
            close(plugin)
    artifacts = [record["artifact"] for record in local.records() if "artifact" in record]
    assert [each["name"] for each in artifacts] == [f"{run.id}-checkpoint"]


def test_disabled_writes_nothing(started: Started, run: Any) -> None:
    plugin = started(mode="disabled")
    tell(plugin, "on_batch_losses", step=0, losses=1.0, lr=None, seq=1, time=T0)
    plugin.on_flush()
    close(plugin)
    assert list(run.dir.rglob("*.wandb")) == []


def test_an_end_without_a_start_is_nothing() -> None:
    close(WandbPlugin(mode="offline"))
