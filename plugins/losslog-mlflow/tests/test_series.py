from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from losslog_mlflow import MlflowPlugin

from losslog.testing import tell

T0 = 1764000000.0
Started = Callable[..., MlflowPlugin]


def epoch_end(plugin: MlflowPlugin, epoch: int, losses: Any, val_loss: Any = None, lr: Any = None) -> None:
    tell(plugin, "on_epoch_end", epoch=epoch, losses=losses, val_loss=val_loss, lr=lr, time=T0 + epoch)


def test_batch_losses_of_a_dict_stand_at_their_step(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_batch_losses", step=7, losses={"loss_box": 0.25, "loss_mask": 0.5}, lr=0.1, time=T0)
    plugin.on_flush()
    stored = local.run(run).data.metrics
    assert stored == {
        "batch/train_loss_box": 0.25, "batch/train_loss_mask": 0.5, "batch/train_total": 0.75, "batch/lr": 0.1,
    }  # fmt: skip
    assert local.series(run, "batch/train_total") == [(7, 0.75)]


def test_very_much_at_once_is_sent_in_parts(started: Started, run: Any, local: Any) -> None:
    """One call that takes half a minute would look like one that hangs."""
    plugin = started()
    losses = {f"part_{number}": 1.0 for number in range(1200)}
    for step in range(6):
        tell(plugin, "on_batch_losses", step=step, losses=losses, lr=None, time=T0 + step)
    assert local.series(run, "batch/train_part_1199") == [(step, 1.0) for step in range(5)]
    plugin.on_flush()
    assert local.series(run, "batch/train_part_1199") == [(step, 1.0) for step in range(6)]


def test_a_scalar_loss_has_one_series(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_batch_losses", step=0, losses=1.5, lr=None, time=T0)
    epoch_end(plugin, 1, 1.5, val_loss=1.25)
    plugin.on_flush()
    assert local.run(run).data.metrics == {"batch/train": 1.5, "loss/train": 1.5, "loss/val": 1.25}


def test_epoch_series_keep_every_digit(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    epoch_end(plugin, 3, {"a": 1 / 3, "b": 2 / 7}, val_loss={"a": 0.1}, lr={"body": 1e-3, "head": 1e-2})
    plugin.on_flush()
    assert local.run(run).data.metrics == {
        "loss/train_a": 1 / 3, "loss/train_b": 2 / 7, "loss/train_total": 1 / 3 + 2 / 7, "loss/val_a": 0.1,
        "loss/val": 0.1, "lr": 1e-3, "lr_group/body": 1e-3, "lr_group/head": 1e-2,
    }  # fmt: skip
    assert local.series(run, "loss/train_a") == [(3, 1 / 3)]


def test_an_evaluation_stands_at_its_epoch(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_eval", epoch=2, split="val", metrics={"bbox": {"AP": 0.5, "classes": {"cat": 0.4}}}, time=T0)
    tell(plugin, "on_eval", epoch=2, split="test", metrics={"accuracy": 0.9}, time=T0)
    plugin.on_flush()
    assert local.series(run, "mAP/bbox_AP") == [(2, 0.5)]
    assert local.series(run, "mAP_class/bbox_cat") == [(2, 0.4)]
    assert local.series(run, "eval_test/accuracy") == [(2, 0.9)]


@pytest.mark.parametrize(("step", "epoch", "x"), [(12, 1, 12), (None, 4, 4), (None, None, 0)])
def test_other_metrics_stand_where_they_were_given(
    started: Started, run: Any, local: Any, step: int | None, epoch: int | None, x: int
) -> None:
    plugin = started()
    tell(plugin, "on_metrics", step=step, epoch=epoch, metrics={"images_per_second": 31.5}, time=T0)
    plugin.on_flush()
    assert local.series(run, "images_per_second") == [(x, 31.5)]


def test_nan_stays_nan(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_batch_losses", step=0, losses={"a": math.nan}, lr=None, time=T0)
    plugin.on_flush()
    assert math.isnan(local.run(run).data.metrics["batch/train_a"])


def test_an_infinity_is_a_nan_with_a_tag_that_says_so(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_batch_losses", step=5, losses={"a": -math.inf}, lr=None, time=T0)
    plugin.on_flush()
    stored = local.run(run).data
    assert math.isnan(stored.metrics["batch/train_a"])
    assert stored.tags["losslog.infinite.batch/train_a"] == "-inf at step 5, stored as NaN"


def test_one_bad_component_name_does_not_cost_the_batch(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_batch_losses", step=0, losses={"head@2": 2.0, "box": 1.0}, lr=None, time=T0)
    plugin.on_flush()
    stored = local.run(run).data
    renamed = next(name for name in stored.metrics if "head" in name)
    assert stored.metrics["batch/train_box"] == 1.0
    assert stored.metrics[renamed] == 2.0
    assert stored.tags[f"losslog.renamed.{renamed}"] == "batch/train_head@2"


def test_hooks_take_tensors_and_numpy_scalars(started: Started, run: Any, local: Any) -> None:
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("numpy")
    plugin = started()
    tell(plugin, "on_batch_losses", step=0, losses={"a": torch.tensor(1.5), "b": numpy.float32(0.5)}, lr=None, time=T0)
    epoch_end(plugin, 1, torch.tensor(2.0))
    plugin.on_flush()
    assert local.run(run).data.metrics["batch/train_total"] == 2.0
    assert local.run(run).data.metrics["loss/train"] == 2.0


def test_more_than_a_thousand_points_go_in_one_flush(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    for step in range(1050):
        tell(plugin, "on_batch_losses", step=step, losses=float(step), lr=None, time=T0 + step)
    plugin.on_flush()
    assert local.series(run, "batch/train") == [(step, float(step)) for step in range(1050)]


def test_points_are_stamped_with_the_records_own_time(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    tell(plugin, "on_batch_losses", step=0, losses=1.0, lr=None, time=T0 + 0.125)
    plugin.on_flush()
    points = local.client.get_metric_history(local.run(run).info.run_id, "batch/train")
    assert [point.timestamp for point in points] == [int(T0 * 1000) + 125]


def test_delivering_twice_adds_nothing(started: Started, run: Any, local: Any) -> None:
    for _ in range(2):  # the second time as a new follower would
        plugin = started()
        for step in range(3):
            tell(plugin, "on_batch_losses", step=step, losses={"a": float(step), "b": math.nan}, lr=None, time=T0)
        plugin.on_flush()
    assert local.series(run, "batch/train_a") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert len(local.series(run, "batch/train_b")) == 3


def test_an_alert_is_a_tag(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_alert(level="warning", title="loss_mask has stalled", text="lower lr", epoch=4, key="plateau/loss_mask/4")
    plugin.on_flush()
    tags = local.run(run).data.tags
    assert tags["losslog.alert.plateau/loss_mask/4"] == "warning: loss_mask has stalled (epoch 4)\nlower lr"


def test_alerts_are_the_runs_description(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    for title in ("loss_mask has stalled", "loss_mask has stalled", "loss_box_reg is diverging"):  # one comes twice
        plugin.on_alert(level="warning", title=title, text="look", epoch=4, key=title)
        plugin.on_flush()
    again = started(resumed=True)
    again.on_alert(level="warning", title="resumed", text="", epoch=None, key="resumed")
    again.on_flush()
    text = local.run(run).data.tags["mlflow.note.content"]
    assert text == (
        "**loss_mask has stalled** (epoch 4)\n\nlook\n\n**loss_box_reg is diverging** (epoch 4)\n\nlook\n\n**resumed**"
    )
